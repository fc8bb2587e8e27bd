"""What methods that train one classifier by one loss have in common. Such a method is its settings and its `losses`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET, by_domain, convert_domain_batch_norm, domain_norms, learn_statistics
from uda.players import update_ema
from uda.runtime import Runtime, evaluating
from uda.types import Section, UnitInterval

TRAINING: dict[str, int | str] = {
    "steps": 400, "batch": 128, "target_batch": 128, "class_shares": "even", "evaluate_every": 100,
}  # fmt: skip
"""what a method of one network wants of a recipe that was written for another method; even classes, since two domains whose
classes have different shares cannot have the same features"""


class MethodSettings(Section):
    """What every method's settings have."""

    name: str = ""
    """the method's"""


class OptimizerSettings(MethodSettings):
    """AdamW under a one-cycle schedule (Smith and Topin 2018)."""

    learning_rate: NonNegativeFloat = 1e-3
    """the peak of the cycle"""
    weight_decay: NonNegativeFloat = 1e-3


def update_bn(network: nn.Module, read: Callable[[Tensor], object], target: Domain, runtime: Runtime) -> None:
    """The target's statistics of a network with batch norm, from a sample of its images; without batch norm, nothing.

    `read` sends float images (N, C, H, W) in -1..1 through the network.
    """

    def read_pixels(images: Tensor) -> None:
        with runtime.autocast():
            read(runtime.arrange(to_float(images)))

    if domain_norms(network):
        with evaluating(network):
            learn_statistics(network, read_pixels, target.sample().split(250))


class OneNetwork:
    """Trains a copy of the source classifier; a subclass says by what loss.

    `others` are further networks that the loss trains: a domain discriminator, say.
    """

    settings: Any

    def __init__(self, settings: Any, classifier: Classifier, shape: tuple[int, int, int], steps: int, runtime: Runtime) -> None:
        self.settings, self.runtime, self.steps, self.done = settings, runtime, steps, 0
        self.network = copy.deepcopy(classifier)
        convert_domain_batch_norm(self.network)
        self.others = self.build_others(classifier)
        runtime.place(self.networks())
        parameters = [p for p in (*self.network.parameters(), *self.others.parameters()) if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=runtime.fused
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, settings.learning_rate, total_steps=steps)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}  # of other players, where a subclass has some

    def add_player(self, name: str, network: nn.Module, learning_rate: float, betas: tuple[float, float]) -> None:
        """Another player, with an Adam of its own."""
        self.optimizers[name] = torch.optim.Adam(network.parameters(), learning_rate, betas, fused=self.runtime.fused)

    def descend(self, player: str, loss: Tensor, only: list[nn.Parameter] | None = None) -> None:
        """A player's step down `loss`; `only`: the parameters whose gradient is computed, where others are to stay fixed."""
        self.optimizers[player].zero_grad()
        loss.backward(inputs=only)
        self.optimizers[player].step()

    def build_others(self, classifier: Classifier) -> nn.ModuleDict:
        """Networks beside the classifier, by name; none unless a method has some."""
        return nn.ModuleDict()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Every loss of a batch; the sum that is to go down is ``"total"``."""
        raise NotImplementedError

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step down the total loss."""
        values = self.losses(batch)
        self.optimizer.zero_grad()
        values["total"].backward()
        self.optimizer.step()
        return self.advance(values)

    def advance(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ends a step: the learning rate moves on, averages follow, and the losses are handed out."""
        self.schedule.step()
        self.after_step()
        self.done += 1
        return {name: value.detach() for name, value in values.items()}

    def after_step(self) -> None:
        """What follows a step: a moving average of the weights, say."""

    def features(self, images: Tensor, domain: int, network: Classifier | None = None) -> Tensor:
        """Features (N, D) of one domain's images."""
        with self.runtime.autocast():
            return by_domain((network or self.network).backbone, images, (len(images), domain))

    def classify(self, features: Tensor, network: Classifier | None = None) -> Tensor:
        """Logits (N, K), float32."""
        with self.runtime.autocast():
            return (network or self.network).head(features).float()

    def read(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of source and (augmented) target, then the logits of both: one pass for all where nothing forbids it."""
        (source, source_logits), (target, target_logits) = self.read_all((batch.source, SOURCE), (batch.target, TARGET))
        return source, target, source_logits, target_logits

    def read_all(self, *parts: tuple[Tensor, int]) -> list[tuple[Tensor, Tensor]]:
        """Features (N, D) and logits (N, K) of each of several batches, (images, whose domain): one pass for all."""
        rows = [(len(images), domain) for images, domain in parts]
        with self.runtime.autocast():
            features = by_domain(self.network.backbone, torch.cat([images for images, _ in parts]), *rows)
        counts = [count for count, _ in rows]
        return list(zip(features.split(counts), self.classify(features).split(counts), strict=True))

    def prepare(self, target: Domain) -> None:
        """Learns the target's statistics of a network with batch norm."""
        update_bn(self.network, self.network, target, self.runtime)

    def classifier(self) -> nn.Module:
        return self.network

    def networks(self) -> nn.Module:
        return nn.ModuleDict({"network": self.network, "others": self.others})

    def state_dict(self) -> dict[str, Any]:
        return {
            "networks": self.networks().state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "done": self.done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks().load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.done = state["done"]


class TeacherSettings(OptimizerSettings):
    """With an averaged teacher."""

    averaging: UnitInterval = 0.99
    """decay per step of the averaged weights, which teach, and classify in the end"""


class Taught(OneNetwork):
    """Has a teacher: the network with weights averaged over the last steps (Tarvainen and Valpola 2017)."""

    def build_others(self, classifier: Classifier) -> nn.ModuleDict:
        others = super().build_others(classifier)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False).eval()
        others["teacher"] = self.teacher
        return others

    def prepare(self, target: Domain) -> None:
        super().prepare(target)
        self.teacher.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def taught(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features (N, D) and logits (N, K) of target images."""
        features = self.features(images, TARGET, self.teacher)
        return features, self.classify(features, self.teacher)

    def anchor(self, logits: Tensor, images: Tensor, confidence: float) -> dict[str, Tensor]:
        """Entropy of the target's `logits` and of their mean, and the loss by the teacher's pseudo-labels of its `images`."""
        return {
            "target_entropy": losses.entropy(logits),
            "target_marginal_entropy": losses.marginal_entropy(logits),
            "pseudo_label": losses.pseudo_label(logits, self.taught(images)[1], confidence),
        }

    def after_step(self) -> None:
        update_ema(self.teacher, self.network, self.settings.averaging, self.done)

    def classifier(self) -> nn.Module:
        return self.teacher


class TrainingSettings(Section):
    """How long the method trains, and how often it is looked at."""

    steps: PositiveInt
    batch: PositiveInt = 64
    """images of each domain in a step"""
    target_batch: PositiveInt | None = None
    """target images in a step, where there are to be more of them; left out: as many as `batch`"""
    class_shares: Literal["own", "even", "predicted"] = "own"
    """how often source images of each class are drawn: as there are of them, equally often, or as often as the source classifier
    gives that class to target images"""
    log_every: PositiveInt = 10
    evaluate_every: PositiveInt = 100
    """steps between two label-free scores (and accuracies for `oracle`)"""
