"""What methods share whose two players take turns: discriminators, and the networks that make what these judge."""

from __future__ import annotations

import torch
from pydantic import AliasChoices, Field, NonNegativeFloat
from torch import nn

from uda.methods.base import MethodSettings
from uda.players import Players, linear_decay
from uda.types import UnitInterval


class AdversarialSettings(MethodSettings):
    """Adam for both players of an alternating game."""

    ema_decay: UnitInterval = Field(default=0.99, validation_alias=AliasChoices("ema_decay", "averaging"))
    """decay per step of the averaged weights, which are used in the end; 0: no average"""
    learning_rate: NonNegativeFloat = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    decay_from: UnitInterval = 0.7
    """the share of the steps after which the learning rate falls in a straight line to 0; 1 keeps it constant"""


def add_adversaries(players: Players, settings: AdversarialSettings, discriminators: nn.Module, *generators: nn.Module) -> None:
    """The players ``"discriminators"`` and ``"generators"``, each under an Adam of its own."""
    adam = {"lr": settings.learning_rate, "betas": settings.betas, "weight_decay": settings.weight_decay}
    decay = linear_decay(1 - settings.decay_from)
    players.add("discriminators", discriminators.parameters(), torch.optim.Adam, decay, **adam)
    makers = [parameter for generator in generators for parameter in generator.parameters()]
    players.add("generators", makers, torch.optim.Adam, decay, **adam)
