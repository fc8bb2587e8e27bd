"""DANN: its step by hand."""

from __future__ import annotations

import math

import torch

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, reversed_by_hand, twins
from uda.data.batches import Batch
from uda.methods.dann import DANN, ReverseGradient, ramp
from uda.runtime import Runtime


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """After 3 of 20 steps lambda_p is 2 / (1 + exp(-1.5)) - 1."""
    method, twin = twins(DANN, fp32, done=3, adversarial_weight=0.7, hidden=16)
    count = len(batch.source)
    features = twin.network.backbone(torch.cat([batch.source, batch.target]))
    source_logits, target_logits = twin.network.head(features).split([count, len(batch.target)])
    seen = features.detach().requires_grad_()
    judged = twin.discriminator(seen)
    adversarial = by_hand.is_real(judged[:count]) + by_hand.is_fake(judged[count:])
    class_loss = by_hand.cross_entropy(source_logits, batch.source_labels)

    strength = 2 / (1 + math.exp(-1.5)) - 1
    down = class_loss + reversed_by_hand(features, seen, 0.7 * adversarial, strength)
    descend(adamw([*twin.network.parameters(), *twin.discriminator.parameters()], twin.settings), down)
    follow(twin.teacher, twin.network, remembered=4 / 13)

    expected = {
        "class": class_loss,
        "discriminator_adversarial": adversarial,
        "target_entropy": by_hand.entropy(target_logits),
        "total": class_loss + 0.7 * adversarial,
    }
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)


def test_the_gradient_is_reversed_and_features_are_not() -> None:
    features = torch.tensor([1.0, 2.0], requires_grad=True)
    out = ReverseGradient.apply(features, 0.5)
    assert torch.equal(out, features)
    (out * torch.tensor([3.0, 5.0])).sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [-1.5, -2.5]


def test_the_strength_rises_from_none_to_all() -> None:
    assert ramp(0, 10) == 0
    assert ramp(5, 10) == 2 / (1 + math.exp(-5)) - 1
    assert round(ramp(10, 10), 3) == 1
