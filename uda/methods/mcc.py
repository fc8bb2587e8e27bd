"""MCC: Jin et al., "Minimum Class Confusion for Versatile Domain Adaptation", ECCV 2020.

total = cross-entropy(source) + weight x mean off-diagonal of the class confusion of target predictions             eq. 7
"""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import OneNetwork, OptimizerSettings


class MCCSettings(OptimizerSettings):
    """MCC's settings."""

    name: str = "mcc"
    confusion_weight: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 2.5


class MCC(OneNetwork):
    """Source cross-entropy, and target predictions that do not waver between classes."""

    Settings = MCCSettings
    settings: MCCSettings

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        _, _, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        confusion = losses.class_confusion(target_logits, self.settings.temperature)
        return {
            "class": class_loss,
            "confusion": confusion,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.confusion_weight * confusion,
        }
