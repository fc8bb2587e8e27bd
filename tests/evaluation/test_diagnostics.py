"""Each sign is found where it is, and none where nothing is wrong."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from uda.evaluation.diagnostics import (
    class_not_kept,
    class_not_kept_back,
    diagnose,
    far_class_shares,
    far_from_estimate,
    lost_classes,
    to_look_at,
    unlike_the_study,
)
from uda.evaluation.outputs import Outputs
from uda.evaluation.shares import Shares, histogram
from uda.evaluation.study import Verdict

CLASSES = ("a", "b", "c", "d")


def read(predicted: torch.Tensor, sure: float = 6.0, labels: torch.Tensor | None = None) -> Outputs:
    logits = F.one_hot(predicted, 4).float() * sure
    source = torch.arange(400) % 4 if labels is None else labels
    return Outputs(logits, logits, F.one_hot(source, 4).float(), F.one_hot(source, 4).float(), source)


EVEN = torch.arange(400) % 4
MOSTLY = torch.where(torch.arange(400) % 11 == 0, (EVEN + 1) % 4, EVEN)  # what a source classifier gets right of it


def told(estimated: torch.Tensor) -> Shares:
    return Shares(estimated.double(), 0.0, 400)


def names(before: Outputs, after: Outputs, **options: Any) -> list[str]:
    return [diagnostic.name for diagnostic in diagnose(before, after, CLASSES, **options)]


def test_nothing_is_said_of_a_good_adaptation():
    assert names(read(MOSTLY, 3.0), read(EVEN)) == []


@pytest.mark.parametrize(
    ("after", "sign"),
    [
        (read(EVEN.clamp(max=1)), "class histogram"),
        (read(torch.where(EVEN == 3, 2, EVEN)), "lost classes"),
        (read(EVEN, 0.5), "unsure"),
        (read(EVEN, 2.0), "less clear than before"),
        (read((EVEN + 1) % 4), "agreement with source-only"),
        (read(MOSTLY), "agreement with source-only"),
    ],
)
def test_each_sign_is_found(after: Outputs, sign: str):
    assert sign in names(read(MOSTLY, 3.0), after)


def test_a_lost_class_is_named_and_advice_given():
    (diagnostic,) = [
        c for c in diagnose(read(MOSTLY), read(torch.where(EVEN == 3, 2, EVEN)), CLASSES) if c.name == "lost classes"
    ]
    assert str(diagnostic).startswith("hardly any target image is given the class d: ")
    assert "training.target_shares=estimated" in diagnostic.advice


def test_a_source_classifier_that_gives_all_images_one_class_is_the_first_sign() -> None:
    """What the adapted one makes of that is not told beside it: all may be well, it would say."""
    one = torch.full((400,), 2)
    found = diagnose(read(one), read(one), CLASSES)
    assert found[0].name == "one class for all"
    assert "gives 100% of the target images the class c" in str(found[0])
    assert {sign.name for sign in found}.isdisjoint({"lost classes", "class histogram"})
    assert "one class for all" not in names(read(one, labels=one), read(one, labels=one)), "as in the source"
    assert "one class for all" not in names(read(torch.where(torch.arange(400) < 340, 2, EVEN)), read(EVEN))


def test_an_uneven_source_is_the_measure_for_the_target():
    uneven = torch.cat([torch.zeros(200), torch.ones(150), torch.full((50,), 2)]).long()
    before = read(torch.where(torch.arange(400) % 11 == 0, (uneven + 1) % 3, uneven), 3.0, uneven)
    assert names(before, read(uneven, labels=uneven)) == []  # class d is nowhere, and is not missed


def test_estimated_shares_are_the_measure_where_the_method_expected_them():
    """Class d is in the source, and not in the target."""
    partial, absent = EVEN.clamp(max=2), torch.tensor([0.25, 0.25, 0.48, 0.02])
    before = read(torch.where(torch.arange(400) % 11 == 0, (partial + 1) % 3, partial), 3.0)
    assert names(before, read(partial)) == ["lost classes"]
    assert names(before, read(partial), shares=told(absent)) == []
    assert names(before, read(partial), shares=told(torch.full((4,), 0.25))) == ["lost classes"]
    assert "class histogram" in names(before, read(partial), shares=told(torch.tensor([0.9, 0.05, 0.05, 0])))


def test_predictions_that_become_as_uneven_as_expected_are_not_less_clear() -> None:
    """Information maximisation of even classes falls, for the mean prediction is no longer even."""
    mostly = torch.where(torch.arange(400) < 200, 0, EVEN)
    before, after = read(EVEN, 8.0), read(mostly, 8.0)
    assert "less clear than before" in names(before, after)
    assert "less clear than before" not in names(before, after, shares=told(histogram(mostly, 4)))


def test_a_method_that_trains_nothing_is_not_blamed_for_changing_nothing():
    assert names(read(EVEN), read(EVEN), trains=False) == []


def test_translations_that_lose_their_class_are_a_sign() -> None:
    """Three quarters of what the judge reads of real images is the bound."""
    assert class_not_kept({"taught_consistency": 0.73, "taught_agreement": 0.96}) is None
    sign = class_not_kept({"taught_consistency": 0.71, "taught_agreement": 0.96})
    assert sign is not None
    assert "71% are read as their class, of real target images 96%" in str(sign)
    by_labels = {"class_consistency": 0.1, "judge_accuracy": 0.96}
    assert class_not_kept(by_labels) is None, "what target labels tell is no sign"
    by_source = class_not_kept({"class_consistency": 0.08, "untranslated_consistency": 0.73})
    assert "8% are read as their class, of untranslated ones 73%" in str(by_source)


def test_translations_back_that_lose_their_class_are_a_sign() -> None:
    assert class_not_kept_back({"backward": {"given_consistency": 0.69, "judge_accuracy": 0.9}}) is None
    sign = class_not_kept_back({"backward": {"given_consistency": 0.67, "judge_accuracy": 0.9}})
    assert "67% are read as the class that the adapted classifier gives them, of real source images 90%" in str(sign)
    by_labels = {"class_consistency": 0.1, "judge_accuracy": 0.9, "untranslated_consistency": 0.9}
    assert class_not_kept_back({"backward": by_labels}) is None, "what target labels tell is no sign"
    assert class_not_kept_back({}) is None, "older runs did not look back"


def drawn(classes: int, images: int, seed: int) -> torch.Tensor:
    """Shares of the classes in a draw from even ones."""
    return histogram(torch.randint(classes, (images,), generator=torch.Generator().manual_seed(seed)), classes)


@pytest.mark.parametrize(("classes", "images"), [(10, 20), (10, 200), (31, 20), (31, 50), (31, 500)])
def test_a_draw_from_even_classes_is_not_warned_of(classes: int, images: int) -> None:
    even, names = torch.full((classes,), 1 / classes), tuple(map(str, range(classes)))
    warned = [
        bool(
            far_class_shares(even, shares, images)
            or far_from_estimate(even, shares, images)
            or lost_classes(even, shares, images, names)
        )
        for shares in (drawn(classes, images, seed) for seed in range(200))
    ]
    assert sum(warned) <= 4


def test_a_class_that_is_missing_among_many_images_is_lost_and_among_few_may_be_chance() -> None:
    even, without = torch.full((4,), 0.25), torch.tensor([0.4, 0.3, 0.3, 0.0])
    assert lost_classes(even, without, 10, CLASSES) is None, "a class of four is not among ten images in 6 of 100 draws"
    assert lost_classes(even, without, 100, CLASSES) is not None
    assert lost_classes(even, torch.tensor([0.36, 0.3, 0.3, 0.04]), 100, CLASSES) is not None
    assert lost_classes(even, torch.tensor([0.36, 0.3, 0.3, 0.04]), 25, CLASSES) is None


def test_one_class_for_all_of_a_few_images_is_still_far_from_even() -> None:
    assert far_class_shares(torch.full((10,), 0.1), torch.eye(10)[0], 20) is not None


def test_nobody_is_asked_to_look_at_more_images_than_there_are() -> None:
    verdict = Verdict(0.5, (0.2, 0.8), 0.5, (0.2, 0.8), (-0.1, 0.1), True)
    told = [unlike_the_study(verdict, images) for images in (49, 50)]
    assert [sign and sign.advice for sign in told] == ["look at every image (uda check)", "look at fifty images (uda check)"]
    assert to_look_at(1) == "every image"
