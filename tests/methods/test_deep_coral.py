"""Deep CORAL: its step by hand."""

from __future__ import annotations

from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, twins
from uda.data.batches import Batch
from uda.methods.deep_coral import DeepCORAL
from uda.runtime import Runtime


def covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    method, twin = twins(DeepCORAL, fp32, coral_weight=130.0)
    features, target_features = twin.network.backbone(batch.source), twin.network.backbone(batch.target)
    target_logits = twin.network.head(target_features)
    class_loss = by_hand.cross_entropy(twin.network.head(features), batch.source_labels)
    coral = ((covariance(features) - covariance(target_features)) ** 2).sum() / (4 * features.shape[1] ** 2)
    total = class_loss + 130 * coral
    descend(adamw(twin.parameters(), twin.settings), total)
    expected = {"class": class_loss, "coral": coral, "target_entropy": by_hand.entropy(target_logits), "total": total}
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
