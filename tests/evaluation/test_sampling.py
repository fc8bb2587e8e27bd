"""Drawing images to look at, and intervals from what was seen."""

from __future__ import annotations

import math

import pytest
import torch

from uda.errors import UserError
from uda.evaluation.sampling import FEWEST, STRATA, Z, accuracy_of, difference_of, doubt, order, stratify


def test_doubt_is_least_where_both_are_sure_of_one_class() -> None:
    before = torch.tensor([[4.0, 0.0], [1.0, 0.0], [0.0, 4.0]])
    after = torch.tensor([[40.0, 0.0], [40.0, 0.0], [40.0, 0.0]])
    agreed, unsure, opposed = doubt(before, after).tolist()
    assert agreed < unsure < opposed


def test_strata_are_of_one_size_and_in_order_of_doubt() -> None:
    doubts = torch.rand(103)
    strata = stratify(doubts)
    assert strata.bincount().max() - strata.bincount().min() <= 1
    highest, lowest = (
        [doubts[strata == n].max() for n in range(STRATA - 1)],
        [doubts[strata == n].min() for n in range(1, STRATA)],
    )
    assert all(high <= low for high, low in zip(highest, lowest, strict=True))


def test_a_larger_sample_begins_with_the_smaller_and_draws_the_doubtful_twice_as_often() -> None:
    strata = stratify(torch.rand(1000))
    drawn = order(strata, 3)
    assert torch.equal(drawn.sort().values, torch.arange(1000))
    counts = strata[drawn[:75]].bincount(minlength=STRATA)
    assert counts.tolist() == [10, 12, 15, 18, 20]
    assert not torch.equal(drawn[:75], order(strata, 4)[:75])


@pytest.mark.parametrize("count", [3, 5, 8, 1003])
def test_the_first_images_are_one_of_each_stratum(count: int) -> None:
    strata = stratify(torch.rand(count))
    assert len(strata[order(strata, 0)[:FEWEST]].unique()) == min(count, STRATA)


def test_every_image_of_a_stratum_is_drawn_alike() -> None:
    strata = stratify(torch.arange(50.0))
    times = torch.zeros(50)
    for seed in range(2000):
        times[order(strata, seed)[:15]] += 1
    for number in range(STRATA):
        share = times[strata == number] / 2000
        assert float((share - share.mean()).abs().max()) < 0.05


def test_without_differences_between_strata_it_is_wilsons_interval() -> None:
    strata = torch.arange(STRATA).repeat_interleave(10)
    right = (torch.arange(50) % 10) < 8
    estimate = accuracy_of(right, strata, torch.arange(50))
    centre, size = 0.8, 50 / (10 / 11) * (10 / 11)
    assert estimate.value == pytest.approx(0.8)
    half = Z / (1 + Z**2 / size) * math.sqrt(centre * 0.2 / size + Z**2 / (4 * size**2))
    middle = (centre + Z**2 / (2 * size)) / (1 + Z**2 / size)
    assert estimate.interval == pytest.approx((middle - half, middle + half), abs=2e-3)


def test_strata_that_tell_right_from_wrong_make_it_narrower() -> None:
    strata = torch.arange(STRATA).repeat_interleave(10)
    apart, mixed = strata < 4, torch.arange(50) % 10 < 8
    low, high = accuracy_of(apart, strata, torch.arange(50)).interval
    wide_low, wide_high = accuracy_of(mixed, strata, torch.arange(50)).interval
    assert high - low < 0.7 * (wide_high - wide_low)


def test_all_right_leaves_room_for_errors_that_were_not_seen() -> None:
    strata = stratify(torch.rand(500))
    low, high = accuracy_of(torch.ones(50, dtype=torch.bool), strata, order(strata, 0)[:50]).interval
    assert (low, high) == (pytest.approx(50 / (50 + Z**2)), 1.0)


def test_the_doubtful_which_are_drawn_more_often_do_not_weigh_more() -> None:
    strata = stratify(torch.arange(1000.0))
    of = order(strata, 0)[:75]
    assert accuracy_of(strata[of] < 4, strata, of).value == pytest.approx(0.8)


def test_a_difference_knows_its_sign_and_its_doubt() -> None:
    strata = stratify(torch.rand(500))
    of = order(strata, 0)[:100]
    better, worse = torch.ones(100, dtype=torch.bool), torch.arange(100) % 4 > 0
    value, (low, high) = difference_of(worse, better, strata, of)
    assert 0.1 < low < value < high < 0.4
    assert difference_of(better, worse, strata, of).interval == pytest.approx((-high, -low))
    same = difference_of(worse, worse, strata, of)
    assert same.value == 0
    assert same.interval[0] < 0 < same.interval[1]


def test_too_few_answers_are_refused() -> None:
    strata = stratify(torch.rand(100))
    with pytest.raises(UserError, match="too few for an interval"):
        accuracy_of(torch.ones(3, dtype=torch.bool), strata, order(strata, 0)[:3])


@pytest.mark.parametrize("wrong", [0.05, 0.4])
def test_intervals_cover(wrong: float) -> None:
    """A population whose wrong images look as sure as its right ones, which is the worst case."""
    generator = torch.Generator().manual_seed(1)
    right = torch.rand(2000, generator=generator) > wrong
    strata, truth = stratify(torch.rand(2000, generator=generator)), float(right.double().mean())
    covered = 0
    for seed in range(300):
        of = order(strata, seed)[:50]
        low, high = accuracy_of(right[of], strata, of).interval
        covered += low <= truth <= high
    assert covered >= 0.85 * 300
