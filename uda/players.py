"""Players: the groups of weights that train together, each under an optimiser of its own.

Every optimiser of a method, its schedule, its step and every moving average of weights lives in `Players`. It is the only place
that touches gradients between ``backward`` and ``step``: there, those of all processes of a run are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from uda.collectives import average, average_gradients
from uda.errors import UserError
from uda.runtime import Runtime


def mark_pretrained(module: nn.Module, rate: float) -> None:
    """Marks a module, and copies that are made of it, as one whose weights move at `rate` of the learning rate of others."""
    vars(module)["learning_rate_factor"] = rate


Schedule = Callable[[Optimizer, int], LRScheduler]
"""an optimiser and the number of steps that it will take, to its learning-rate schedule"""


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up to the optimiser's learning rates and down again in `steps` steps (Smith and Topin 2018)."""
    return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps)


def linear_decay(share: float, within: int | None = None) -> Schedule:
    """A constant learning rate that falls in a straight line to 0 over the last `share` (0..1) of the steps.

    `within`: the number of steps, for a player that stops before the others.
    """

    def schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
        total = within or steps
        return LambdaLR(optimizer, lambda done: min(1.0, max(0.0, 1 - done / total) / max(1e-8, share)))

    return schedule


@torch.no_grad()
def update_ema(averaged: nn.Module, network: nn.Module, decay: float, done: int) -> None:
    """Moves `averaged` towards `network` by 1 - decay; faster in the first steps, when there is little to remember."""
    decay = min(decay, (done + 1) / (done + 10))
    for mean, now in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)
    for kept, new in zip(averaged.buffers(), network.buffers(), strict=True):
        kept.copy_(new)


@dataclass(frozen=True)
class Player:
    """Parameters, the optimiser that moves them, and its schedule."""

    parameters: list[nn.Parameter]
    optimizer: Optimizer
    schedule: LRScheduler | None


@dataclass(frozen=True)
class Average:
    """A network whose weights follow another's for the first `steps` steps."""

    averaged: nn.Module
    network: nn.Module
    decay: float
    steps: int


class Players:
    """All optimisers and weight averages of one method.

    Attributes:
        runtime: what to compute with.
        steps: how many steps the method will take.
        done: how many it has taken.
        scale: what all learning rates are multiplied by.
    """

    def __init__(self, runtime: Runtime, steps: int) -> None:
        self.runtime, self.steps, self.done, self.scale = runtime, steps, 0, 1.0
        self._players: dict[str, Player] = {}
        self._averages: list[Average] = []
        self._rates: dict[nn.Parameter, float] = {}

    def slow_down(self, method: nn.Module) -> None:
        """Before any player is added: what `mark_pretrained` marked in a method is to move slower, whoever gets it."""
        for module in method.modules():
            rate = getattr(module, "learning_rate_factor", None)
            self._rates |= {} if rate is None else dict.fromkeys(module.parameters(), rate)

    def add(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        optimizer: Callable[..., Optimizer],
        schedule: Schedule | None = None,
        **options: Any,
    ) -> None:
        """A player: parameters (those that take gradients) under ``optimizer(parameters, **options)`` and a schedule."""
        own = [parameter for parameter in parameters if parameter.requires_grad]
        if not own:
            raise UserError(f"there is nothing to train for {name!r}; give it parameters that take gradients")
        by_rate: dict[float, list[nn.Parameter]] = {}
        for parameter in own:
            by_rate.setdefault(self._rates.get(parameter, 1.0), []).append(parameter)
        groups = [{"params": group, "lr": rate * options["lr"]} for rate, group in by_rate.items()]
        made = optimizer(groups, fused=self.runtime.fused, **options)
        self._players[name] = Player(own, made, schedule(made, self.steps) if schedule else None)

    def add_ema(self, averaged: nn.Module, network: nn.Module, decay: float, steps: int | None = None) -> None:
        """Makes `averaged`, a copy of `network`, an exponential moving average of it, for the first `steps` steps or for all."""
        averaged.load_state_dict(network.state_dict())
        self._averages.append(Average(averaged, network, decay, self.steps if steps is None else steps))

    def unclaimed(self, module: nn.Module) -> list[nn.Parameter]:
        """The parameters of a module that no player has yet."""
        claimed = {id(parameter) for player in self._players.values() for parameter in player.parameters}
        return [parameter for parameter in module.parameters() if id(parameter) not in claimed]

    def step(self, name: str, loss: Tensor, only: list[nn.Parameter] | None = None) -> None:
        """One step of a player down `loss`; all other players stay as they are.

        `only`: those of its parameters that are to move, where not all are.
        """
        player = self._players[name]
        player.optimizer.zero_grad()
        loss.backward(inputs=player.parameters if only is None else only)
        self._move(player)

    def step_sharpness_aware(self, name: str, loss: Tensor, again: Callable[[], Tensor], rest: Tensor, rho: float) -> None:
        """One step of a player down `rest` plus the largest `loss` within `rho` of its weights (Foret et al. 2021, SAM).

        The gradient of `loss` is taken at weights + rho x g / |g|, g its gradient at the weights themselves; that of `rest` is
        not. Both losses are differentiable at the present weights.

        Args:
            name: the player's.
            loss: what is to be flat as well as low.
            again: computes `loss` anew, with the weights as they are when it is called.
            rest: what is only to be low.
            rho: how far away the largest is looked for: the Euclidean length of a move of all of the player's weights together.
        """
        player = self._players[name]
        own = player.parameters
        player.optimizer.zero_grad()
        gradients = torch.autograd.grad(loss, own, retain_graph=True, materialize_grads=True)
        average(gradients)
        rest.backward(inputs=own)
        before = [parameter.detach().clone() for parameter in own]
        length = torch.stack([gradient.norm() for gradient in gradients]).norm().clamp_min(1e-12)
        with torch.no_grad():
            for parameter, gradient in zip(own, gradients, strict=True):
                parameter.add_(rho * gradient / length)
        again().backward(inputs=own)
        with torch.no_grad():
            for parameter, value in zip(own, before, strict=True):
                parameter.copy_(value)
        self._move(player)

    def _move(self, player: Player) -> None:
        """The optimiser's step, at the scheduled learning rates times `scale`, down the mean of all processes' gradients."""
        average_gradients(player.parameters)
        groups = player.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self.scale
        player.optimizer.step()
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def advance(self) -> None:
        """Ends a step of the method: learning rates move on, and averages follow."""
        for player in self._players.values():
            if player.schedule is not None:
                player.schedule.step()
        for mean in self._averages:
            if self.done < mean.steps:
                update_ema(mean.averaged, mean.network, mean.decay, self.done)
        self.done += 1

    def state_dict(self) -> dict[str, Any]:
        """Optimisers and schedules by player, and the number of steps done; weights are the method's own to save."""
        return {
            "done": self.done,
            "scale": self.scale,
            "optimizers": {name: player.optimizer.state_dict() for name, player in self._players.items()},
            "schedules": {name: player.schedule.state_dict() for name, player in self._players.items() if player.schedule},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.done, self.scale = state["done"], state["scale"]
        for name, player in self._players.items():
            player.optimizer.load_state_dict(state["optimizers"][name])
            if player.schedule:
                player.schedule.load_state_dict(state["schedules"][name])
