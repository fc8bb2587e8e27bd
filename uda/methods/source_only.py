"""Source only: supervised training on labelled source images. It makes the source classifier, and is every method's baseline."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import (
    BeforeValidator,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.base import Method, MethodSettings, Shape
from uda.models.backbones import Classifier
from uda.players import Players, one_cycle
from uda.runtime import Runtime
from uda.types import Section, UnitInterval


class SourceOnlySettings(MethodSettings):
    """How a source classifier is trained: AdamW under a one-cycle schedule (Smith and Topin 2018)."""

    name: str = "source_only"
    learning_rate: NonNegativeFloat = 3e-3
    """the peak of the cycle"""
    weight_decay: NonNegativeFloat = 0.05
    smoothing: UnitInterval = 0.1
    """label smoothing"""


class SourceOnly(Method):
    """Trains the classifier that it is given, in place, on source images alone."""

    Settings = SourceOnlySettings
    settings: SourceOnlySettings
    adapts = False

    def __init__(self, settings: SourceOnlySettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.network = classifier

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        s = self.settings
        weights = self.network.parameters()
        players.add("network", weights, torch.optim.AdamW, one_cycle, lr=s.learning_rate, weight_decay=s.weight_decay)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step down the cross-entropy of a source batch."""
        with self.runtime.autocast():
            logits = self.network(batch.source)
        loss = losses.cross_entropy(logits, batch.source_labels, self.settings.smoothing)
        self.players.step("network", loss)
        return self.advance({"class": loss})

    def classifier(self) -> nn.Module:
        return self.network


one_is_enough = BeforeValidator(
    lambda value: (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value
)
"""of a grey network: 0.5 for [0.5]"""


class SourceClassifierSettings(Section):
    """The classifier that is trained on the source, and that methods start from."""

    backbone: str = "strided"
    """strided, lenet, unit, timm:NAME, torchvision:NAME, or your own: FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"""
    width: PositiveInt | None = None
    """base width of strided, lenet or unit; left out: the network's own"""
    pretrained: bool | None = None
    """whether a timm or torchvision network starts from published weights; left out: it does, unless a file gives weights"""
    backbone_weights: str | None = None
    """a state dict (.pt or .safetensors) of this network's pretrained body, with another head or none; the head is made anew"""
    weights: str | None = None
    """a state dict (.pt or .safetensors) of this network, already trained on the source; left out: train it"""
    split: str | None = None
    """of a network that is not ours, the last module of the stem, which UNIT gives each domain its own of; left out: found"""
    mean: Annotated[tuple[FiniteFloat, ...], one_is_enough] | None = None
    """what a network that is not ours wants subtracted from images in 0..1; left out: the published figures, or 0"""
    std: Annotated[tuple[PositiveFloat, ...], one_is_enough] | None = None
    """and divided by; left out: the published figures, or 1"""
    trainable: Annotated[str, Field(pattern=r"^(all|head|from \S+)$")] = "all"
    """what of the network is trained, by the source and by methods. "all"; "head": the body is frozen, and its features are
    computed once; "from STAGE": so is all that comes before the module STAGE"""
    deeper: NonNegativeInt = 0
    """of a body that is frozen ("head"): so many of its last stages are trained as well, after a first result, in runs of their
    own below the first, as long as the accuracy that is estimated without labels grows"""
    target_norm: Literal["own", "both", "auto"] = "own"
    """what a frozen body's batch norms go by on the target: the statistics that it came with, or these and the target's, in the
    mean of two passes; auto: both, where the source classifier is surer then of target images, and of more classes;
    methods that draw images have one body read both domains, which is own"""
    bottleneck: NonNegativeInt = 0
    """features of a new head, between the network's own and the classes; 0: the network's own head"""
    dropout: UnitInterval = 0.5
    """in the bottleneck"""
    pretrained_rate: NonNegativeFloat = 0.1
    """the learning rate of weights that came pretrained, as a part of that of new ones, for the source and for methods"""
    steps: NonNegativeInt = 600
    """0: the network is taken as it is"""
    refine_steps: NonNegativeInt = 0
    """steps on the augmented source that a network which comes trained takes before a method begins that reads the source"""
    batch: PositiveInt = 256
    training: SourceOnlySettings = SourceOnlySettings()

    @model_validator(mode="after")
    def _deeper_than_the_head(self) -> Self:
        if self.deeper and self.trainable != "head":
            raise ValueError('deeper is for a frozen body; set classifier.trainable to "head", or leave it out')
        return self

    @property
    def comes_trained(self) -> bool:
        """Whether the network was trained before the run."""
        return self.weights is not None or self.steps == 0

    @property
    def freezes(self) -> bool:
        """Whether a part of the network stays as it came."""
        return self.trainable != "all"

    @property
    def first_trained(self) -> str | None:
        """The first module that is trained, where it lies within the network."""
        return self.trainable.removeprefix("from ") if self.trainable.startswith("from ") else None
