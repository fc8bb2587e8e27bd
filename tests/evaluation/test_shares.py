"""Class shares without labels: what they are where they can be known, and when they count as uneven."""

import pytest
import torch
import torch.nn.functional as F

from uda.evaluation.outputs import Outputs
from uda.evaluation.shares import BELIEF, LEAST, OPTIMISM, UNEVEN, Shares, distance, estimate_shares, histogram
from uda.neighbours import NEAREST

ENOUGH = 4 * NEAREST  # target images of four classes
MANY = 10**9  # images: so many that chance does nothing
CLASSES = ("a", "b", "c", "d")


def heaps(counts: tuple[int, ...], mistaken: float) -> Outputs:
    """Target images of four classes in four heaps, of which a share of the first is taken for the second; even source images."""
    generator = torch.Generator().manual_seed(0)
    labels, of_source = (torch.arange(4).repeat_interleave(torch.tensor(many)) for many in (counts, (100,) * 4))
    places = [6.0 * F.one_hot(of, 4) + torch.randn(len(of), 4, generator=generator) for of in (labels, of_source)]
    taken = torch.where((labels == 0) & (torch.rand(len(labels), generator=generator) < mistaken), 1, labels)
    logits = [5.0 * F.one_hot(predicted, 4) for predicted in (taken, of_source)]
    return Outputs(places[0], logits[0], places[1], logits[1], of_source)


@pytest.mark.parametrize("counts", [(400, 200, 200, 0), (360, 120, 40, 10), (200, 200, 200, 200)])
def test_shares_are_found_where_counting_predictions_does_not_find_them(counts: tuple[int, ...]) -> None:
    outputs = heaps(counts, mistaken=0.3)
    true, counted = torch.tensor(counts) / sum(counts), histogram(outputs.target_logits.argmax(1), 4)
    assert distance(counted, true) > 0.25 * counts[0] / sum(counts)
    assert distance(estimate_shares(outputs).estimated, true) < 0.01


def test_the_doubt_is_how_often_a_calibrated_classifier_is_wrong() -> None:
    labels = torch.arange(4).repeat_interleave(500)
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    points = corners[labels] + torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0))
    logits = points @ corners.T  # log of exp(-|x - c|^2 / 2), up to what is the same for all classes
    wrong = float((logits.argmax(1) != labels).float().mean())
    found = estimate_shares(Outputs(points, 0.2 * logits, points, 0.2 * logits, labels))
    assert abs(found.doubt - wrong) < 0.03


def test_another_witness_may_doubt_more() -> None:
    assert estimate_shares(heaps((50, 50, 50, 50), mistaken=0.0), doubt=0.4).doubt == 0.4


@pytest.mark.parametrize("images", [1, 20, ENOUGH - 1])
def test_of_few_images_the_classifiers_word_is_taken_for_each(images: int) -> None:
    assert estimate_shares(some(images)).estimated.tolist() == histogram(some(images).target_logits.argmax(1), 4).tolist()


def test_of_more_it_spreads() -> None:
    assert estimate_shares(some(ENOUGH)).estimated.tolist() != histogram(some(ENOUGH).target_logits.argmax(1), 4).tolist()


def some(images: int) -> Outputs:
    """So many of four heaps' target images, three in ten of one heap taken for another's."""
    return heaps((60, 60, 60, 60), mistaken=0.3).of(torch.randperm(240, generator=torch.Generator().manual_seed(1)) < images)


def test_uneven_is_what_mistakes_cannot_explain():
    shares = torch.tensor([0.45, 0.25, 0.25, 0.05], dtype=torch.float64)
    assert Shares(shares, 0.0, MANY).unevenness == pytest.approx(0.2)
    assert Shares(shares, 0.19 / OPTIMISM, MANY).uneven
    assert not Shares(shares, 0.21 / OPTIMISM, MANY).uneven
    nearly = torch.tensor([0.25 + UNEVEN - 0.01, 0.25, 0.25, 0.25 - UNEVEN + 0.01], dtype=torch.float64)
    assert not Shares(nearly, 0.0, MANY).uneven


@pytest.mark.parametrize("images", [10, 100])
def test_a_draw_from_even_classes_is_as_far_off_as_is_allowed_for(images: int):
    draws = torch.randint(4, (2000, images), generator=torch.Generator().manual_seed(0))
    counted = F.one_hot(draws, 4).double().mean(1)
    off = (counted - 0.25).abs().sum(1).mean() / 2
    assert Shares(counted[0], 0.2, images).explained - 0.2 * OPTIMISM == pytest.approx(float(off), rel=0.2)


def test_what_is_expected_lies_between_the_estimate_and_even_shares_and_grants_every_class_a_little():
    expected = Shares(torch.tensor([0.64, 0.36, 0.0, 0.0], dtype=torch.float64), 0.0, MANY).expected
    shares = [share**BELIEF * 0.25 ** (1 - BELIEF) for share in (0.64, 0.36)] + [LEAST / 4] * 2
    assert expected.tolist() == pytest.approx([share / sum(shares) for share in shares])


def test_it_is_said_what_was_found():
    absent = Shares(torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64), 0.1, MANY)
    said = "50% of the images would have to change their class for even ones"
    assert absent.describe(CLASSES) == f"{said}, more than mistakes and chance explain; hardly any of c, d"
    assert (
        Shares(absent.estimated, 0.6 / OPTIMISM, MANY).describe(CLASSES)
        == f"{said}, and mistakes and chance can make it look so up to 60%"
    )
