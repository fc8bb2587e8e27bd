import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from uda import losses

sizes = st.integers(2, 12)


def test_real_fake_is_binary_cross_entropy() -> None:
    logits = torch.tensor([[-3.0], [0.0], [2.0]])
    p = torch.sigmoid(logits)
    assert losses.real_fake(logits, True) == pytest.approx(-p.log().mean().item(), rel=1e-5)
    assert losses.real_fake(logits, False) == pytest.approx(-(1 - p).log().mean().item(), rel=1e-5)


def test_kl_agrees_with_torch_distributions() -> None:
    mean, log_variance = torch.randn(5, 7), torch.randn(5, 7)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0, 1)).sum(1).mean()
    assert losses.kl_to_standard_normal(mean, log_variance) == pytest.approx(expected.item(), rel=1e-5)


def test_kl_without_log_variance_is_that_of_unit_variance() -> None:
    mean = torch.randn(5, 7)
    unit, explicit = losses.kl_to_standard_normal(mean), losses.kl_to_standard_normal(mean, torch.zeros(5, 7))
    assert unit == pytest.approx(explicit.item(), rel=1e-5)


@pytest.mark.parametrize(("norm", "expected"), [("l1", 3.0), ("l2", 5.0)])
def test_distance_sums_over_entries_and_averages_over_the_batch(norm: losses.Norm, expected: float) -> None:
    a, b = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 2.0]], [[-1.0, 2.0]]])
    assert losses.distance(a, b, norm) == pytest.approx(expected)


@given(rows=sizes, classes=sizes, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_entropies_lie_in_their_range_and_mutual_information_is_not_negative(rows: int, classes: int, seed: int) -> None:
    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 5
    top = math.log(classes) + 1e-5
    assert -1e-5 <= losses.entropy(logits) <= top
    assert -1e-5 <= losses.marginal_entropy(logits) <= top
    assert -top <= losses.information_maximization(logits) <= 1e-5


def test_pseudo_label_counts_only_sure_teachers() -> None:
    student = torch.zeros(2, 10)
    teacher = torch.zeros(2, 10)
    teacher[0, 3] = 50.0  # sure; the other row is not
    assert losses.pseudo_label(student, teacher, 0.8) == pytest.approx(math.log(10) / 2, rel=1e-5)


def test_pseudo_label_sends_no_gradient_to_the_teacher() -> None:
    student, teacher = torch.zeros(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    losses.pseudo_label(student, teacher, 0.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_losses_are_float32_for_bf16_inputs() -> None:
    logits = torch.randn(4, 10, dtype=torch.bfloat16)
    labels = torch.arange(4)
    values = [
        losses.cross_entropy(logits, labels),
        losses.real_fake(logits, True),
        losses.entropy(logits),
        losses.distance(logits, logits, "l1"),
    ]
    assert {value.dtype for value in values} == {torch.float32}


def test_kl_divergence_of_known_distributions() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert losses.kl_divergence(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-5)
    assert losses.kl_divergence(p.log(), p.log()).item() == pytest.approx(0, abs=1e-7)


def test_mmd_tells_distributions_apart_and_not_samples_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(200, 5, generator=generator) + shift for shift in (0, 0, 2))
    same, other = losses.maximum_mean_discrepancy(a, b), losses.maximum_mean_discrepancy(a, c)
    assert 0 <= same < 0.02
    assert other > 10 * same
    assert losses.maximum_mean_discrepancy(a, a).item() == pytest.approx(0, abs=1e-6)


def test_coral_is_the_distance_of_covariances() -> None:
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert losses.coral(a, a + 7).item() == pytest.approx(0, abs=1e-9), "means do not count"
    covariance = 2 / 3  # of each coordinate of a; of 2a four times that
    assert losses.coral(a, 2 * a).item() == pytest.approx(2 * (3 * covariance) ** 2 / 16, rel=1e-5)


def test_class_confusion_is_none_for_sure_predictions_and_most_for_wavering_ones() -> None:
    sure, wavering = torch.eye(4) * 100, torch.zeros(4, 4)
    assert losses.class_confusion(sure, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert losses.class_confusion(wavering, 1.0).item() == pytest.approx(0.75, rel=1e-5)
