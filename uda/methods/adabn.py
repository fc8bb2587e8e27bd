"""AdaBN: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016.

Nothing is trained: batch norm's statistics are replaced by the target's.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.errors import UserError
from uda.methods.base import Method, MethodSettings, Shape, TrainingSettings
from uda.models.backbones import Classifier
from uda.models.layers import convert_domain_batch_norm, domain_norms
from uda.players import Players
from uda.runtime import Runtime


class AdaBNSettings(MethodSettings):
    """AdaBN has none."""

    name: str = "adabn"


class AdaBN(Method):
    """The source classifier with the target's batch statistics; its steps change nothing."""

    Settings = AdaBNSettings
    reads_source = False
    default_training = TrainingSettings(steps=1, evaluate_every=1)

    def __init__(self, settings: AdaBNSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.network = copy.deepcopy(classifier)
        convert_domain_batch_norm(self.network)
        if not domain_norms(self.network):
            raise UserError(
                "adabn exchanges batch norm's statistics, and this network has no batch norm; try --model timm:resnet18"
            )

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        self.update_bn(self.network, self.network, target)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        return self.advance({"total": torch.zeros(())})

    def classifier(self) -> nn.Module:
        return self.network
