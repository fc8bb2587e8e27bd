"""CDAN: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018.

DANN whose discriminator reads features and predictions together: the outer product f (x) softmax(g), eq. 4; or, where that has
too many entries, the product of two random projections of them, eq. 6. With entropy conditioning (CDAN+E, eq. 9) an image counts
by w = 1 + exp(-entropy of its prediction), so that sure ones lead.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from uda.collectives import gather
from uda.methods.dann import DANN, DANNSettings, ReverseGradient, discriminator, ramp
from uda.models.backbones import Classifier


class CDANSettings(DANNSettings):
    """CDAN's settings."""

    name: str = "cdan"
    entropy_conditioning: bool = True
    largest_product: PositiveInt = 4096
    """entries of the outer product above which random projections to 1,024 take its place"""


class MultilinearMap(nn.Module):
    """Features (N, D) and probabilities (N, K) to (N, D x K), or to 1,024 by random projections that stay as they are."""

    def __init__(self, features: int, classes: int, largest: int) -> None:
        super().__init__()
        self.randomized = features * classes > largest
        self.outputs: int = 1024 if self.randomized else features * classes
        if self.randomized:
            self.of_features: Tensor
            self.of_classes: Tensor
            self.register_buffer("of_features", torch.randn(features, self.outputs))
            self.register_buffer("of_classes", torch.randn(classes, self.outputs))

    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        if self.randomized:
            return (features @ self.of_features) * (probabilities @ self.of_classes) / math.sqrt(self.outputs)
        return (features[:, :, None] * probabilities[:, None]).flatten(1)


class CDAN(DANN):
    """Features and predictions that together do not tell their domain."""

    Settings = CDANSettings
    settings: CDANSettings

    def build_discriminator(self, classifier: Classifier) -> nn.Module:
        """What tells the domains apart, by features and predictions together."""
        self.product = MultilinearMap(classifier.backbone.feature_dim, classifier.classes, self.settings.largest_product)
        return discriminator(self.product.outputs, self.settings.hidden)

    def adversarial(self, source: Tensor, target: Tensor, source_logits: Tensor, target_logits: Tensor) -> Tensor:
        probabilities = torch.cat([source_logits, target_logits]).softmax(1).detach()
        joint = self.product(torch.cat([source, target]).float(), probabilities)
        with self.runtime.autocast():
            is_source = self.discriminator(ReverseGradient.apply(joint, ramp(self.done, self.steps))).float()
        truth = (torch.arange(len(joint), device=joint.device) < len(source)).float()[:, None]
        each = F.binary_cross_entropy_with_logits(is_source, truth, reduction="none").squeeze(1)
        if not self.settings.entropy_conditioning:
            return each[: len(source)].mean() + each[len(source) :].mean()
        weight = 1 + (torch.special.xlogy(probabilities, probabilities).sum(1)).exp()  # exp of minus the entropy
        parts = torch.stack([weight * each, weight]).split([len(source), len(target)], 1)
        weighted = [gather(part.T).sum(0) for part in parts]
        return sum((total / weights for total, weights in weighted), torch.zeros(()))
