"""Supervised contrast across domains: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, by
pytorch-metric-learning's loss.

Source images with their labels and target images with the pseudo-labels that an averaged teacher is sure of are one set; in it,
features of one class attract each other whatever their domain, and features of others repel. Pseudo-labels alone can lose a
class: the entropy of the target's mean prediction keeps all of them (as in Shi and Sha 2012).

    total = cross-entropy(source) + contrast_weight x contrast(source and sure target)
          + pseudo_label_weight x cross-entropy(sure target)
          - balance_weight x entropy(mean prediction of the target)
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from uda import losses
from uda.collectives import gather
from uda.data.batches import Batch
from uda.methods.base import Shape, TeacherSettings, WithTeacher
from uda.models.backbones import Classifier
from uda.runtime import Runtime
from uda.types import UnitInterval


class SupConSettings(TeacherSettings):
    """The method's settings."""

    name: str = "supcon"
    contrast_weight: NonNegativeFloat = 0.5
    pseudo_label_weight: NonNegativeFloat = 1.0
    balance_weight: NonNegativeFloat = 0.5
    temperature: PositiveFloat = 0.1
    confidence: UnitInterval = 0.9
    """the teacher's class counts when its probability is above this"""


class SupCon(WithTeacher):
    """Features of one class close together, in both domains at once."""

    Settings = SupConSettings
    settings: SupConSettings

    def __init__(self, settings: SupConSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        from pytorch_metric_learning.losses import SupConLoss  # takes a second to import

        self.contrast = SupConLoss(settings.temperature)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s, (_, teacher_logits) = self.settings, self.teacher_outputs(batch.target_weak)
        sure, label = teacher_logits.softmax(1).max(1)
        chosen = sure > s.confidence
        source, target, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        pseudo_label = losses.pseudo_label(target_logits, teacher_logits, s.confidence)
        contrast = self.contrast(
            torch.cat([gather(source), gather(target)[gather(chosen)]]).float(),
            torch.cat([gather(batch.source_labels), gather(label)[gather(chosen)]]),
        )
        marginal_entropy = losses.marginal_entropy(target_logits, self.target_shares)
        return {
            "class": class_loss,
            "contrast": contrast,
            "pseudo_label": pseudo_label,
            "target_entropy": losses.entropy(target_logits),
            "target_marginal_entropy": marginal_entropy,
            "total": class_loss
            + s.contrast_weight * contrast
            + s.pseudo_label_weight * pseudo_label
            - s.balance_weight * marginal_entropy,
        }
