"""FixMatch: Sohn et al., "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence", NeurIPS 2020.

The class that the network gives to a target image as it is, where it is sure, is the label of the same image augmented:

    total = cross-entropy(source) + pseudo_label_weight x mean of [max q > c] x cross-entropy(argmax q)              eq. 3, 4

With two parts of AdaMatch (Berthelot et al., ICLR 2022), made for domains that differ:
    relative threshold       c = confidence x mean over the source batch of its largest probabilities
    distribution alignment   q = normalised p x (mean prediction on the source / mean prediction on the target)

Of AdaMatch there is neither its random interpolation of logits nor its warm-up. Averaged weights classify in the end.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from uda import losses
from uda.collectives import gather
from uda.data.batches import Batch
from uda.methods.base import TeacherSettings, WithTeacher
from uda.models.layers import TARGET
from uda.types import UnitInterval


class FixMatchSettings(TeacherSettings):
    """FixMatch's settings."""

    name: str = "fixmatch"
    pseudo_label_weight: NonNegativeFloat = 1.0
    confidence: UnitInterval = 0.9
    """a pseudo-label counts when its probability is above this; with `relative_threshold`, above this part of the source's"""
    relative_threshold: bool = True
    align: bool = True
    """whether pseudo-labels are to have the source's shares of classes, as `training.class_shares` draws them, or those that are
    expected of the target (`training.target_shares`)"""


class FixMatch(WithTeacher):
    """Augmented target images have the class that they have as they are."""

    Settings = FixMatchSettings
    settings: FixMatchSettings

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        _, _, source_logits, target_logits = self.read(batch)
        with torch.no_grad():
            weak_logits = self.classify(self.features(batch.target_weak, TARGET))
        source = gather(source_logits.detach()).softmax(1)
        threshold = s.confidence * (source.amax(1).mean() if s.relative_threshold else 1.0)
        if s.align:  # in logits a quotient of probabilities is a difference, and softmax normalises
            wanted = log_share(source) if self.target_shares is None else self.target_shares.log()
            weak_logits = weak_logits + wanted - log_share(gather(weak_logits).softmax(1))
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        pseudo_label = losses.pseudo_label(target_logits, weak_logits, threshold)
        return {
            "class": class_loss,
            "pseudo_label": pseudo_label,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + s.pseudo_label_weight * pseudo_label,
        }


def log_share(probabilities: Tensor) -> Tensor:
    """The logarithm of the mean of probabilities (N, K), (K,): each class's share."""
    return probabilities.mean(0).clamp_min(1e-8).log()
