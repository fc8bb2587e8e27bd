"""Calibration error and temperature."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from uda.evaluation.calibration import expected_calibration_error, fit_temperature, match_confidence, reliability


def calibrated(count: int = 6000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator) * 2
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def test_a_calibrated_classifier_has_almost_no_error():
    assert expected_calibration_error(*calibrated()) < 0.02


def test_error_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4]]).log()
    # two at 0.8 of which one is right, one at 0.6 that is right
    assert expected_calibration_error(logits, torch.tensor([0, 1, 0])) == pytest.approx((2 * 0.3 + 0.4) / 3)
    assert reliability(logits, torch.tensor([0, 1, 0])) == [(1, pytest.approx(0.6), 1.0), (2, pytest.approx(0.8), 0.5)]


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_undoes_a_scale(scale):
    logits, labels = calibrated()
    assert fit_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.06)


def test_temperature_is_where_the_cross_entropy_is_lowest():
    logits, labels = calibrated(500)
    found = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return float(F.cross_entropy(logits / temperature, labels))

    assert loss(found) < min(loss(found * 1.05), loss(found / 1.05))


def test_a_perfect_classifier_gets_a_finite_temperature():
    assert 0.04 < fit_temperature(torch.eye(3), torch.arange(3)) < 0.06


@given(st.integers(1, 80), st.integers(0, 30))
def test_error_is_a_share_and_every_image_has_a_place(count, seed):
    logits, labels = calibrated(count, seed)
    assert 0 <= expected_calibration_error(logits, labels) <= 1
    assert sum(images for images, _, _ in reliability(logits, labels)) == count


@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_the_right_accuracy_undoes_a_scale_without_labels(scale):
    logits, labels = calibrated()
    accuracy = float((logits.argmax(1) == labels).float().mean())
    assert match_confidence(logits * scale, accuracy) == pytest.approx(scale, rel=0.1)


@given(st.floats(0.25, 0.99))
def test_confidence_is_matched_wherever_it_can_be(accuracy):
    logits, _ = calibrated(300)
    temperature = match_confidence(logits, accuracy)
    assert (
        float((logits / temperature).softmax(1).amax(1).mean()) == pytest.approx(accuracy, abs=0.01)
        or not 1.001 < temperature < 19
    )


def test_nothing_is_made_surer_than_it_was():
    logits, _ = calibrated()
    assert match_confidence(logits * 0.3, 0.99) == pytest.approx(1)
