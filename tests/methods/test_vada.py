"""VADA and DIRT-T: their steps by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, reversed_by_hand, twins
from uda.data.batches import Batch
from uda.methods.dirt_t import DIRTT
from uda.methods.vada import VADA
from uda.runtime import Runtime

WEIGHTS = {"adversarial_weight": 0.7, "source_smoothness_weight": 1.3, "target_weight": 0.4, "radius": 2.5, "hidden": 16}


def smoothness(network: nn.Module, images: Tensor) -> Tensor:
    """KL(p(x) || p(x + r)): one step of the power method, from a random direction of length 0.1, finds r of length 2.5."""

    def length(of: Tensor) -> Tensor:
        return (of**2).sum((1, 2, 3), keepdim=True).sqrt()

    log_p = by_hand.log_probabilities(network(images)).detach()
    noise = torch.randn_like(images)
    direction = (noise / length(noise)).requires_grad_()
    far = by_hand.kl(log_p, by_hand.log_probabilities(network(images + 0.1 * direction)))
    (worst,) = torch.autograd.grad(far, direction)
    return by_hand.kl(log_p, by_hand.log_probabilities(network(images + 2.5 * worst / length(worst))))


@pytest.mark.parametrize("cls", [VADA, DIRTT])
def test_a_step_by_hand(cls: type[VADA], batch: Batch, fp32: Runtime) -> None:
    """DIRT-T's first half is VADA."""
    method, twin = twins(cls, fp32, done=9, **WEIGHTS)
    network, count = twin.network, len(batch.source)
    features = network.backbone(torch.cat([batch.source, batch.target]))
    logits, target_logits = network.head(features).split([count, len(batch.target)])
    seen = features.detach().requires_grad_()
    judged = twin.discriminator(seen)
    torch.manual_seed(5)
    expected = {
        "class": by_hand.cross_entropy(logits, batch.source_labels),
        "discriminator_adversarial": by_hand.is_real(judged[:count]) + by_hand.is_fake(judged[count:]),
        "target_entropy": by_hand.entropy(target_logits),
        "source_smoothness": smoothness(network, batch.source),
        "target_smoothness": smoothness(network, batch.target),
    }
    down = expected["class"] + 1.3 * expected["source_smoothness"]
    down = down + 0.4 * expected["target_entropy"] + 0.4 * expected["target_smoothness"]
    adversarial = 0.7 * expected["discriminator_adversarial"]
    expected["total"] = down + adversarial
    strength = 2 / (1 + math.exp(-4.5)) - 1
    optimizer = adamw([*network.parameters(), *twin.discriminator.parameters()], twin.settings)
    descend(optimizer, down + reversed_by_hand(features, seen, adversarial, strength))
    follow(twin.teacher, network, remembered=10 / 19)

    torch.manual_seed(5)
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)


def test_dirt_ts_second_half_by_hand(batch: Batch, fp32: Runtime) -> None:
    """On the target alone; the discriminator rests."""
    method, twin = twins(DIRTT, fp32, done=10, teacher_weight=1.7, **WEIGHTS)
    logits = twin.network(batch.target)
    torch.manual_seed(5)
    teacher = by_hand.log_probabilities(twin.teacher(batch.target)).detach()
    entropy, smooth = by_hand.entropy(logits), smoothness(twin.network, batch.target)
    distance = by_hand.kl(teacher, by_hand.log_probabilities(logits))
    total = 0.4 * entropy + 0.4 * smooth + 1.7 * distance
    descend(adamw(twin.network.parameters(), twin.settings), total)
    follow(twin.teacher, twin.network, remembered=11 / 20)

    torch.manual_seed(5)
    values = method.step(batch)
    assert_losses(values, {"target_entropy": entropy, "target_smoothness": smooth, "teacher_distance": distance, "total": total})
    assert_same_update(method, twin)
