"""MIC: its step by hand."""

from __future__ import annotations

import torch

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, twins
from uda.data.batches import Batch
from uda.methods.mic import MIC
from uda.runtime import Runtime


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """The teacher sees complete images, and its largest probability is an image's weight."""
    method, twin = twins(MIC, fp32, mask_weight=1.7)
    logits = twin.network(batch.target)
    q, label = by_hand.log_probabilities(twin.teacher(batch.target_weak)).exp().detach().max(1)
    log_p = by_hand.log_probabilities(logits)
    masked = -sum(q[i] * log_p[i, label[i]] for i in range(len(q))) / len(q)
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    total = class_loss + 1.7 * masked
    descend(adamw(twin.network.parameters(), twin.settings), total)
    follow(twin.teacher, twin.network)
    expected = {"class": class_loss, "masked_consistency": masked, "target_entropy": by_hand.entropy(logits), "total": total}
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
    assert not torch.equal(batch.target, batch.target_weak), "the test must tell the student's images from the teacher's"
