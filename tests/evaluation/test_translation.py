"""The measures of translations."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uda.data.augment import to_float
from uda.data.domain import Pair
from uda.evaluation import translation
from uda.evaluation.evaluator import predict
from uda.evaluation.translation import (
    Translate,
    evaluate_translation,
    frechet_distance,
    judge_by_source,
    judge_without_labels,
    train_judge,
)
from uda.runtime import Runtime


def test_the_distance_of_two_normal_distributions_is_the_known_one() -> None:
    """For diagonal covariances: |m - n|^2 + sum (s - t)^2, of moments that these samples have exactly."""
    base = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    base = base / base.std(0)
    a, b = base * torch.tensor([1.0, 2.0]), base * torch.tensor([3.0, 2.0]) + torch.tensor([5.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(25 + 4, rel=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(3, 40), st.integers(1, 8))
def test_the_distance_is_symmetric_not_negative_and_zero_to_itself(seed: int, count: int, width: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    a, b = torch.randn(count, width, generator=draws), 2 * torch.randn(count + 2, width, generator=draws) + 1
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-6)
    assert frechet_distance(a, b) > 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def learning(patch: pytest.MonkeyPatch, steps: int) -> None:
    """Judges that learn something, as they do outside of tests."""
    for name, value in {"STEPS": steps, "BATCH": 48, "WIDTH": 16}.items():
        patch.setattr(translation, name, value)


@pytest.fixture(scope="module")
def perfect(small_pair: Pair) -> torch.Tensor:
    """For each source test image, a target test image of its class."""
    labels, others = small_pair.source_test.sample_labels(10_000), small_pair.target_test.labels
    return small_pair.target_test.images[[int((others == label).nonzero()[0, 0]) for label in labels]]


def both(forth: torch.Tensor, back: torch.Tensor) -> Translate:
    """Translations that are known beforehand, and perfect reconstructions."""

    def translate(images: torch.Tensor, origin: int, destination: int) -> torch.Tensor:
        if origin == destination:
            return images
        return to_float((forth, back)[origin][: len(images)])

    return translate


def test_translations_of_the_right_class_are_consistent_and_near(
    small_pair: Pair, fp32: Runtime, perfect: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning(monkeypatch, 100)
    known = replace(small_pair, target=small_pair.target_test)  # so few images teach a classifier only themselves
    found = evaluate_translation(known, both(perfect, perfect), fp32)
    wrong = evaluate_translation(known, both(perfect.roll(1, 0), perfect), fp32)
    assert found["class_consistency"] > 0.9 > 0.5 > wrong["class_consistency"]
    assert found["judge_accuracy"] > 0.9
    assert found["feature_distance"] == pytest.approx(wrong["feature_distance"], rel=1e-4), "it knows of no classes"
    real = evaluate_translation(known, both(small_pair.target_test.sample(10_000), perfect), fp32)
    assert real["feature_distance"] == pytest.approx(0, abs=1e-2)
    assert real["untranslated_distance"] > 1
    assert "trained 100 steps" in found["feature_network"]


def test_without_target_labels_there_is_no_class_consistency(small_pair: Pair, fp32: Runtime) -> None:
    pair = replace(small_pair, target=small_pair.target.without_labels(), target_test=None)
    found = evaluate_translation(pair, lambda images, *_: images, fp32)
    distances = {"feature_distance", "untranslated_distance", "feature_network"}
    assert found.keys() == {*distances, "backward", "reconstruction_error"}
    assert found["feature_distance"] == found["untranslated_distance"] > 0
    assert "random weights" in found["feature_network"]
    # The judge of the source knows classes, though the images that it reads have none.
    assert found["backward"].keys() == {*distances, "judge_accuracy"}


def test_without_target_labels_the_adapted_classifiers_own_classes_teach_the_judge(
    small_pair: Pair, fp32: Runtime, perfect: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classifier knows target images by heart; noise, which it may take for digits, is no digit to the judge."""
    learning(monkeypatch, 100)
    known = replace(small_pair, target=small_pair.target_test)
    adapted, _ = train_judge(known.target, known.target, fp32)
    often = known.target.only(torch.arange(len(known.target)).repeat(5))  # so few images teach a network only themselves
    unlabelled = replace(known, target=often.without_labels(), target_test=None)
    kept = judge_without_labels(unlabelled, both(perfect, perfect), adapted, fp32)
    assert kept["taught_agreement"] > 0.9
    assert kept["taught_consistency"] > 0.9
    lost = judge_without_labels(unlabelled, lambda images, *_: torch.rand_like(images) * 2 - 1, adapted, fp32)
    assert lost["taught_agreement"] == kept["taught_agreement"]
    assert lost["taught_consistency"] < 0.4


