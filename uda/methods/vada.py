"""VADA: Shu et al., "A DIRT-T Approach to Unsupervised Domain Adaptation", ICLR 2018.

The cluster assumption: decision boundaries keep away from data.

    total = cross-entropy(source) + lambda_d x domain-adversarial (as in DANN)                           eq. 6
          + lambda_s x virtual adversarial loss on the source
          + lambda_t x [ conditional entropy + virtual adversarial loss on the target ]

Not in the paper, as in DANN here: spectral norm in the discriminator, and averaged weights classify in the end.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import Method
from uda.methods.dann import DANN, DANNSettings
from uda.models.layers import SOURCE, TARGET


class VADASettings(DANNSettings):
    """VADA's settings; weights as in the paper's digit experiments."""

    name: str = "vada"
    adversarial_weight: NonNegativeFloat = 0.01
    source_smoothness_weight: NonNegativeFloat = 1.0
    target_weight: NonNegativeFloat = 0.01
    radius: PositiveFloat = 1.0
    """length of the virtual adversarial perturbation, in the Euclidean norm of an image in -1..1 (3.5 in the authors' code: too
    far for digits whose boundaries were drawn in 300 steps)"""


class VADA(DANN):
    """Features that do not tell their domain, and boundaries in the gaps of both."""

    Settings = VADASettings
    settings: VADASettings
    default_training = Method.default_training.model_copy(update={"steps": 300})

    def smoothness(self, images: Tensor, logits: Tensor, domain: int) -> Tensor:
        """KL(p(x) || p(x + r)), r the direction that changes the prediction most, of length `radius` (Miyato et al. 2018)."""
        clean = logits.detach().log_softmax(1)

        def divergence(direction: Tensor, length: float) -> Tensor:
            moved = images + length * direction.to(images.dtype)
            return losses.kl_divergence(clean, self.classify(self.features(moved, domain)).log_softmax(1))

        direction = unit(torch.randn_like(images)).requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(direction, 1e-1), direction)
        return divergence(unit(gradient), self.settings.radius)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        source, target, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        adversarial = self.adversarial(source, target, source_logits, target_logits)
        entropy = losses.entropy(target_logits)
        source_smoothness = self.smoothness(batch.source, source_logits, SOURCE)
        target_smoothness = self.smoothness(batch.target, target_logits, TARGET)
        return {
            "class": class_loss,
            "discriminator_adversarial": adversarial,
            "target_entropy": entropy,
            "source_smoothness": source_smoothness,
            "target_smoothness": target_smoothness,
            "total": class_loss
            + s.adversarial_weight * adversarial
            + s.source_smoothness_weight * source_smoothness
            + s.target_weight * (entropy + target_smoothness),
        }


def unit(perturbation: Tensor) -> Tensor:
    """Each image's perturbation, of Euclidean length 1."""
    length: Tensor = perturbation.flatten(1).norm(dim=1).clamp_min(1e-12)
    return perturbation / length.view(-1, *[1] * (perturbation.ndim - 1))
