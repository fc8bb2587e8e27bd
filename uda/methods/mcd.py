"""MCD: Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018.

Two heads on one backbone. In each step                                                               section 3.3
    A  backbone and heads:  cross-entropy(source) of both
    B  heads alone:         cross-entropy(source) of both - |p_1 - p_2| on the target: they look for what they can disagree on
    C  backbone alone, `generator_steps` times:  |p_1 - p_2| on the target: it gives them nothing to disagree on
"""

from __future__ import annotations

import copy

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.methods import base
from uda.methods.base import OneNetwork, OptimizerSettings
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET, draw_weights
from uda.types import UnitInterval

TRAINING = base.TRAINING | {"evaluate_every": 50}


class Settings(OptimizerSettings):
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
        return (self.first(features) + self.second(features)) / 2


class Method(OneNetwork):
    """Heads that disagree as much as they can, and a backbone that lets them as little as it can."""

    def build_others(self, classifier: Classifier) -> nn.ModuleDict:
        second = copy.deepcopy(self.network.head)
        draw_weights(second)
        return nn.ModuleDict({"second": second})

    def both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the two heads."""
        with self.runtime.autocast():
            return self.network.head(features).float(), self.others["second"](features).float()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The three steps, A, B and C, under one optimiser: each moves only what is its to move."""
        s = self.settings
        heads = [*self.network.head.parameters(), *self.others.parameters()]
        backbone = list(self.network.backbone.parameters())
        values: dict[str, Tensor] = {}

        def update(total: Tensor, parameters: list[nn.Parameter]) -> None:
            self.optimizer.zero_grad()
            total.backward(inputs=parameters)
            self.optimizer.step()

        def class_loss(features: Tensor) -> Tensor:
            first, second = self.both(features)
            return losses.cross_entropy(first, batch.source_labels) + losses.cross_entropy(second, batch.source_labels)

        def disagreement(features: Tensor) -> Tensor:
            first, second = self.both(features)
            return (first.softmax(1) - second.softmax(1)).abs().mean()

        values["class"] = class_loss(self.features(batch.source, SOURCE))
        update(values["class"], [*backbone, *heads])

        if self.done < s.warm_up * self.steps:
            return self.advance(values)

        with torch.no_grad():
            source, target = self.features(batch.source, SOURCE), self.features(batch.target, TARGET)
        values["head_discrepancy"] = disagreement(target)
        update(class_loss(source) - s.discrepancy_weight * values["head_discrepancy"], heads)

        for _ in range(s.generator_steps):
            values["discrepancy"] = disagreement(self.features(batch.target, TARGET))
            update(s.discrepancy_weight * values["discrepancy"], backbone)
        return self.advance(values)

    def classifier(self) -> nn.Module:
        return Classifier(self.network.backbone, TwoHeads(self.network.head, self.others["second"]))
