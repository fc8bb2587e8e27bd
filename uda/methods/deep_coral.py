"""Deep CORAL: Sun and Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation", ECCV workshops 2016.

total = cross-entropy(source) + weight x |C_s - C_t|^2_F / (4 d^2),  C: covariance of d features                   eq. 1 and 6
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import OneNetwork, OptimizerSettings


class DeepCORALSettings(OptimizerSettings):
    """Deep CORAL's settings."""

    name: str = "deep_coral"
    coral_weight: NonNegativeFloat = 100.0


class DeepCORAL(OneNetwork):
    """Source cross-entropy, and the same covariance of features in both domains."""

    Settings = DeepCORALSettings
    settings: DeepCORALSettings
    least_batch = 2

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        source, target, source_logits, target_logits = self.read(batch)
        class_loss, coral = losses.cross_entropy(source_logits, batch.source_labels), losses.coral(source, target)
        return {
            "class": class_loss,
            "coral": coral,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.coral_weight * coral,
        }
