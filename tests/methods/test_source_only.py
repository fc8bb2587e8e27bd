"""Supervised training, on the source or on the target: its step by hand."""

from __future__ import annotations

import pytest

from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, log_probabilities, twins
from uda.data.batches import Batch
from uda.methods.source_only import SourceOnly
from uda.methods.target_only import TargetOnly
from uda.runtime import Runtime


@pytest.mark.parametrize("cls", [SourceOnly, TargetOnly])
def test_a_step_by_hand(cls: type[SourceOnly], batch: Batch, fp32: Runtime) -> None:
    """Label smoothing gives every class a part of the label."""
    method, twin = twins(cls, fp32, smoothing=0.3, weight_decay=0.7)
    log_p, count = log_probabilities(twin.network(batch.source)), len(batch.source)
    of_labels = sum(-log_p[row, label] for row, label in enumerate(batch.source_labels)) / count
    loss = 0.7 * of_labels + 0.3 * -log_p.sum() / (count * 10)
    values = method.step(batch)
    descend(adamw(twin.parameters(), twin.settings), loss)
    assert_losses(values, {"class": loss})
    assert_same_update(method, twin)


def test_only_the_upper_bound_reads_target_labels() -> None:
    assert (SourceOnly.reads_target_labels, TargetOnly.reads_target_labels) == (False, True)
