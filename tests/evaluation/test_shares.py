"""Class shares without labels: what they are where they can be known, and when they count as uneven."""

import math

import pytest
import torch
import torch.nn.functional as F

from uda.evaluation.shares import LEAST, OPTIMISM, UNEVEN, Shares, distance, estimate_shares, expectation_maximization

MANY = 10**9  # images: so many that chance does nothing
CLASSES = ("a", "b", "c", "d")


def read(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Logits of a calibrated classifier: classes are Gaussians in the plane's corners, evenly frequent."""
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    points = corners[labels] + torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(seed))
    return points @ corners.T  # log of exp(-|x - c|^2 / 2), up to what is the same for all classes


def drawn(*counts: int) -> torch.Tensor:
    return torch.arange(4).repeat_interleave(torch.tensor(counts))


def test_one_round_by_hand_is_where_two_classes_stay():
    """Two images of one class for sure and one of the other: shares that no further round changes."""
    likely = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert expectation_maximization(likely, torch.tensor([0.9, 0.1])).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_what_is_found_is_as_likely_as_can_be():
    """Of 99 mixtures of two classes it is the one of the highest likelihood (eq. 2.9's aim)."""
    p = torch.tensor([0.9, 0.7, 0.6, 0.2, 0.8])
    likely, before = torch.stack([p, 1 - p], 1), torch.tensor([0.4, 0.6])
    found = float(expectation_maximization(likely, before)[0])

    def log_likelihood(share: float) -> float:
        return sum(math.log(share * a / 0.4 + (1 - share) * (1 - a) / 0.6) for a in p.tolist())

    best = max((number / 100 for number in range(1, 100)), key=log_likelihood)
    assert abs(found - best) < 0.01


@pytest.mark.parametrize("counts", [(800, 800, 400, 0), (1400, 300, 200, 100), (500, 500, 500, 500)])
def test_shares_are_found_where_counting_predictions_does_not_find_them(counts: tuple[int, ...]):
    source, target = drawn(500, 500, 500, 500), drawn(*counts)
    logits = read(target, 1)
    found = estimate_shares(3 * read(source, 0), source, 3 * logits)  # too sure by a factor, which calibration takes away
    true = torch.tensor(counts) / sum(counts)
    counted = F.one_hot(logits.argmax(1), 4).double().mean(0)
    assert distance(found.estimated, true) < 0.05
    if counts[0] != 500:
        assert distance(found.estimated, true) < 0.5 * distance(counted, true)


def test_the_doubt_is_how_often_a_calibrated_classifier_is_wrong():
    source = drawn(500, 500, 500, 500)
    logits = read(source, 0)
    wrong = float((logits.argmax(1) != source).float().mean())
    assert abs(estimate_shares(0.2 * logits, source, 0.2 * logits).doubt - wrong) < 0.03


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
    least = LEAST / 4
    assert expected.tolist() == pytest.approx([value / (0.7 + 2 * least) for value in (0.4, 0.3, least, least)])


def test_it_is_said_what_was_found():
    absent = Shares(torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64), 0.1, MANY)
    said = "50% of the images would have to change their class for even ones"
    assert absent.describe(CLASSES) == f"{said}, more than mistakes and chance explain; hardly any of c, d"
    assert (
        Shares(absent.estimated, 0.6 / OPTIMISM, MANY).describe(CLASSES)
        == f"{said}, and mistakes and chance can make it look so up to 60%"
    )
