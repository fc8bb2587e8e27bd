"""SDAT: its step by hand."""

from __future__ import annotations

import copy

import torch

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, follow, twins
from uda.data.batches import Batch
from uda.methods.cdan import CDAN
from uda.methods.sdat import SDAT
from uda.runtime import Runtime

RHO = 0.5
"""so far that the gradient there is another"""


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """The class loss's gradient is of a copy of the network that has moved up; the adversarial loss's, as in CDAN, has not."""
    method, twin = twins(SDAT, fp32, done=3, rho=RHO, adversarial_weight=0.7, hidden=16)
    losses = CDAN.losses(copy.deepcopy(twin), batch)  # the discriminator's spectral norm moves on with each reading
    own = list(twin.network.parameters())
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    up = torch.autograd.grad(class_loss, own)
    length = sum((gradient**2).sum() for gradient in up) ** 0.5
    moved = copy.deepcopy(twin.network)
    with torch.no_grad():
        for parameter, gradient in zip(moved.parameters(), up, strict=True):
            parameter.add_(RHO * gradient / length)
    flat = torch.autograd.grad(by_hand.cross_entropy(moved(batch.source), batch.source_labels), list(moved.parameters()))
    assert not torch.allclose(flat[0], up[0], rtol=0.05), "the test must tell the two places apart"

    judged = [*own, *twin.discriminator.parameters()]
    adversarial = torch.autograd.grad(0.7 * CDAN.losses(twin, batch)["discriminator_adversarial"], judged, materialize_grads=True)
    for parameter, gradient in zip(judged, adversarial, strict=True):
        parameter.grad = gradient
    for parameter, gradient in zip(own, flat, strict=True):
        parameter.grad = gradient + parameter.grad
    adamw(judged, twin.settings).step()
    follow(twin.teacher, twin.network, remembered=4 / 13)

    assert_losses(method.step(batch), losses)
    assert_same_update(method, twin)
