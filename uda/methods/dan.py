"""DAN: Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015.

    total = cross-entropy(source) + weight x [ MMD^2(features) + MMD^2(predictions) ]

with MMD under a sum of Gaussian kernels (section 3); the layers compared are the last feature layer and the class probabilities.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import OneNetwork, OptimizerSettings


class DANSettings(OptimizerSettings):
    """DAN's settings."""

    name: str = "dan"
    discrepancy_weight: NonNegativeFloat = 1.0


class DAN(OneNetwork):
    """Source cross-entropy, and the same distribution of features and predictions in both domains."""

    Settings = DANSettings
    settings: DANSettings

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        source, target, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        discrepancy = losses.maximum_mean_discrepancy(source, target) + losses.maximum_mean_discrepancy(
            source_logits.softmax(1), target_logits.softmax(1)
        )
        return {
            "class": class_loss,
            "discrepancy": discrepancy,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.discrepancy_weight * discrepancy,
        }
