"""Mean teacher: its step by hand."""

from __future__ import annotations

import pytest
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, twins
from uda.data.batches import Batch
from uda.methods.mean_teacher import MeanTeacher
from uda.runtime import Runtime

CONFIDENCE = 0.168


@pytest.mark.parametrize("shares", [None, by_hand.SHARES], ids=["even", "uneven"])
def test_a_step_by_hand(shares: Tensor | None, batch: Batch, fp32: Runtime) -> None:
    """The student sees augmented images, the teacher the same as they are."""
    weights = {"consistency_weight": 7.0, "balance_weight": 1.3}
    method, twin = twins(MeanTeacher, fp32, confidence=CONFIDENCE, **weights)
    method.target_shares = shares
    logits = twin.network(batch.target)
    p = by_hand.log_probabilities(logits).exp()
    teacher = by_hand.log_probabilities(twin.teacher(batch.target_weak)).exp().detach()
    sure = teacher.max(1).values > CONFIDENCE
    assert 0 < sure.sum() < len(sure)
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    consistency = ((p - teacher) ** 2)[sure].sum() / len(p)
    expected_shares = [0.1] * 10 if shares is None else shares.tolist()
    balance = -sum(share * p[:, k].mean().log() for k, share in enumerate(expected_shares))
    total = class_loss + 7 * consistency + 1.3 * sure.sum() / len(sure) * balance
    descend(adamw(twin.network.parameters(), twin.settings), total)
    follow(twin.teacher, twin.network)
    expected = {
        "class": class_loss, "consistency": consistency, "balance": balance,
        "target_entropy": by_hand.entropy(logits), "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
