"""What a method is, and what methods that train one classifier by one loss have in common: such a method is its `losses`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import AliasChoices, Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.errors import OwnCodeError
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET, by_domain, convert_domain_batch_norm, domain_norms, learn_statistics
from uda.players import Players, one_cycle
from uda.runtime import Runtime, evaluating
from uda.types import Section, UnitInterval

Shape = tuple[int, int, int]
"""(C, S, S): channels and side of all images"""
Read = Callable[[Tensor], Tensor]
"""what sends images (N, C, S, S) in -1..1 through a frozen body, for its output (N, ...); gradients pass"""


class TrainingSettings(Section):
    """How long the method trains, and how often it is evaluated."""

    steps: PositiveInt
    batch: PositiveInt = 64
    """images of each domain in a step"""
    target_batch: PositiveInt | None = None
    """target images in a step, where there are to be more of them; left out: as many as `batch`"""
    class_shares: Literal["own", "even", "predicted", "target"] = "own"
    """how often source images of each class are drawn: as there are of them, equally often, as often as the source classifier
    gives that class to target images, or as often as is expected of the target (`target_shares`)"""
    target_shares: Literal["auto", "even", "estimated"] = "auto"
    """which class shares methods expect of the target: even ones, or those that are estimated without its labels; auto: estimated
    ones where they are farther from even than mistakes of the source classifier can explain"""
    log_every: PositiveInt = 10
    evaluate_every: PositiveInt = 100
    """steps between two evaluations: label-free scores, and accuracies for `oracle`"""


class MethodSettings(Section):
    """What every method's settings have."""

    name: str = ""
    """the method's"""


