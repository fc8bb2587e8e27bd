"""Supervised contrast: its step by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, twins
from uda.data.batches import Batch
from uda.methods.supcon import SupCon
from uda.runtime import Runtime

CONFIDENCE = 0.168


def contrast_of(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Khosla et al. 2020, eq. 2: a mean over all that have another of their class."""
    features = features / (features**2).sum(1, keepdim=True).sqrt()
    losses = []
    for i in range(len(features)):
        others = [j for j in range(len(features)) if j != i]
        similar = {j: features[i] @ features[j] / temperature for j in others}
        log_all = torch.stack(list(similar.values())).exp().sum().log()
        positives = [j for j in others if labels[j] == labels[i]]
        if positives:
            losses.append(-sum(similar[j] - log_all for j in positives) / len(positives))
    return torch.stack(losses).mean()


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    weights = {"contrast_weight": 0.7, "pseudo_label_weight": 1.3, "balance_weight": 0.4}
    method, twin = twins(SupCon, fp32, confidence=CONFIDENCE, temperature=0.3, **weights)
    method.target_shares = by_hand.SHARES
    source, target = twin.network.backbone(batch.source), twin.network.backbone(batch.target)
    logits, target_logits = twin.network.head(source), twin.network.head(target)
    teacher_logits = twin.teacher(batch.target_weak).detach()
    sure, label = by_hand.log_probabilities(teacher_logits).exp().max(1)
    kept = sure > CONFIDENCE
    class_loss = by_hand.cross_entropy(logits, batch.source_labels)
    contrast = contrast_of(torch.cat([source, target[kept]]), torch.cat([batch.source_labels, label[kept]]), 0.3)
    pseudo_label = by_hand.sure_cross_entropy(target_logits, teacher_logits, CONFIDENCE)
    marginal_entropy = by_hand.marginal_entropy(target_logits, by_hand.SHARES)
    total = class_loss + 0.7 * contrast + 1.3 * pseudo_label - 0.4 * marginal_entropy
    descend(adamw(twin.network.parameters(), twin.settings), total)
    follow(twin.teacher, twin.network)
    expected = {
        "class": class_loss, "contrast": contrast, "pseudo_label": pseudo_label,
        "target_entropy": by_hand.entropy(target_logits), "target_marginal_entropy": marginal_entropy, "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