@pytest.mark.parametrize("images", [2, 7, 40])
def test_images_that_its_agreement_is_told_by_have_not_taught_the_judge(
    images: int, small_pair: Pair, fp32: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def predict(network: torch.nn.Module, given: torch.Tensor, runtime: Runtime) -> torch.Tensor:
        seen.append(given)
        return torch.zeros(len(given), 10)

    learning(monkeypatch, 1)
    monkeypatch.setattr("uda.evaluation.translation.predict", predict)
    target = small_pair.target.only(torch.arange(images)).without_labels()
    judge_without_labels(replace(small_pair, target=target), lambda given, *_: given, torch.nn.Identity(), fp32)
    taught, real = ({image.numpy().tobytes() for image in part} for part in (seen[0], seen[-1]))
    assert len(taught) + len(real) == images
    assert not taught & real


def test_one_target_image_teaches_no_judge(small_pair: Pair, fp32: Runtime) -> None:
    one = replace(small_pair, target=small_pair.target.only(torch.arange(1)))
    assert judge_without_labels(one, lambda images, *_: images, torch.nn.Identity(), fp32) == {}


def test_where_no_label_may_be_read_both_judges_are_random(small_pair: Pair, fp32: Runtime) -> None:
    found = evaluate_translation(small_pair, lambda images, *_: images, fp32, labelled=False)
    for way in (found, found["backward"]):
        assert "random weights" in way["feature_network"]
        assert not {"class_consistency", "judge_accuracy"} & way.keys()


def test_the_way_back_is_measured_by_a_judge_of_source_images(
    small_pair: Pair, fp32: Runtime, perfect: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning(monkeypatch, 100)
    source, labels = small_pair.source_test, small_pair.target_test.sample_labels(10_000)
    of_class = [(source.labels == label).nonzero()[:, 0] for label in range(len(source.classes))]
    right = source.images[[int(of_class[label][number % len(of_class[label])]) for number, label in enumerate(labels)]]
    known = replace(small_pair, source=source)
    found = evaluate_translation(known, both(perfect, right), fp32)["backward"]
    wrong = evaluate_translation(known, both(perfect, right.roll(1, 0)), fp32)["backward"]
    assert found["class_consistency"] > 0.9 > 0.5 > wrong["class_consistency"]
    assert found["judge_accuracy"] > 0.9
    assert found["feature_distance"] < found["untranslated_distance"]
    assert "labelled source images" in found["feature_network"]


def test_the_way_back_is_held_to_the_adapted_classifiers_classes_without_target_labels(
    small_pair: Pair, fp32: Runtime, perfect: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The classifier knows target images by heart, and the judge source images."""
    learning(monkeypatch, 100)
    source, target = small_pair.source_test, small_pair.target_test
    adapted, _ = train_judge(target, target, fp32)
    right = source.images[[int((source.labels == label).nonzero()[0, 0]) for label in target.sample_labels(10_000)]]
    unlabelled = replace(small_pair, source=source, target=target.without_labels(), target_test=None)
    found, wrong = (
        evaluate_translation(unlabelled, both(perfect, back), fp32, classifier=adapted)["backward"]
        for back in (right, right.roll(1, 0))
    )
    assert found["given_consistency"] > 0.8 > 0.5 > wrong["given_consistency"]
    assert "class_consistency" not in found


def test_a_judge_is_trained_until_it_is_good(small_pair: Pair, fp32: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "STEPS", 4)
    assert train_judge(small_pair.source, small_pair.source_test, fp32, rounds=3)[1] == 12
    monkeypatch.setattr(translation, "GOOD", 0.0)
    assert train_judge(small_pair.source, small_pair.source_test, fp32, rounds=3)[1] == 4


def test_reconstructions_are_measured_in_each_domain(small_pair: Pair, fp32: Runtime) -> None:
    """Those of the source are a tenth of a pixel's range too dark, those of the target perfect."""
    found = evaluate_translation(small_pair, lambda images, _, destination: images - 0.2 * (destination == 0), fp32)
    assert found["reconstruction_error"] == pytest.approx({"source": 0.1, "target": 0.0}, abs=1e-6)


def test_the_evaluation_repeats_and_leaves_every_random_state(small_pair: Pair, fp32: Runtime) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, second = (evaluate_translation(small_pair, lambda images, *_: images, fp32) for _ in range(2))
    assert first == second
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_the_evaluation_classifier_learns(small_pair: Pair, fp32: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    learning(monkeypatch, 40)
    network, steps = train_judge(small_pair.target, small_pair.target_test, fp32)
    assert steps == 40
    right = predict(network, small_pair.target.images, fp32).argmax(1) == small_pair.target.labels
    assert right.float().mean() > 0.5


def test_the_source_classifier_judges_translations_both_ways(small_pair: Pair, fp32: Runtime) -> None:
    """The target is the source's negative here, so turning images into their negatives is the translation."""
    source, target = small_pair.source_test, replace(small_pair.source_test, images=255 - small_pair.source_test.images)
    pair = Pair(source, source, target, target)
    judge, _ = train_judge(source, source, fp32)

    def judged(factor: float) -> tuple[dict[str, Any], dict[str, Any]]:
        found = judge_by_source(pair, lambda images, *_: factor * images, judge, lambda images: images, fp32)
        error = (1 - factor) / 2 * float(to_float(source.images).abs().mean())
        assert found["reconstruction_error"] == pytest.approx({"source": error, "target": error}, abs=1e-6)
        return found, found["backward"]

    (good, good_back), (none, none_back) = judged(-1), judged(1)
    assert good_back["class_consistency"] == good["untranslated_consistency"] == none["class_consistency"]
    assert good["class_consistency"] == good_back["untranslated_consistency"] == none_back["class_consistency"]
    for way, untranslated in ((good, none), (good_back, none_back)):
        assert way["feature_distance"] == pytest.approx(0, abs=1e-3)
        assert untranslated["feature_distance"] > 0.1
        assert untranslated["feature_distance"] == pytest.approx(way["untranslated_distance"])


def test_images_without_labels_have_no_class_to_keep(small_pair: Pair, fp32: Runtime) -> None:
    pair = Pair(small_pair.source, small_pair.source_test, small_pair.target.without_labels(), None)
    judge, _ = train_judge(pair.target, pair.target, fp32)
    found = judge_by_source(pair, lambda images, *_: images, judge, lambda images: images, fp32)
    assert "class_consistency" in found
    assert not {"class_consistency", "untranslated_consistency"} & found["backward"].keys()


def test_the_source_classifiers_judgement_repeats_and_leaves_every_random_state(small_pair: Pair, fp32: Runtime) -> None:
    """Of translations that are drawn at random."""
    judge, _ = train_judge(small_pair.target.without_labels(), small_pair.target, fp32)
    before = torch.get_rng_state()

    def judged() -> dict[str, Any]:
        return judge_by_source(small_pair, lambda images, *_: torch.randn_like(images), judge, lambda images: images, fp32)

    assert judged() == judged()
    assert torch.equal(torch.get_rng_state(), before)
