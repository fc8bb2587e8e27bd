"""AaD: its step and its bank by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.conftest import domain
from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, made, twins
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.aad import AaD
from uda.runtime import Runtime


def unit(rows: Tensor) -> Tensor:
    return rows / (rows**2).sum(1, keepdim=True).sqrt()


def test_it_begins_with_the_source_classifiers_outputs_of_all_target_images(fp32: Runtime) -> None:
    target = domain("t", 300, 1)
    method = made(AaD, fp32, target=target.without_labels())
    with torch.no_grad():
        features = method.network.backbone(to_float(target.images))
        logits = method.network.head(features)
    assert torch.allclose(method.bank.features, unit(features), atol=1e-5)
    assert torch.allclose(method.bank.probabilities, by_hand.log_probabilities(logits).exp(), atol=1e-5)


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """The batch is put into the bank first, so its images are neighbours as they are now."""
    method, twin = twins(AaD, fp32, done=4, neighbours=2, beta=1.5)
    positions = batch.target_positions.tolist()
    features = twin.network.backbone(batch.target)
    logits = twin.network.head(features)
    p = by_hand.log_probabilities(logits).exp()
    bank, predictions = twin.bank.features.clone(), twin.bank.probabilities.clone()
    bank[positions], predictions[positions] = unit(features.detach()), p.detach()
    attraction, dispersion = torch.zeros(()), torch.zeros(())
    for row, position in enumerate(positions):
        cosines = [(float(bank[position] @ other), j) for j, other in enumerate(bank) if j != position]
        nearest = [j for _, j in sorted(cosines, reverse=True)[:2]]
        attraction = attraction - sum(p[row] @ predictions[j] for j in nearest) / len(p)
        dispersion = dispersion + sum(p[row] @ p[m] for m in range(len(p)) if m != row) / len(p)
    total = attraction + (1 + 10 * 4 / 20) ** -1.5 * dispersion
    descend(adamw(twin.parameters(), twin.settings), total)
    expected = {"attraction": attraction, "dispersion": dispersion, "target_entropy": by_hand.entropy(logits), "total": total}
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
    assert torch.allclose(method.bank.features, bank, atol=1e-6)
    assert torch.allclose(method.bank.probabilities, predictions, atol=1e-6)
