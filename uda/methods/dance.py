"""DANCE: Saito et al., "Universal Domain Adaptation through Self Supervision", NeurIPS 2020. For targets with unknown classes.

The target may hold images of classes that the source does not have. They are to be doubtful, and all others sure:

    total = cross-entropy(source) + weight x [ neighbourhood clustering + entropy separation ]                  eq. 6
    neighbourhood clustering   mean entropy of softmax(f . f_j / temperature) over what an image may resemble: all other target
                               images, and the classes, whose features are the head's weights                   eq. 1 to 3
    entropy separation         mean of -|H(p) - rho|, where that is more than a margin; rho = ln(K) / 2         eq. 4, 5

All features are of length 1. An image whose entropy is above rho is of no known class (`uda.evaluation.unknown`). Not in the
paper: the classifier reads features at their own length, as the source classifier does, and what the batch resembles are the
features of its images as they are now; a head that is not linear stands for no class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.base import Method, OneNetwork, OptimizerSettings, Shape
from uda.methods.neighbours import NeighbourBank, inputs_of
from uda.models.backbones import Classifier
from uda.players import Players
from uda.runtime import Runtime


class DANCESettings(OptimizerSettings):
    """DANCE's settings, as in the paper."""

    name: str = "dance"
    weight: NonNegativeFloat = 0.05
    """of both terms that read the target"""
    temperature: PositiveFloat = 0.05
    margin: NonNegativeFloat = 0.5
    """nats: an image whose entropy is nearer to rho than this is left alone"""


class DANCE(OneNetwork):
    """Target images near to others or to a class, and sure of a known class or of none."""

    Settings = DANCESettings
    settings: DANCESettings
    for_unknown = True
    default_training = Method.default_training.model_copy(update={"batch": 64, "target_batch": 64, "class_shares": "own"})

    def __init__(self, settings: DANCESettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.bank = NeighbourBank(classifier.backbone.feature_dim, classifier.classes)

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        self.bank.fill(self.outputs(inputs_of(target)))

    def resemblance(self, features: Tensor, positions: Tensor) -> Tensor:
        """Cosines of a batch's features (B, D) to all N target images but themselves, and to the K classes: (B, N + K)."""
        features = F.normalize(features.float(), dim=1)
        to_images = features @ self.bank.features.T
        itself = torch.zeros_like(to_images, dtype=torch.bool).scatter(1, positions[:, None], True)
        head = [part for part in self.network.head.modules() if isinstance(part, nn.Linear)]
        classes = F.normalize(head[-1].weight.float(), dim=1) if head else features[:0]
        # Far from itself, at a finite distance: an entropy of what is infinitely far is no number.
        return torch.cat([to_images.masked_fill(itself, -1e3), features @ classes.T], 1)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        _, target, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        self.bank.update(batch.target_positions, target, target_logits)
        clustering = losses.entropy(self.resemblance(target, batch.target_positions) / s.temperature)
        separation = losses.entropy_separation(target_logits, s.margin)
        return {
            "class": class_loss,
            "neighbourhood_clustering": clustering,
            "entropy_separation": separation,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + s.weight * (clustering + separation),
        }
