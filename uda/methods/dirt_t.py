"""DIRT-T: Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018.

VADA first; then, for the rest of the steps, the source is left behind and the classifier follows its own average in small steps:

    total = target_weight x [ conditional entropy + virtual adversarial loss on the target ]             eq. 8
          + teacher_weight x KL(p_teacher || p) on the target
"""

from __future__ import annotations

from pydantic import AliasChoices, Field, NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import Method
from uda.methods.vada import VADA, VADASettings
from uda.models.layers import TARGET
from uda.types import UnitInterval


class DIRTTSettings(VADASettings):
    """DIRT-T's settings."""

    name: str = "dirt_t"
    vada_share: UnitInterval = 0.5
    """the share of the steps that VADA takes"""
    teacher_weight: NonNegativeFloat = 1.0
    ema_decay: UnitInterval = Field(default=0.998, validation_alias=AliasChoices("ema_decay", "averaging"))


class DIRTT(VADA):
    """VADA, then refinement on the target alone."""

    Settings = DIRTTSettings
    settings: DIRTTSettings
    default_training = Method.default_training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        if self.done < s.vada_share * self.steps:
            return super().losses(batch)
        logits = self.classify(self.features(batch.target, TARGET))
        _, teacher_logits = self.teacher_outputs(batch.target)
        entropy, smoothness = losses.entropy(logits), self.smoothness(batch.target, logits, TARGET)
        distance = losses.kl_divergence(teacher_logits.log_softmax(1), logits.log_softmax(1))
        return {
            "target_entropy": entropy,
            "target_smoothness": smoothness,
            "teacher_distance": distance,
            "total": s.target_weight * (entropy + smoothness) + s.teacher_weight * distance,
        }
