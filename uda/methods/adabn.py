"""AdaBN: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016.

Nothing is trained: batch norm's statistics are replaced by the target's.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.errors import UserError
from uda.methods.base import MethodSettings, update_bn
from uda.models.backbones import Classifier
from uda.models.layers import convert_domain_batch_norm, domain_norms
from uda.runtime import Runtime

READS_SOURCE = False
TRAINING = {"steps": 1, "evaluate_every": 1}


class Settings(MethodSettings):
    """AdaBN has none."""

    name: str = "adabn"


class Method:
    """The source classifier with the target's batch statistics; its steps change nothing."""

    def __init__(
        self, settings: Settings, classifier: Classifier, shape: tuple[int, int, int], steps: int, runtime: Runtime
    ) -> None:
        self.runtime, self.network = runtime, copy.deepcopy(classifier)
        convert_domain_batch_norm(self.network)
        if not domain_norms(self.network):
            raise UserError(
                "adabn exchanges batch norm's statistics, and this network has no batch norm; try --model timm:resnet18"
            )

    def prepare(self, target: Domain) -> None:
        update_bn(self.network, self.network, target, self.runtime)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        return {"total": torch.zeros(())}

    def classifier(self) -> nn.Module:
        return self.network

    def networks(self) -> nn.Module:
        return self.network

    def state_dict(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)
