"""MCD: its three steps by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, made, twins, weights
from uda.data.batches import Batch
from uda.methods.mcd import MCD
from uda.runtime import Runtime


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """A moves all, B the heads alone, C (twice) the backbone alone; all under one optimiser."""
    method, twin = twins(MCD, fp32, done=4, generator_steps=2, discrepancy_weight=1.7, warm_up=0.2, learning_rate=1e-2)
    backbone, first, second = twin.network.backbone, twin.network.head, twin.second_head

    def class_loss() -> Tensor:
        features = backbone(batch.source)
        return sum(by_hand.cross_entropy(head(features), batch.source_labels) for head in (first, second))

    def discrepancy() -> Tensor:
        features = backbone(batch.target)
        p_1, p_2 = (by_hand.log_probabilities(head(features)).exp() for head in (first, second))
        return (p_1 - p_2).abs().sum() / (len(features) * 10)

    optimizer = adamw(twin.parameters(), twin.settings)
    of_a = class_loss()
    descend(optimizer, of_a)
    of_b = discrepancy()
    descend(optimizer, class_loss() - 1.7 * of_b, only=[*first.parameters(), *second.parameters()])
    for _ in range(2):
        of_c = discrepancy()
        descend(optimizer, 1.7 * of_c, only=backbone.parameters())

    assert_losses(method.step(batch), {"class": of_a, "head_discrepancy": of_b, "discrepancy": of_c})
    assert_same_update(method, twin)


def test_the_first_steps_are_a_alone(batch: Batch, fp32: Runtime) -> None:
    """Until the second head knows the classes, nothing follows it."""
    method, twin = twins(MCD, fp32, done=3, warm_up=0.2)
    head, second = twin.network.head, twin.second_head
    features = twin.network.backbone(batch.source)
    loss = sum(by_hand.cross_entropy(each(features), batch.source_labels) for each in (head, second))
    descend(adamw(twin.parameters(), twin.settings), loss)
    assert_losses(method.step(batch), {"class": loss})
    assert_same_update(method, twin)


def test_heads_part_and_the_backbone_brings_them_together(batch: Batch, fp32: Runtime) -> None:
    method = made(MCD, fp32, warm_up=0.0, generator_steps=8, learning_rate=0.01)
    values = [method.step(batch) for _ in range(3)]
    assert all(each["discrepancy"] < each["head_discrepancy"] for each in values)


def test_what_classifies_is_the_mean_of_both_heads(batch: Batch, fp32: Runtime) -> None:
    method = made(MCD, fp32)
    assert not torch.equal(weights(method.network.head), weights(method.second_head)), "the second is drawn afresh"
    features = method.network.backbone(batch.target)
    mean = 0.5 * method.network.head(features) + 0.5 * method.second_head(features)
    assert torch.allclose(method.classifier()(batch.target), mean, atol=1e-6)
