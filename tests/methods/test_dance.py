"""DANCE: its step by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, twins
from uda.data.batches import Batch
from uda.methods.dance import DANCE
from uda.runtime import Runtime

MARGIN = 1.09


def unit(rows: Tensor) -> Tensor:
    return rows / (rows**2).sum(1, keepdim=True).sqrt()


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """What an image may resemble: all target images but itself, those of the batch as they are now, and the ten classes."""
    method, twin = twins(DANCE, fp32, weight=0.7, temperature=0.3, margin=MARGIN)
    features = twin.network.backbone(batch.target)
    logits = twin.network.head(features)
    classes = unit(twin.network.head.weight)
    clustering = torch.zeros(())
    bank = twin.bank.features.clone()
    bank[batch.target_positions] = unit(features).detach()
    for row, position in enumerate(batch.target_positions.tolist()):
        others = [image for j, image in enumerate(bank) if j != position]
        cosines = torch.stack([unit(features)[row] @ other for other in [*others, *classes]])
        clustering = clustering + by_hand.entropy(cosines[None] / 0.3) / len(features)
    distances = (by_hand.entropies(logits) - math.log(10) / 2).abs()
    assert 0 < (distances > MARGIN).sum() < len(distances), "the test must tell who is left alone"
    separation = -distances[distances > MARGIN].sum() / len(distances)
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    total = class_loss + 0.7 * (clustering + separation)
    descend(adamw(twin.network.parameters(), twin.settings), total)
    expected = {
        "class": class_loss, "neighbourhood_clustering": clustering, "entropy_separation": separation,
        "target_entropy": by_hand.entropy(logits), "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
    assert torch.allclose(method.bank.features[batch.target_positions], unit(features), atol=1e-5)
