"""Two players that take turns."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from uda.methods.base import MethodSettings
from uda.players import linear_decay
from uda.runtime import Runtime
from uda.types import UnitInterval


class AdversarySettings(MethodSettings):
    """Adam for both players of an alternating game."""

    averaging: UnitInterval = 0.99
    """decay per step of the averaged weights, which are used in the end; 0: no average"""
    learning_rate: NonNegativeFloat = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    decay_from: UnitInterval = 0.7
    """the share of the steps after which the learning rate falls in a straight line to 0; 1 keeps it constant"""


class Adversaries:
    """Two players that take turns: discriminators, and those that make images. A subclass takes the steps."""

    settings: Any

    def networks(self) -> nn.Module:
        raise NotImplementedError

    def begin(self, settings: Any, steps: int, runtime: Runtime, discriminators: nn.Module, *makers: nn.Module) -> None:
        """Places the networks and makes an optimiser for each player."""
        self.settings, self.steps, self.runtime, self.done = settings, steps, runtime, 0
        runtime.place(self.networks())
        self.generator_parameters = [parameter for maker in makers for parameter in maker.parameters()]
        self.discriminator_optimizer, self.generator_optimizer = (
            torch.optim.Adam(p, settings.learning_rate, settings.betas, weight_decay=settings.weight_decay, fused=runtime.fused)
            for p in (list(discriminators.parameters()), self.generator_parameters)
        )

    def update_discriminators(self, total: Tensor) -> None:
        """Their step down `total`."""
        self.discriminator_optimizer.zero_grad()
        total.backward()
        self.discriminator_optimizer.step()

    def update_generators(self, total: Tensor) -> None:
        """The others' step down `total`; the discriminators are fixed: no gradient of their weights is computed."""
        self.generator_optimizer.zero_grad()
        total.backward(inputs=self.generator_parameters)
        self.generator_optimizer.step()

    def set_rate(self) -> None:
        """The learning rate of this step, for both."""
        s = self.settings
        rate = s.learning_rate * linear_decay(self.done, self.steps, 1 - s.decay_from)
        for group in (*self.discriminator_optimizer.param_groups, *self.generator_optimizer.param_groups):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks().state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
            "generator_optimizer": self.generator_optimizer.state_dict(),
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks().load_state_dict(state["networks"])
        self.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.done = state["done"]
