"""FixMatch: its step by hand."""

from __future__ import annotations

import pytest
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, twins
from uda.data.batches import Batch
from uda.methods.fixmatch import FixMatch
from uda.runtime import Runtime


@pytest.mark.parametrize(
    ("relative", "align", "confidence", "shares"),
    [
        (False, False, 0.168, None), (True, False, 0.97, None), (False, True, 0.145, None), (True, True, 0.96, None),
        (False, True, 0.33, by_hand.SHARES),
    ],
    ids=["fixmatch", "relative threshold", "alignment", "both", "alignment to expected shares"],
)  # fmt: skip
def test_a_step_by_hand(
    relative: bool, align: bool, confidence: float, shares: Tensor | None, batch: Batch, fp32: Runtime
) -> None:
    """The label is of the image as it is, by the weights that learn; the loss is on the augmented one."""
    settings = {"confidence": confidence, "relative_threshold": relative, "align": align}
    method, twin = twins(FixMatch, fp32, pseudo_label_weight=1.7, **settings)
    method.target_shares = shares
    source_logits, logits = twin.network(batch.source), twin.network(batch.target)
    p_source, q = (by_hand.log_probabilities(twin.network(x)).exp().detach() for x in (batch.source, batch.target_weak))
    if align:
        q = q * (p_source.mean(0) if shares is None else shares) / q.mean(0)
        q = q / q.sum(1, keepdim=True)
    threshold = confidence * p_source.max(1).values.mean() if relative else confidence
    pseudo_label = by_hand.sure_cross_entropy(logits, q.log(), float(threshold))
    class_loss = by_hand.cross_entropy(source_logits, batch.source_labels)
    total = class_loss + 1.7 * pseudo_label
    descend(adamw(twin.network.parameters(), twin.settings), total)
    follow(twin.teacher, twin.network)
    expected = {"class": class_loss, "pseudo_label": pseudo_label, "target_entropy": by_hand.entropy(logits), "total": total}
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)


def test_the_averaged_weights_classify_in_the_end(fp32: Runtime) -> None:
    method, _ = twins(FixMatch, fp32)
    assert method.classifier() is method.teacher
