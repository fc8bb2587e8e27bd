"""DAN: its step by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, twins
from uda.data.batches import Batch
from uda.methods.dan import DAN
from uda.runtime import Runtime


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """E k(a, a') + E k(b, b') - 2 E k(a, b), k a mean of five Gaussians about the mean squared distance of two images."""

    def squared(x: Tensor, y: Tensor) -> Tensor:
        return ((x[:, None] - y[None]) ** 2).sum(2)

    both = torch.cat([a, b])
    width = squared(both, both).sum().detach() / (len(both) * (len(both) - 1))

    def k(x: Tensor, y: Tensor) -> Tensor:
        return sum(torch.exp(-squared(x, y) / (width * factor)).mean() for factor in (0.25, 0.5, 1, 2, 4)) / 5

    return k(a, a) + k(b, b) - 2 * k(a, b)


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    method, twin = twins(DAN, fp32, discrepancy_weight=2.3)
    features, target_features = twin.network.backbone(batch.source), twin.network.backbone(batch.target)
    logits, target_logits = twin.network.head(features), twin.network.head(target_features)
    p, target_p = (by_hand.log_probabilities(each).exp() for each in (logits, target_logits))
    class_loss = by_hand.cross_entropy(logits, batch.source_labels)
    discrepancy = squared_mmd(features, target_features) + squared_mmd(p, target_p)
    total = class_loss + 2.3 * discrepancy
    descend(adamw(twin.parameters(), twin.settings), total)
    expected = {
        "class": class_loss, "discrepancy": discrepancy, "target_entropy": by_hand.entropy(target_logits), "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
