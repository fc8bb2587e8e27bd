"""MCC: its step by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, twins
from uda.data.batches import Batch
from uda.methods.mcc import MCC
from uda.runtime import Runtime


def confusion_of_classes(logits: Tensor) -> Tensor:
    """Of each class, the share of its predictions that goes to others: a mean over the classes."""
    count, classes = logits.shape
    p = by_hand.log_probabilities(logits).exp()
    certainty = (1 + torch.exp(-by_hand.entropies(logits))).detach()
    weight = count * certainty / certainty.sum()
    confusion = torch.stack([torch.stack([(weight * p[:, j] * p[:, k]).sum() for k in range(classes)]) for j in range(classes)])
    return sum(1 - confusion[j, j] / confusion[j].sum() for j in range(classes)) / classes


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    method, twin = twins(MCC, fp32, confusion_weight=1.7, temperature=0.6)
    target_logits = twin.network(batch.target)
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    confusion = confusion_of_classes(target_logits / 0.6)
    total = class_loss + 1.7 * confusion
    descend(adamw(twin.parameters(), twin.settings), total)
    expected = {"class": class_loss, "confusion": confusion, "target_entropy": by_hand.entropy(target_logits), "total": total}
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
