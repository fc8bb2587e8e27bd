"""Information maximisation: its step by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, twins
from uda.data.batches import Batch
from uda.methods.im import InformationMaximization
from uda.runtime import Runtime


@pytest.mark.parametrize("shares", [None, by_hand.SHARES], ids=["even", "uneven"])
def test_a_step_by_hand(shares: Tensor | None, batch: Batch, fp32: Runtime) -> None:
    method, twin = twins(InformationMaximization, fp32, information_weight=0.7)
    method.target_shares = shares
    logits = twin.network(batch.target)
    entropy, marginal_entropy = by_hand.entropy(logits), by_hand.marginal_entropy(logits, shares)
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    total = class_loss + 0.7 * (entropy - marginal_entropy)
    descend(adamw(twin.parameters(), twin.settings), total)
    expected = {
        "class": class_loss, "target_entropy": entropy, "target_marginal_entropy": marginal_entropy, "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
    assert len(method.bank.features) == 0, "it keeps no features that it does not use"


def test_a_step_that_attracts_by_hand(batch: Batch, fp32: Runtime) -> None:
    method, twin = twins(InformationMaximization, fp32, information_weight=0.7, attraction_weight=1.3, neighbours=2)
    features = twin.network.backbone(batch.target)
    logits = twin.network.head(features)
    entropy, marginal_entropy = by_hand.entropy(logits), by_hand.marginal_entropy(logits)
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    p = by_hand.log_probabilities(logits).exp()
    twin.bank.update(batch.target_positions, features, logits)
    near = twin.bank.nearest(batch.target_positions, 2)
    attraction = -sum(p[i] @ near[i, j] for i in range(len(p)) for j in range(2)) / len(p)
    total = class_loss + 0.7 * (entropy - marginal_entropy) + 1.3 * attraction
    descend(adamw(twin.parameters(), twin.settings), total)
    expected = {
        "class": class_loss, "target_entropy": entropy, "target_marginal_entropy": marginal_entropy,
        "attraction": attraction, "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
    assert torch.allclose(method.bank.features, twin.bank.features, atol=1e-6)
