"""Mean teacher: French, Mackiewicz, Fisher, "Self-ensembling for visual domain adaptation", ICLR 2018.

The teacher's weights are an average of the student's over the last steps. On target images, which student and teacher see in
different forms,

    total = cross-entropy(source) + weight x mean over images that the teacher is sure of of |p_student - p_teacher|^2
          + balance x share of sure images x cross-entropy of the even distribution and the mean prediction   section 3.3

As in the paper's experiments with a threshold, classes are pushed to be even only as far as the teacher is sure: while it is
not, the surest way to even classes is to be unsure of every image. Not in the paper: where uneven classes are expected of the
target, their shares take the even distribution's place.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.collectives import gather
from uda.data.batches import Batch
from uda.methods.base import Method, TeacherSettings, WithTeacher
from uda.types import UnitInterval


class MeanTeacherSettings(TeacherSettings):
    """The mean teacher's settings."""

    name: str = "mean_teacher"
    consistency_weight: NonNegativeFloat = 10.0
    confidence: UnitInterval = 0.9
    """the teacher counts when its probability is above this (0.968 in the paper)"""
    balance_weight: NonNegativeFloat = 3.0


class MeanTeacher(WithTeacher):
    """A student that follows its own average where that is sure."""

    Settings = MeanTeacherSettings
    settings: MeanTeacherSettings
    default_training = Method.default_training.model_copy(update={"steps": 800})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        teacher = self.teacher_outputs(batch.target_weak)[1].softmax(1)
        _, _, source_logits, target_logits = self.read(batch)
        predicted = target_logits.softmax(1)
        sure = teacher.amax(1) > s.confidence
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        consistency = ((predicted - teacher).square().sum(1) * sure).mean()
        balance = losses.class_balance(target_logits, self.target_shares)
        return {
            "class": class_loss,
            "consistency": consistency,
            "balance": balance,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + s.consistency_weight * consistency + s.balance_weight * gather(sure).float().mean() * balance,
        }
