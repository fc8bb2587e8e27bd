"""Information maximisation: Krause et al., "Discriminative Clustering by Regularized Information Maximization", NeurIPS 2010.

For domain adaptation: Shi and Sha, ICML 2012. Beside the labelled source, sure predictions on the target that use all classes:

    total = cross-entropy(source) + information_weight x ( mean entropy - entropy of the mean )    Liang et al. 2020, eq. 3
          - attraction_weight x sum over the nearest target images of p . p_j                              Yang et al. 2022

The second line is left out unless it is asked for: predictions like those of the nearest neighbours, as in AaD.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.base import OneNetwork, OptimizerSettings, Shape
from uda.methods.neighbours import NeighbourBank, inputs_of
from uda.models.backbones import Classifier
from uda.players import Players
from uda.runtime import Runtime


class InformationMaximizationSettings(OptimizerSettings):
    """The method's settings."""

    name: str = "im"
    information_weight: NonNegativeFloat = 0.5
    attraction_weight: NonNegativeFloat = 0.0
    """0: no bank of the target's features is kept"""
    neighbours: PositiveInt = 3
    """how many attract"""


class InformationMaximization(OneNetwork):
    """Source cross-entropy, and sure predictions on the target that use all classes."""

    Settings = InformationMaximizationSettings
    settings: InformationMaximizationSettings

    def __init__(
        self, settings: InformationMaximizationSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime
    ) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.bank = NeighbourBank(classifier.backbone.feature_dim, classifier.classes)

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        if self.settings.attraction_weight:
            self.bank.fill(self.outputs(inputs_of(target)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        _, target, source_logits, target_logits = self.read(batch)
        values = {
            "class": losses.cross_entropy(source_logits, batch.source_labels),
            "target_entropy": losses.entropy(target_logits),
            "target_marginal_entropy": losses.marginal_entropy(target_logits, self.target_shares),
        }
        total = values["class"] + s.information_weight * losses.information_maximization(target_logits, self.target_shares)
        if s.attraction_weight:
            self.bank.update(batch.target_positions, target, target_logits)
            values["attraction"] = losses.attraction(target_logits, self.bank.nearest(batch.target_positions, s.neighbours))
            total = total + s.attraction_weight * values["attraction"]
        return {**values, "total": total}
