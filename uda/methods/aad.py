"""AaD: Yang et al., "Attracting and Dispersing: A Simple Approach for Source-free Domain Adaptation", NeurIPS 2022.

An image's prediction p is drawn towards those of its nearest neighbours among all target images, by the cosine of features, and
away from those of the other images of its batch:

    total = - sum over the k nearest of p . p_j  +  lambda x sum over the others of the batch of p . p_m
    lambda = (1 + 10 t / T)^-beta,  t of T steps done

Features and predictions of all target images are kept in a bank, in which those of a batch are put anew at each step.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.base import OneNetwork, OptimizerSettings, Shape, TrainingSettings
from uda.methods.neighbours import NeighbourBank, inputs_of
from uda.models.backbones import Classifier
from uda.models.layers import TARGET
from uda.players import Players
from uda.runtime import Runtime


class AaDSettings(OptimizerSettings):
    """AaD's settings."""

    name: str = "aad"
    neighbours: PositiveInt = 3
    """k: how many attract; more where a class has more images"""
    beta: NonNegativeFloat = 1.0
    """how fast dispersion fades: 0 not at all, 5 within a tenth of the steps; higher where few classes share a batch"""


class AaD(OneNetwork):
    """Predictions like those of the nearest images, and unlike those of the others."""

    Settings = AaDSettings
    settings: AaDSettings
    reads_source = False
    default_training = TrainingSettings(steps=1000, batch=64, target_batch=64, evaluate_every=100)

    def __init__(self, settings: AaDSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.bank = NeighbourBank(classifier.backbone.feature_dim, classifier.classes)

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        self.bank.fill(self.outputs(inputs_of(target)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        features = self.features(batch.target, TARGET)
        logits = self.classify(features)
        self.bank.update(batch.target_positions, features, logits)
        attraction = losses.attraction(logits, self.bank.nearest(batch.target_positions, s.neighbours))
        dispersion = losses.dispersion(logits)
        fading = (1 + 10 * self.done / self.steps) ** -s.beta
        return {
            "attraction": attraction,
            "dispersion": dispersion,
            "target_entropy": losses.entropy(logits),
            "total": attraction + fading * dispersion,
        }
