"""DANN: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016.

A discriminator d tells source features from target features; the backbone is trained to be told apart badly, by reversing the
gradient that reaches it:

    total = cross-entropy(source) + weight x [ -log d(f(x_s)) - log(1 - d(f(x_t))) ],   gradient to f times -lambda_p
    lambda_p = 2 / (1 + exp(-10 p)) - 1,  p = share of the steps done                                  section 5.2.2

Not in the paper: what classifies in the end are weights averaged over the last steps, since two players swing; and the
discriminator has spectral norm (Miyato et al. 2018), without which the backbone is thrown off time and again.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import Method, Shape, TeacherSettings, WithTeacher
from uda.models.backbones import Classifier
from uda.runtime import Runtime


class DANNSettings(TeacherSettings):
    """DANN's settings."""

    name: str = "dann"
    adversarial_weight: NonNegativeFloat = 1.0
    hidden: PositiveInt = 256
    """width of the discriminator's two hidden layers"""


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by -strength (the paper's eq. 14 and 15)."""

    @staticmethod
    def forward(context: Any, features: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradients[0], None


def discriminator(inputs: int, hidden: int) -> nn.Module:
    """Feature vectors (N, inputs) to one logit each: that they are the source's.

    Spectral norm bounds the gradient that is reversed.
    """
    widths = inputs, hidden, hidden, 1
    layers = [spectral_norm(nn.Linear(before, after)) for before, after in pairwise(widths)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def ramp(done: int, steps: int) -> float:
    """lambda_p: 0 at the start, 1 in the end."""
    return 2 / (1 + math.exp(-10 * done / steps)) - 1


class DANN(WithTeacher):
    """Source cross-entropy, and features that do not tell their domain."""

    Settings = DANNSettings
    settings: DANNSettings
    default_training = Method.default_training.model_copy(update={"steps": 800})

    def __init__(self, settings: DANNSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.discriminator = self.build_discriminator(classifier)

    def build_discriminator(self, classifier: Classifier) -> nn.Module:
        """What tells the domains apart, by features."""
        return discriminator(classifier.backbone.feature_dim, self.settings.hidden)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        source, target, source_logits, target_logits = self.read(batch)
        adversarial = self.adversarial(source, target, source_logits, target_logits)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        return {
            "class": class_loss,
            "discriminator_adversarial": adversarial,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.adversarial_weight * adversarial,
        }

    def adversarial(self, source: Tensor, target: Tensor, source_logits: Tensor, target_logits: Tensor) -> Tensor:
        """The discriminator's loss; what reaches the backbone of it is reversed."""
        reversed_ = ReverseGradient.apply(torch.cat([source, target]), ramp(self.done, self.steps))
        with self.runtime.autocast():
            is_source = self.discriminator(reversed_)
        return losses.real_fake(is_source[: len(source)], True) + losses.real_fake(is_source[len(source) :], False)
