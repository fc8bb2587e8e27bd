"""CDAN: its step by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, reversed_by_hand, twins
from uda.data.batches import Batch
from uda.methods.cdan import CDAN
from uda.runtime import Runtime


def joint(method: CDAN, features: Tensor, p: Tensor) -> Tensor:
    """f (x) p: every feature times every probability; or the product of a projection of each, over the root of their length."""
    if not method.product.randomized:
        return torch.stack([torch.outer(f, q).flatten() for f, q in zip(features, p, strict=True)])
    return (features @ method.product.of_features) * (p @ method.product.of_classes) / math.sqrt(1024)


@pytest.mark.parametrize("largest_product", [4096, 100], ids=["product", "projections"])
@pytest.mark.parametrize("conditioning", [True, False], ids=["entropy conditioning", "plain"])
def test_a_step_by_hand(conditioning: bool, largest_product: int, batch: Batch, fp32: Runtime) -> None:
    """With entropy conditioning an image counts by w = 1 + exp(-H), as a share of its domain's."""
    settings = {"entropy_conditioning": conditioning, "largest_product": largest_product, "hidden": 16}
    method, twin = twins(CDAN, fp32, done=3, adversarial_weight=0.7, **settings)
    assert twin.product.randomized == (largest_product == 100)
    count = len(batch.source)
    features = twin.network.backbone(torch.cat([batch.source, batch.target]))
    logits = twin.network.head(features)
    p = by_hand.log_probabilities(logits).exp().detach()
    seen = features.detach().requires_grad_()
    d = torch.sigmoid(twin.discriminator(joint(twin, seen, p)))[:, 0]
    w = 1 + torch.exp(-by_hand.entropies(logits.detach())) if conditioning else torch.ones(len(d))
    source, target = slice(None, count), slice(count, None)
    adversarial = -(w * d.log())[source].sum() / w[source].sum() - (w * (1 - d).log())[target].sum() / w[target].sum()
    class_loss = by_hand.cross_entropy(logits[source], batch.source_labels)

    strength = 2 / (1 + math.exp(-1.5)) - 1
    down = class_loss + reversed_by_hand(features, seen, 0.7 * adversarial, strength)
    descend(adamw([*twin.network.parameters(), *twin.discriminator.parameters()], twin.settings), down)
    follow(twin.teacher, twin.network, remembered=4 / 13)

    expected = {
        "class": class_loss,
        "discriminator_adversarial": adversarial,
        "target_entropy": by_hand.entropy(logits[target]),
        "total": class_loss + 0.7 * adversarial,
    }
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
