"""SHOT: its step and its centroids by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.conftest import domain, small_classifier
from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, made, twins, weights
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.shot import SHOT
from uda.runtime import Runtime

CONFIDENCE = 0.12


def unit(rows: Tensor) -> Tensor:
    return rows / (rows**2).sum(1, keepdim=True).sqrt()


@torch.no_grad()
def centroids_of(method: SHOT, images: Tensor) -> Tensor:
    """Means of features, by prediction; then of those that are nearest to each (eq. 4, 5)."""
    features = unit(method.teacher.backbone(images))
    belongs = by_hand.log_probabilities(method.teacher(images)).exp()
    for _ in range(2):
        means = [sum(w * f for w, f in zip(share, features, strict=True)) / max(share.sum(), 1e-8) for share in belongs.T]
        centroids = torch.stack([mean / max(mean.norm(), 1e-12) for mean in means])
        nearest = [int(torch.stack([f @ c for c in centroids]).argmax()) for f in features]
        belongs = torch.eye(10)[nearest]
    return centroids


def step_by_hand(method: SHOT, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        cosines = unit(method.teacher.backbone(batch.target_weak)) @ method.centroids.T
        teacher = by_hand.log_probabilities(method.teacher(batch.target_weak)).exp()
    label = cosines.argmax(1)
    sure = teacher[torch.arange(len(label)), label] > CONFIDENCE
    assert 0 < sure.sum() < len(sure), "the test must tell sure from unsure"
    logits = method.network(batch.target)
    entropy, marginal_entropy = by_hand.entropy(logits), by_hand.marginal_entropy(logits, method.target_shares)
    pseudo_label = -by_hand.log_probabilities(logits)[torch.arange(len(label)), label][sure].sum() / len(label)
    total = 0.7 * (entropy - marginal_entropy) + 1.3 * pseudo_label
    descend(adamw(method.network.backbone.parameters(), method.settings), total)
    return {
        "target_entropy": entropy, "target_marginal_entropy": marginal_entropy, "pseudo_label": pseudo_label, "total": total,
    }  # fmt: skip


def make(fp32: Runtime, done: int) -> tuple[SHOT, SHOT]:
    options = {"information_weight": 0.7, "pseudo_label_weight": 1.3, "confidence": CONFIDENCE, "refresh": 2}
    return twins(SHOT, fp32, done=done, **options)


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """Between two makings of the centroids; the head stays."""
    method, twin = make(fp32, done=1)
    method.target_shares = twin.target_shares = by_hand.SHARES
    expected = step_by_hand(twin, batch)
    follow(twin.teacher, twin.network, remembered=2 / 11)
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)


def test_the_step_of_a_refresh_by_hand(batch: Batch, fp32: Runtime) -> None:
    method, twin = make(fp32, done=2)
    twin.centroids = centroids_of(twin, to_float(domain("t", 24, 1).images))
    assert not torch.allclose(twin.centroids, method.centroids, atol=1e-3), "weights have moved since the last"
    expected = step_by_hand(twin, batch)
    follow(twin.teacher, twin.network, remembered=3 / 12)
    assert_losses(method.step(batch), expected)
    assert torch.allclose(method.centroids, twin.centroids, atol=1e-5)
    assert_same_update(method, twin)


def test_it_begins_with_the_source_classifiers_centroids(fp32: Runtime) -> None:
    method = made(SHOT, fp32)
    assert torch.allclose(method.centroids, centroids_of(method, to_float(domain("t", 24, 1).images)), atol=1e-5)


def test_the_head_stays_as_the_source_left_it_unless_it_is_let_go(batch: Batch, fp32: Runtime) -> None:
    before = weights(small_classifier().head)
    for frozen in (True, False):
        method = made(SHOT, fp32, freeze_head=frozen)
        method.step(batch)
        assert torch.equal(weights(method.network.head), before) == frozen
