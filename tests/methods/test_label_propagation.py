"""Label propagation: what spreads among images that lie together, and a step by hand."""

from __future__ import annotations

import math

import torch

from tests.conftest import domain
from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, made, twins
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.label_propagation import NO_CLASS, LabelPropagation
from uda.methods.neighbours import NeighbourBank
from uda.runtime import Runtime, evaluating

SURE, DOUBTFUL = [8.0, 0, 0, 0], [0.4, 0.3, 0, 0]
TORN = [9.0, 9.0, 0, 0]
"""an entropy of half of ln 4 and a little more, but below 1"""


def two_heaps(first: list[list[float]], second: list[list[float]]) -> NeighbourBank:
    """Images in two directions, the members of each a little apart, and what the source classifier says of them."""
    angles = [*(0.01 * i for i in range(len(first))), *(1.5 + 0.01 * i for i in range(len(second)))]
    bank = NeighbourBank(2, 4)
    bank.fill([(torch.tensor([[math.cos(a), math.sin(a)] for a in angles]), torch.tensor([*first, *second]))])
    return bank


def test_an_image_is_what_those_around_it_are_whatever_the_source_classifier_says_of_it(fp32: Runtime) -> None:
    other = SURE[1:] + SURE[:1]
    bank = two_heaps([SURE, SURE, DOUBTFUL, other, SURE], [DOUBTFUL, DOUBTFUL, SURE, DOUBTFUL])
    found = made(LabelPropagation, fp32, neighbours=3).propagate(bank)
    assert found.tolist() == [0] * 5 + [NO_CLASS] * 4


def test_doubt_is_a_share_of_the_highest_entropy_and_no_class_of_its_own(fp32: Runtime) -> None:
    bank = two_heaps([TORN, TORN, TORN], [SURE, [3.4, 0, 0, 0], SURE])
    assert made(LabelPropagation, fp32, neighbours=2).propagate(bank).tolist() == [NO_CLASS] * 3 + [0] * 3
    below = two_heaps([[2.0, 0, 0, -9.0]] * 3, [SURE] * 3)  # p = 0.78, a doubt of 0.49
    assert made(LabelPropagation, fp32, neighbours=2).propagate(below).tolist() == [0] * 6


def test_it_spreads_what_the_network_says_of_the_target_in_the_targets_order(fp32: Runtime) -> None:
    target = domain("t", 24, 1).without_labels()
    method = made(LabelPropagation, fp32, target=target, alpha=0.0)
    with evaluating(method.network), torch.no_grad():
        logits = method.network(to_float(target.images))
    assert method.found.tolist() == logits.argmax(1).masked_fill(by_hand.entropies(logits) > math.log(10) / 2, NO_CLASS).tolist()


def test_a_single_image_is_what_is_said_of_it(fp32: Runtime) -> None:
    for logits, expected in (SURE, 0), (DOUBTFUL, NO_CLASS):
        assert made(LabelPropagation, fp32).propagate(two_heaps([logits], [])).tolist() == [expected]


def test_without_listening_each_image_is_what_the_source_classifier_says(fp32: Runtime) -> None:
    bank = two_heaps([SURE, SURE, DOUBTFUL], [SURE[1:] + SURE[:1], DOUBTFUL])
    found = made(LabelPropagation, fp32, neighbours=2, alpha=0.0).propagate(bank)
    assert found.tolist() == [0, 0, NO_CLASS, 3, NO_CLASS]


def test_the_very_nearest_count_most(fp32: Runtime) -> None:
    """The doubtful third lies near to two sure images, and far from three doubtful ones."""
    angles = torch.tensor([0.0, 0.05, 0.1, 1.1, 1.12, 1.14])
    bank = NeighbourBank(2, 4)
    bank.fill([(torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([SURE] * 2 + [DOUBTFUL] * 4))])
    found = [made(LabelPropagation, fp32, neighbours=5, temperature=t).propagate(bank)[2] for t in (0.03, 9.0)]
    assert found == [0, NO_CLASS]


def test_a_step_by_hand(batch: Batch, fp32: Runtime) -> None:
    """Known images learn their class, unknown ones even shares; both means are over the whole batch."""
    method, twin = twins(LabelPropagation, fp32, weight=0.7)
    found = torch.tensor([3, NO_CLASS, 0, 9, NO_CLASS, NO_CLASS, 1, 2])
    method.found[batch.target_positions] = found
    logits = twin.network(batch.target)
    log_p = by_hand.log_probabilities(logits)
    propagated = -sum(log_p[row, label] for row, label in enumerate(found.tolist()) if label != NO_CLASS) / 8
    no_class = -sum(log_p[row].sum() / 10 for row, label in enumerate(found.tolist()) if label == NO_CLASS) / 8
    class_loss = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    total = class_loss + 0.7 * (propagated + no_class)
    descend(adamw(twin.network.parameters(), twin.settings), total)
    expected = {
        "class": class_loss, "propagated_class": propagated, "no_class": no_class,
        "target_entropy": by_hand.entropy(logits), "total": total,
    }  # fmt: skip
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)
