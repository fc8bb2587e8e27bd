"""Loss functions, each against its formula in NumPy, written out in loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from uda import UserError, losses

sizes = st.integers(2, 6)
seeds = st.integers(0, 1000)


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def softmax(logits: Tensor) -> list[np.ndarray]:
    """The probabilities of each row."""
    return [np.exp(row) / np.exp(row).sum() for row in logits.double().numpy()]


def entropy_of(p: np.ndarray) -> float:
    return -sum(q * math.log(q) for q in p)


def close(value: Tensor, expected: float) -> bool:
    return value.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(rows=sizes, classes=sizes, seed=seeds, smoothing=st.floats(0, 0.9))
@settings(max_examples=20)
def test_cross_entropy_by_hand(rows: int, classes: int, seed: int, smoothing: float) -> None:
    """A smoothed label is the even distribution by `smoothing`, and the label by the rest."""
    logits, labels = draw(seed, rows, classes), torch.arange(rows) % classes
    expected = 0.0
    for p, label in zip(softmax(logits), labels.tolist(), strict=True):
        for k in range(classes):
            expected -= ((1 - smoothing) * (k == label) + smoothing / classes) * math.log(p[k]) / rows
    assert close(losses.cross_entropy(logits, labels, smoothing), expected)


@given(rows=sizes, seed=seeds)
@settings(max_examples=20)
def test_real_fake_by_hand(rows: int, seed: int) -> None:
    logits = draw(seed, rows, 1, scale=3)
    d = [1 / (1 + math.exp(-logit)) for logit in logits[:, 0].tolist()]
    assert close(losses.real_fake(logits, True), sum(-math.log(each) for each in d) / rows)
    assert close(losses.real_fake(logits, False), sum(-math.log(1 - each) for each in d) / rows)


@given(rows=sizes, seed=seeds)
@settings(max_examples=20)
def test_distance_by_hand(rows: int, seed: int) -> None:
    a, b = draw(seed, rows, 2, 3), draw(seed + 1, rows, 2, 3)
    l1 = l2 = 0.0
    for image, row, column in itertools.product(range(rows), range(2), range(3)):
        difference = float(a[image, row, column] - b[image, row, column])
        l1, l2 = l1 + abs(difference) / rows, l2 + difference**2 / rows
    assert close(losses.distance(a, b, "l1"), l1)
    assert close(losses.distance(a, b, "l2"), l2)


@given(rows=sizes, numbers=sizes, seed=seeds)
@settings(max_examples=20)
def test_kl_to_standard_normal_is_that_of_torch_distributions(rows: int, numbers: int, seed: int) -> None:
    mean, log_variance = draw(seed, rows, numbers), draw(seed + 1, rows, numbers)

    def expected(deviation: Tensor) -> float:
        return kl_divergence(Normal(mean, deviation), Normal(0, 1)).sum(1).mean().item()

    assert close(losses.kl_to_standard_normal(mean, log_variance), expected((0.5 * log_variance).exp()))
    assert close(losses.kl_to_standard_normal(mean), expected(torch.ones(rows, numbers)))


@given(rows=sizes, classes=sizes, seed=seeds)
@settings(max_examples=20)
def test_entropies_by_hand(rows: int, classes: int, seed: int) -> None:
    logits = draw(seed, rows, classes, scale=2)
    p = softmax(logits)
    entropy, marginal = sum(entropy_of(row) for row in p) / rows, entropy_of(sum(p) / rows)
    assert close(losses.entropy(logits), entropy)
    assert close(losses.marginal_entropy(logits), marginal)
    assert close(losses.information_maximization(logits), entropy - marginal)


@given(rows=sizes, classes=sizes, seed=seeds)
@settings(max_examples=20)
def test_entropies_beside_expected_shares_by_hand(rows: int, classes: int, seed: int) -> None:
    logits, shares = draw(seed, rows, classes, scale=2), draw(seed + 1, classes, scale=1).softmax(0)
    p = softmax(logits)
    mean = [float(value) for value in sum(p) / rows]
    divergence = sum(p_k * math.log(p_k / q_k) for p_k, q_k in zip(mean, shares.tolist(), strict=True))
    assert close(losses.marginal_entropy(logits, shares), math.log(classes) - divergence)
    entropy = sum(entropy_of(row) for row in p) / rows
    assert close(losses.information_maximization(logits, shares), entropy - math.log(classes) + divergence)
    balance = -sum(q_k * math.log(p_k) for p_k, q_k in zip(mean, shares.tolist(), strict=True))
    assert close(losses.class_balance(logits, shares), balance)
    assert close(losses.class_balance(logits), -sum(math.log(p_k) for p_k in mean) / classes)


@given(rows=sizes, classes=sizes, seed=seeds, confidence=st.floats(0, 1))
@settings(max_examples=20)
def test_pseudo_label_by_hand(rows: int, classes: int, seed: int, confidence: float) -> None:
    student, teacher = draw(seed, rows, classes), draw(seed + 1, rows, classes, scale=2)
    expected = 0.0
    for p, q in zip(softmax(student), softmax(teacher), strict=True):
        if q.max() > confidence:
            expected -= math.log(p[q.argmax()]) / rows
    assert close(losses.pseudo_label(student, teacher, confidence), expected)


@given(rows=sizes, classes=sizes, seed=seeds)
@settings(max_examples=20)
def test_kl_divergence_by_hand(rows: int, classes: int, seed: int) -> None:
    first, second = draw(seed, rows, classes), draw(seed + 1, rows, classes)
    expected = 0.0
    for p, q in zip(softmax(first), softmax(second), strict=True):
        expected += sum(p[k] * math.log(p[k] / q[k]) for k in range(classes)) / rows
    assert close(losses.kl_divergence(first.log_softmax(1), second.log_softmax(1)), expected)


@given(n=sizes, m=sizes, kernels=st.integers(1, 6), seed=seeds)
@settings(max_examples=20)
def test_maximum_mean_discrepancy_by_hand(n: int, m: int, kernels: int, seed: int) -> None:
    a, b = draw(seed, n, 3), draw(seed + 1, m, 3) + 1
    first, second = a.double().numpy(), b.double().numpy()
    everything = [*first, *second]
    pairs = [((x - y) ** 2).sum() for x, y in itertools.permutations(everything, 2)]
    width = sum(pairs) / len(pairs)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        powers = range(-(kernels // 2), kernels - kernels // 2)
        return sum(math.exp(-((x - y) ** 2).sum() / (width * 2.0**power)) for power in powers) / kernels

    def mean(xs: np.ndarray, ys: np.ndarray) -> float:
        return sum(k(x, y) for x in xs for y in ys) / (len(xs) * len(ys))

    expected = mean(first, first) + mean(second, second) - 2 * mean(first, second)
    assert losses.maximum_mean_discrepancy(a, b, kernels).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@given(n=sizes, m=sizes, seed=seeds)
@settings(max_examples=20)
def test_coral_by_hand(n: int, m: int, seed: int) -> None:
    a, b = draw(seed, n, 3), draw(seed + 1, m, 3, scale=2)

    def covariance(x: np.ndarray, j: int, k: int) -> float:
        return sum((row[j] - x[:, j].mean()) * (row[k] - x[:, k].mean()) for row in x) / (len(x) - 1)

    first, second = a.double().numpy(), b.double().numpy()
    expected = 0.0
    for j, k in itertools.product(range(3), range(3)):
        expected += (covariance(first, j, k) - covariance(second, j, k)) ** 2 / (4 * 3**2)
    assert close(losses.coral(a, b), expected)


@given(n=sizes, m=sizes, seed=seeds)
@settings(max_examples=20)
def test_statistics_distance_by_hand(n: int, m: int, seed: int) -> None:
    a, b = draw(seed, n, 3), draw(seed + 1, m, 3, scale=2)
    first, second = a.double().numpy(), b.double().numpy()
    expected = sum(
        (x.mean() - y.mean()) ** 2 + (np.sqrt(x.var() + 1e-6) - np.sqrt(y.var() + 1e-6)) ** 2
        for x, y in zip(first.T, second.T, strict=True)
    )
    assert close(losses.statistics_distance(a, b), expected)


def test_statistics_of_one_image_have_a_gradient() -> None:
    image = torch.ones(1, 3, 2, 2, requires_grad=True)
    losses.statistics_distance(image, torch.zeros(4, 3, 2, 2)).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


@given(rows=sizes, classes=sizes, temperature=st.floats(0.5, 3), seed=seeds)
@settings(max_examples=20)
def test_class_confusion_by_hand(rows: int, classes: int, temperature: float, seed: int) -> None:
    logits = draw(seed, rows, classes, scale=2)
    p = softmax(logits / temperature)
    certainty = [1 + math.exp(-entropy_of(row)) for row in p]
    weight = [rows * each / sum(certainty) for each in certainty]
    expected = 0.0
    for j in range(classes):
        confused = [sum(w * row[j] * row[k] for w, row in zip(weight, p, strict=True)) for k in range(classes)]
        expected += sum(confused[k] for k in range(classes) if k != j) / sum(confused) / classes
    assert close(losses.class_confusion(logits, temperature), expected)


def test_the_weight_of_an_image_in_class_confusion_takes_no_gradient() -> None:
    """Of two images, moving one's logits leaves the other's share as it is: the gradient is that of fixed weights."""
    logits = draw(0, 2, 3).requires_grad_()
    losses.class_confusion(logits, 1.0).backward()
    assert logits.grad is not None
    fixed = logits.detach().requires_grad_()
    p = fixed.softmax(1)
    certainty = (1 + (p * p.log()).sum(1).exp()).detach()
    confusion = (p * (2 * certainty / certainty.sum())[:, None]).T @ p
    (1 - confusion.diagonal() / confusion.sum(1)).mean().backward()
    assert fixed.grad is not None
    assert torch.allclose(logits.grad, fixed.grad, atol=1e-6)


@given(rows=sizes, neighbours=sizes, classes=sizes, seed=seeds)
@settings(max_examples=20)
def test_attraction_by_hand(rows: int, neighbours: int, classes: int, seed: int) -> None:
    logits = draw(seed, rows, classes)
    near = draw(seed + 1, rows, neighbours, classes).softmax(2)
    p = softmax(logits)
    expected = -sum(p[i][k] * near[i, j, k].item() for i, j, k in itertools.product(*map(range, near.shape))) / rows
    assert close(losses.attraction(logits, near), expected)


def test_neighbours_attract_and_are_not_attracted() -> None:
    logits, near = draw(0, 2, 3).requires_grad_(), draw(1, 2, 4, 3).softmax(2).requires_grad_()
    losses.attraction(logits, near).backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert near.grad is None


@given(rows=sizes, classes=sizes, seed=seeds)
@settings(max_examples=20)
def test_dispersion_by_hand(rows: int, classes: int, seed: int) -> None:
    logits = draw(seed, rows, classes)
    p = softmax(logits)
    expected = sum(float(p[i] @ p[m]) for i in range(rows) for m in range(rows) if m != i) / rows
    assert close(losses.dispersion(logits), expected)


@given(rows=sizes, classes=sizes, seed=st.integers(0, 1000))
@settings(max_examples=30)
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


def test_mmd_tells_distributions_apart_and_not_samples_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(200, 5, generator=generator) + shift for shift in (0, 0, 2))
    same, other = losses.maximum_mean_discrepancy(a, b), losses.maximum_mean_discrepancy(a, c)
    assert 0 <= same < 0.02
    assert other > 10 * same
    assert losses.maximum_mean_discrepancy(a, a).item() == pytest.approx(0, abs=1e-6)


def test_class_confusion_is_none_for_sure_predictions_and_most_for_wavering_ones() -> None:
    sure, wavering = torch.eye(4) * 100, torch.zeros(4, 4)
    assert losses.class_confusion(sure, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert losses.class_confusion(wavering, 1.0).item() == pytest.approx(0.75, rel=1e-5)


def test_a_covariance_of_one_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"raise training\.batch"):
        losses.coral(torch.zeros(1, 3), torch.zeros(4, 3))


@given(n=sizes, k=sizes, seed=seeds, margin=st.floats(0, 0.5))
def test_entropy_separation_counts_what_is_far_from_half_of_the_highest(n: int, k: int, seed: int, margin: float) -> None:
    logits = 3 * torch.randn(n, k, generator=torch.Generator().manual_seed(seed))
    total = 0.0
    for row in logits.double().numpy():
        p = np.exp(row) / np.exp(row).sum()
        distance = abs(-(p * np.log(p)).sum() - math.log(k) / 2)
        total += distance if distance > margin else 0.0
    torch.testing.assert_close(float(losses.entropy_separation(logits, margin)), -total / n, atol=1e-5, rtol=0)


def test_a_class_that_no_image_is_given_is_confused_with_none() -> None:
    logits = (torch.eye(4)[:3] * 1e4).requires_grad_()
    value = losses.class_confusion(logits, 1.0)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
