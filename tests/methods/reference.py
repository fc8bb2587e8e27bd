"""A method that is set up, a batch for it, and by-hand formulas that its step is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import domain, small_classifier
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods import Method
from uda.models.backbones import Classifier
from uda.players import Players
from uda.runtime import Runtime

M = TypeVar("M", bound=Method)
Parameters = Iterable[nn.Parameter]


def made(
    cls: type[M],
    runtime: Runtime,
    steps: int = 20,
    classifier: Classifier | None = None,
    target: Domain | None = None,
    **settings: Any,
) -> M:
    """A method for 16 x 16 colour images, set up, with the same weights on every call."""
    torch.manual_seed(0)
    start = classifier or small_classifier()
    method = cls(cls.Settings(**settings), start if cls.classifies else None, (3, 16, 16), steps, runtime)
    method.setup(target or domain("t", 24, 1).without_labels(), Players(runtime, steps))
    return method


def twins(cls: type[M], runtime: Runtime, steps: int = 20, done: int = 0, **options: Any) -> tuple[M, M]:
    """Two methods of the same weights, `done` steps after their beginning; no two parts of one that start alike are alike.

    One takes its step; the other's networks are for the same step by hand.
    """
    pair = made(cls, runtime, steps, **options), made(cls, runtime, steps, **options)
    for method in pair:
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        method.players.done = done
    return pair


def drawn_batch(count: int = 6, target_count: int = 8) -> Batch:
    """Drawn digits, and their negatives as target: more of these; of both, augmented ones that differ from those as they are."""
    source, target = domain("s", count, 0), domain("t", target_count, 1)
    weak = -to_float(target.images)
    positions = torch.arange(count), torch.arange(target_count) + 3
    images = to_float(source.images)
    augmented = images, source.labels, positions[0], 0.8 * weak.flip(3)
    return Batch(*augmented, weak, positions[1], source_weak=0.9 * images.flip(2))


def weights(module: nn.Module) -> Tensor:
    """All parameters as one vector, copied."""
    return torch.cat([torch.zeros(0), *(parameter.detach().flatten() for parameter in module.parameters())])


# Formulas


def log_probabilities(logits: Tensor) -> Tensor:
    return logits - logits.exp().sum(1, keepdim=True).log()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -log_probabilities(logits)[torch.arange(len(labels)), labels].mean()


def entropies(logits: Tensor) -> Tensor:
    """H(p) of each row."""
    log_p = log_probabilities(logits)
    return -(log_p.exp() * log_p).sum(1)


def entropy(logits: Tensor) -> Tensor:
    return entropies(logits).mean()


SHARES = torch.tensor([0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01])


def marginal_entropy(logits: Tensor, shares: Tensor | None = None) -> Tensor:
    """ln K - KL(mean prediction || shares)."""
    p = log_probabilities(logits).exp().mean(0)
    shares = torch.full((logits.shape[1],), 1 / logits.shape[1]) if shares is None else shares
    return torch.tensor(logits.shape[1]).log() - (p * (p / shares).log()).sum()


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), a mean over the rows."""
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


def is_real(logits: Tensor) -> Tensor:
    """-log D."""
    return -torch.sigmoid(logits).log().mean()


def is_fake(logits: Tensor) -> Tensor:
    """-log(1 - D)."""
    return -(1 - torch.sigmoid(logits)).log().mean()


def l1(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|: a sum over an image's numbers, a mean over the images."""
    return (a - b).abs().sum() / len(a)


def l2(a: Tensor, b: Tensor) -> Tensor:
    return ((a - b) ** 2).sum() / len(a)


def kl_to_normal(mean: Tensor, log_variance: Tensor | None = None) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)), a sum over a code's numbers, a mean over the codes."""
    log_variance = torch.zeros_like(mean) if log_variance is None else log_variance
    return ((mean**2 + log_variance.exp() - 1 - log_variance) / 2).sum() / len(mean)


def sure_cross_entropy(logits: Tensor, teacher_logits: Tensor, confidence: float) -> Tensor:
    """Of the images whose teacher is sure, by its class; divided by all images. Some of them must be sure, and some not."""
    probability, label = log_probabilities(teacher_logits).exp().max(1)
    sure = probability > confidence
    assert 0 < sure.sum() < len(sure), "the test must tell sure from unsure"
    return -log_probabilities(logits)[torch.arange(len(logits)), label][sure].sum() / len(logits)


# Updates


def adamw(parameters: Parameters, settings: Any) -> torch.optim.Optimizer:
    """In the first step of a one-cycle schedule: a 25th of its peak."""
    rate = settings.learning_rate / 25
    return torch.optim.AdamW(list(parameters), lr=rate, betas=(0.95, 0.999), weight_decay=settings.weight_decay)


def adam(parameters: Parameters, settings: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(parameters), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, only: Parameters | None = None) -> None:
    """One step down `loss`, of all that the optimiser has, or of some."""
    every = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad()
    moving = every if only is None else list(only)
    gradients = torch.autograd.grad(loss, moving, allow_unused=True, retain_graph=True)
    for parameter, gradient in zip(moving, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()


def reversed_by_hand(features: Tensor, seen: Tensor, adversarial: Tensor, strength: float) -> Tensor:
    """A discriminator's loss as it is added to others: to it the loss itself, to `features` minus `strength` times its gradient.

    `seen`: the features as the discriminator has seen them, cut off from the network that made them.
    """
    (gradient,) = torch.autograd.grad(adversarial, seen, retain_graph=True)
    return adversarial - strength * (gradient * features).sum()


@torch.no_grad()
def follow(averaged: nn.Module, network: nn.Module, remembered: float = 0.1) -> None:
    """The averaged weights after the first step, which remembers a tenth."""
    for mean, now in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.copy_(remembered * mean + (1 - remembered) * now)


def assert_losses(values: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same losses under the same names."""
    now, by_hand = ({name: value.detach().item() for name, value in each.items()} for each in (values, expected))
    assert now == pytest.approx(by_hand, rel=1e-5, abs=1e-6)


def assert_same_update(network: nn.Module, reference: nn.Module) -> None:
    """The same gradients in the last update, and the same weights after it.

    Adam's first step goes by the sign of a gradient, so that of one that is nothing but rounding error it says nothing.
    """
    pairs = [(name, a, b) for (name, a), b in zip(network.named_parameters(), reference.parameters(), strict=True)]
    gradients = [b.grad.abs().max() for _, _, b in pairs if b.grad is not None]
    noise = 1e-5 * max(gradients, default=torch.zeros(()))
    for name, now, expected in pairs:
        telling = torch.ones_like(now, dtype=torch.bool)
        if now.grad is not None or expected.grad is not None:
            gradient, by_hand = (torch.zeros_like(p) if p.grad is None else p.grad for p in (now, expected))
            assert torch.allclose(gradient, by_hand, rtol=1e-3, atol=float(noise)), f"gradient of {name}"
            telling = by_hand.abs() > 3 * noise
        assert torch.allclose(now[telling], expected[telling], rtol=1e-4, atol=1e-6), f"weights of {name}"
