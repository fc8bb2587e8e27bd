"""Estimates of accuracy: right where their assumption holds, and within 0..1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uda.evaluation.estimation import (
    ESTIMATES,
    agreement,
    average_thresholded_confidence,
    difference_of_confidences,
    mean_confidence,
)


def draw(count: int, sure: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax: a perfectly calibrated classifier."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator) * sure
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def right(logits, labels) -> float:
    return float((logits.argmax(1) == labels).float().mean())


@pytest.mark.parametrize("name", ESTIMATES)
def test_close_where_source_and_target_are_alike(name):
    source, target = draw(4000, 3.0, 0), draw(4000, 3.0, 1)
    assert ESTIMATES[name](*source, target[0]) == pytest.approx(right(*target), abs=0.03)


@pytest.mark.parametrize("estimate", [difference_of_confidences, mean_confidence])
def test_a_calibrated_classifier_is_followed_to_a_harder_target(estimate):
    source, target = draw(4000, 4.0, 0), draw(4000, 1.5, 1)
    assert estimate(*source, target[0]) == pytest.approx(right(*target), abs=0.03)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.integers(0, 20))
def test_shares(sure, elsewhere, seed):
    source, target = draw(60, sure, seed), draw(60, elsewhere, seed + 1)
    for estimate in ESTIMATES.values():
        assert 0 <= estimate(*source, target[0]) <= 1


def test_nothing_wrong_on_the_source_means_nothing_wrong():
    logits = torch.eye(3) * 9
    assert average_thresholded_confidence(logits, torch.arange(3), torch.randn(10, 3)) == 1


def test_agreement_of_a_classifier_with_itself_and_with_another():
    logits = torch.eye(4)
    assert agreement(logits, logits) == 1
    assert agreement(logits, logits.roll(1, 0)) == 0
