"""DIRT-T: Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018.

VADA first; then, for the rest of the steps, the source is left behind and the classifier follows its own average in small steps:

    total = target_weight x [ conditional entropy + virtual adversarial loss on the target ]             eq. 8
          + teacher_weight x KL(p_teacher || p) on the target
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods import vada
from uda.models.layers import TARGET
from uda.types import UnitInterval


class Settings(vada.Settings):
    """DIRT-T's settings."""

    name: str = "dirt_t"
    vada_share: UnitInterval = 0.5
    """the share of the steps that VADA takes"""
    teacher_weight: NonNegativeFloat = 1.0
    averaging: UnitInterval = 0.998


class Method(vada.Method):
    """VADA, then refinement on the target alone."""

    settings: Settings

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        if self.done < s.vada_share * self.steps:
            return super().losses(batch)
        logits = self.classify(self.features(batch.target, TARGET))
        _, taught = self.taught(batch.target)
        entropy, smoothness = losses.entropy(logits), self.smoothness(batch.target, logits, TARGET)
        distance = losses.kl_divergence(taught.log_softmax(1), logits.log_softmax(1))
        return {
            "target_entropy": entropy,
            "target_smoothness": smoothness,
            "teacher_distance": distance,
            "total": s.target_weight * (entropy + smoothness) + s.teacher_weight * distance,
        }