class Method(nn.Module):
    """A way to adapt a classifier, or to translate images. What it trains is what it holds as a module.

    Args:
        settings: of its class `Settings`.
        classifier: trained on the source, and left as it is (by all but `SourceOnly`, which trains it); None where the method has
            no use for one (`classifies`).
        shape: (C, S, S) of the images.
        steps: how many times `step` will be called.
        runtime: what to compute with.
        read: where a body is frozen and the method `reads_pixels`, the way from images to what the classifier reads.

    A subclass makes its networks in ``__init__``, and its optimisers in `setup`. Target labels cannot reach it: a `Domain` and a
    `Batch` have no place for them. The first paragraph of its file says what it is: NAME: authors, "title", venue year.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    """its settings, a table of the recipe"""
    default_training: ClassVar[TrainingSettings] = TrainingSettings(
        steps=400, batch=128, target_batch=128, class_shares="even", evaluate_every=100
    )
    """its default training, where a recipe says nothing else; even classes, since two domains whose classes have different shares
    cannot have the same features"""
    least_batch: ClassVar[int] = 1
    """how many images of each domain a step takes at least"""
    reads_source: ClassVar[bool] = True
    """whether it wants source images: else a batch holds none"""
    reads_target_labels: ClassVar[bool] = False
    """whether it is no adaptation, but gets the labelled target in the source's place"""
    reads_masked: ClassVar[bool] = False
    """whether its target images are to come with patches hidden: it needs ``augment.target.mask``"""
    reads_pixels: ClassVar[bool] = False
    """whether, with a frozen body, it draws images of side `data.drawn_size` and has them read by the body (`Batch.pixels`); its
    ``__init__`` then takes `read`"""
    classifies: ClassVar[bool] = True
    """whether it makes a classifier: else it only translates, and needs no labels"""
    translates: ClassVar[bool] = False
    """whether it makes images of one domain from images of the other: it is a `Translating` then"""
    adapts: ClassVar[bool] = True
    """whether it is to change what the classifier says of the target"""
    for_unknown: ClassVar[bool] = False
    """whether it is made for targets that hold unknown classes: others make a classifier sure of these, too"""
    leaves_unknown: ClassVar[bool] = False
    """whether it makes the classifier doubtful of all that is of no known class: what is estimated is of the other images then"""

    settings: Any
    players: Players
    target_shares: Tensor | None = None
    """the class shares that are expected of the target, (K,), above 0 and of sum 1, set before `setup`; None: even ones, or not
    known. For `losses.marginal_entropy` and its kin; a method need not read it"""

    def __init__(
        self,
        settings: MethodSettings,
        classifier: Classifier | None,
        shape: Shape,
        steps: int,
        runtime: Runtime,
        read: Read | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.shape, self.steps, self.runtime = settings, shape, steps, runtime
        self.read_drawn = read

    @property
    def done(self) -> int:
        """How many steps have been taken."""
        return self.players.done

    def read_files(self) -> None:
        """Reads what the settings name on disk, if anything; a run calls it before it begins, so that nothing is trained in vain.

        Raises:
            UserError: where a file is missing, damaged or of other networks.
        """

    def setup(self, target: Domain, players: Players) -> None:
        """Before the first step: looks at the target, and says which parameters train together. Draws no random number."""
        self.players = players

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; returns its losses, unweighted scalars that are still on the device."""
        raise NotImplementedError

    def classifier(self) -> nn.Module:
        """The adapted classifier: images (N, C, H, W) in -1..1 to logits (N, K)."""
        raise NotImplementedError

    def seen(self, images: Tensor) -> Tensor:
        """Images (N, C, s, s) in -1..1 as the classifier reads them: where a body is frozen, what it makes of them."""
        return images if self.read_drawn is None else self.read_drawn(images)

    def advance(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Ends a step: learning rates and averages move on, and the losses are handed out without their graph."""
        self.players.advance()
        return {name: value.detach() for name, value in values.items()}

    def update_bn(self, network: nn.Module, read: Callable[[Tensor], object], target: Domain) -> None:
        """The target's batch-norm statistics of a network, from a sample of its images; without batch norm, nothing.

        `read` sends float images (N, C, H, W) in -1..1 through the network.
        """

        def read_pixels(images: Tensor) -> None:
            with self.runtime.autocast():
                read(self.runtime.arrange(to_float(images)))

        if domain_norms(network):
            with evaluating(network):
                learn_statistics(network, read_pixels, target.sample().split(250))


class OptimizerSettings(MethodSettings):
    """AdamW under a one-cycle schedule (Smith and Topin 2018)."""

    learning_rate: NonNegativeFloat = 1e-3
    """the peak of the cycle"""
    weight_decay: NonNegativeFloat = 1e-3


class OneNetwork(Method):
    """Trains a copy of the source classifier, and whatever else a subclass holds, down one loss."""

    Settings: ClassVar[type[MethodSettings]] = OptimizerSettings

    def __init__(self, settings: OptimizerSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.network = copy.deepcopy(classifier)
        convert_domain_batch_norm(self.network)

    def setup(self, target: Domain, players: Players) -> None:
        """Learns the target's batch-norm statistics; one optimiser for all that no other player has."""
        super().setup(target, players)
        self.update_bn(self.network, self.network, target)
        s = self.settings
        rest = players.unclaimed(self)
        players.add("network", rest, torch.optim.AdamW, one_cycle, lr=s.learning_rate, weight_decay=s.weight_decay)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Every loss of a batch; the sum that is to go down is ``"total"``."""
        raise NotImplementedError

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step down the total loss.

        Raises:
            OwnCodeError: where `losses` returns something else than it has to.
        """
        values: Any = self.losses(batch)
        total = values.get("total") if isinstance(values, dict) else None
        if not isinstance(total, Tensor) or total.ndim or not total.requires_grad:
            raise OwnCodeError(
                f"{type(self).__name__}.losses returned {_outline(values)}; it must return a dict of scalar tensors, one of them "
                "'total', the loss that goes down, which depends on the network's weights"
            )
        self.players.step("network", values["total"])
        return self.advance(values)

    def features(self, images: Tensor, domain: int, network: Classifier | None = None) -> Tensor:
        """Features (N, D) of one domain's images."""
        with self.runtime.autocast():
            return by_domain((network or self.network).backbone, images, (len(images), domain))

    def classify(self, features: Tensor, network: Classifier | None = None) -> Tensor:
        """Logits (N, K), float32."""
        with self.runtime.autocast():
            logits: Tensor = (network or self.network).head(features)
            return logits.float()

    def outputs(self, blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, D) and logits (B, K) of blocks of target images, in evaluation mode and without gradients."""
        for images in blocks:
            with evaluating(self.network):
                features = self.features(self.runtime.arrange(images), TARGET)
                logits = self.classify(features)
            yield features, logits

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

    def classifier(self) -> nn.Module:
        return self.network


class TeacherSettings(OptimizerSettings):
    """With a mean teacher."""

    ema_decay: UnitInterval = Field(default=0.99, validation_alias=AliasChoices("ema_decay", "averaging"))
    """decay per step of the averaged weights, which teach, and classify in the end"""


class WithTeacher(OneNetwork):
    """Has a mean teacher: the network with weights averaged over the last steps (Tarvainen and Valpola 2017)."""

    Settings = TeacherSettings

    def __init__(self, settings: TeacherSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.teacher = copy.deepcopy(self.network).requires_grad_(False).eval()

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        players.add_ema(self.teacher, self.network, self.settings.ema_decay)

    @torch.no_grad()
    def teacher_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features (N, D) and logits (N, K) of target images."""
        features = self.features(images, TARGET, self.teacher)
        return features, self.classify(features, self.teacher)

    def self_training(self, logits: Tensor, images: Tensor, confidence: float) -> dict[str, Tensor]:
        """Entropy of the target's `logits` and of their mean, and the loss by the teacher's pseudo-labels of its `images`."""
        return {
            "target_entropy": losses.entropy(logits),
            "target_marginal_entropy": losses.marginal_entropy(logits, self.target_shares),
            "pseudo_label": losses.pseudo_label(logits, self.teacher_outputs(images)[1], confidence),
        }

    def classifier(self) -> nn.Module:
        return self.teacher


def _outline(values: object) -> str:
    """What was returned, in a few words."""
    if not isinstance(values, dict):
        return f"a {type(values).__name__}"
    kinds = {k: f"tensor {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__ for k, v in values.items()}
    return ", ".join(f"{name!r}: {kind}" for name, kind in kinds.items()) or "an empty dict"
