"""MCD: Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018.

Two heads on one backbone. In each step                                                               section 3.3
    A  backbone and heads:  cross-entropy(source) of both
    B  heads alone:         cross-entropy(source) of both - |p_1 - p_2| on the target: they look for what they can disagree on
    C  backbone alone, `generator_steps` times:  |p_1 - p_2| on the target: it gives them nothing to disagree on

Not in the paper: the first steps take A alone (`warm_up`), since the first head comes trained and the second does not.
"""

from __future__ import annotations

import copy

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import Method, OneNetwork, OptimizerSettings, Shape
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET, draw_weights
from uda.runtime import Runtime
from uda.types import UnitInterval


class MCDSettings(OptimizerSettings):
    """MCD's settings."""

    name: str = "mcd"
    generator_steps: PositiveInt = 4
    discrepancy_weight: NonNegativeFloat = 1.0
    warm_up: UnitInterval = 0.15
    """the share of the steps that take A alone: until the second head has learned the classes, the first must not follow it"""


class TwoHeads(nn.Module):
    """The mean of two heads' logits: what classifies in the end."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, features: Tensor) -> Tensor:
        total: Tensor = self.first(features) + self.second(features)
        return total / 2


class MCD(OneNetwork):
    """Heads that disagree as much as they can, and a backbone that lets them as little as it can."""

    Settings = MCDSettings
    settings: MCDSettings
    default_training = Method.default_training.model_copy(update={"evaluate_every": 50})

    def __init__(self, settings: MCDSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.second_head = copy.deepcopy(self.network.head)
        draw_weights(self.second_head)

    def both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the two heads."""
        with self.runtime.autocast():
            return self.network.head(features).float(), self.second_head(features).float()

    def class_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of both heads, summed."""
        first, second = self.both(features)
        return losses.cross_entropy(first, labels) + losses.cross_entropy(second, labels)

    def discrepancy(self, features: Tensor) -> Tensor:
        """|p_1 - p_2|, a mean over images and classes."""
        first, second = self.both(features)
        return (first.softmax(1) - second.softmax(1)).abs().mean()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The three steps, A, B and C, under one optimiser: each moves only what is its to move."""
        s = self.settings
        heads = [*self.network.head.parameters(), *self.second_head.parameters()]
        backbone = list(self.network.backbone.parameters())
        values = {"class": self.class_loss(self.features(batch.source, SOURCE), batch.source_labels)}
        self.players.step("network", values["class"])
        if self.done < s.warm_up * self.steps:
            return self.advance(values)

        with torch.no_grad():
            source, target = self.features(batch.source, SOURCE), self.features(batch.target, TARGET)
        values["head_discrepancy"] = self.discrepancy(target)
        total = self.class_loss(source, batch.source_labels) - s.discrepancy_weight * values["head_discrepancy"]
        self.players.step("network", total, only=heads)

        for _ in range(s.generator_steps):
            values["discrepancy"] = self.discrepancy(self.features(batch.target, TARGET))
            self.players.step("network", s.discrepancy_weight * values["discrepancy"], only=backbone)
        return self.advance(values)

    def classifier(self) -> nn.Module:
        return Classifier(self.network.backbone, TwoHeads(self.network.head, self.second_head))
