"""SHOT: Liang, Hu, Feng, "Do We Really Need to Access the Source Data?", ICML 2020.

The head stays as the source left it; the rest learns from target images alone:

    total = information_weight x ( mean entropy - entropy of the mean )                                   eq. 3, L_IM
          + pseudo_label_weight x cross-entropy of the nearest centroid's class                           eq. 4 to 6

Centroids are the means of target features weighted by their predictions, then, once more, of the features nearest to each
(eq. 4, 5); nearest by cosine. They are made anew every `refresh` steps, from a sample of the target. Not in the paper: images are
augmented, pseudo-labels come from weights averaged over the last steps and from unaugmented images, and those wait that this
teacher is not sure of, or gives another class than their centroid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from uda import losses
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.base import Shape, TeacherSettings, TrainingSettings, WithTeacher
from uda.models.backbones import Classifier
from uda.models.layers import TARGET
from uda.players import Players
from uda.runtime import Runtime
from uda.types import UnitInterval


class SHOTSettings(TeacherSettings):
    """SHOT's settings."""

    name: str = "shot"
    information_weight: NonNegativeFloat = 1.0
    pseudo_label_weight: NonNegativeFloat = 1.0
    confidence: UnitInterval = 0.8
    """a pseudo-label counts when the teacher gives it at least this probability"""
    refresh: PositiveInt = 100
    """steps between two makings of the centroids"""
    freeze_head: bool = True


class SHOT(WithTeacher):
    """Sure, even predictions on the target, and agreement with the clusters that they form."""

    Settings = SHOTSettings
    settings: SHOTSettings
    reads_source = False
    default_training = TrainingSettings(steps=1000, batch=256, target_batch=256, evaluate_every=100)

    def __init__(self, settings: SHOTSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.network.head.requires_grad_(not settings.freeze_head)
        self.centroids: Tensor
        self.register_buffer("centroids", torch.zeros(classifier.classes, classifier.backbone.feature_dim))

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        self.sample = target.sample()
        self.centroids = self.make_centroids()

    @torch.no_grad()
    def make_centroids(self) -> Tensor:
        """(K, D), of length 1: two rounds of weighted k-means on the sample, by the teacher."""
        parts = [self.teacher_outputs(self.runtime.arrange(to_float(part))) for part in self.sample.split(500)]
        features = torch.cat([features.float() for features, _ in parts])
        weights = torch.cat([logits for _, logits in parts]).softmax(1)
        features = F.normalize(features, dim=1)
        for _ in range(2):
            centroids = F.normalize(weights.T @ features / weights.sum(0)[:, None].clamp_min(1e-8), dim=1)
            weights = F.one_hot((features @ centroids.T).argmax(1), len(centroids)).float()
        return centroids

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        if self.done and self.done % s.refresh == 0:
            self.centroids = self.make_centroids()
        features, teacher_logits = self.teacher_outputs(batch.target_weak)
        label = (F.normalize(features.float(), dim=1) @ self.centroids.T).argmax(1)
        sure = teacher_logits.softmax(1).gather(1, label[:, None]).squeeze(1) > s.confidence
        logits = self.classify(self.features(batch.target, TARGET))
        information = losses.information_maximization(logits, self.target_shares)
        pseudo_label = (F.cross_entropy(logits, label, reduction="none") * sure).mean()
        return {
            "target_entropy": losses.entropy(logits),
            "target_marginal_entropy": losses.marginal_entropy(logits, self.target_shares),
            "pseudo_label": pseudo_label,
            "total": s.information_weight * information + s.pseudo_label_weight * pseudo_label,
        }
