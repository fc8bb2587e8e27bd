"""MIC: Hoyer et al., "MIC: Masked Image Consistency for Context-Enhanced Domain Adaptation", CVPR 2023.

The student reads target images of which patches are hidden, and is to say what the mean teacher says of the complete ones:

    total = cross-entropy(source) + mask_weight x mean of q x cross-entropy(argmax p_teacher)
    q = max p_teacher, how sure the teacher is

Masking is augmentation: ``augment.target.mask`` and ``augment.target.mask_patch`` (0.7 of patches of 64 pixels in the paper). The
paper adds this loss to other methods; here it is alone.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import TeacherSettings, WithTeacher


class MICSettings(TeacherSettings):
    """MIC's settings."""

    name: str = "mic"
    mask_weight: NonNegativeFloat = 1.0


class MIC(WithTeacher):
    """A student that tells from what is shown what is hidden."""

    Settings = MICSettings
    settings: MICSettings
    reads_masked = True

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        sure, label = self.teacher_outputs(batch.target_weak)[1].softmax(1).max(1)
        _, _, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        masked = (sure * F.cross_entropy(target_logits, label, reduction="none")).mean()
        return {
            "class": class_loss,
            "masked_consistency": masked,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.mask_weight * masked,
        }
