"""Simple heads on a classifier's features."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from uda.evaluation.heads import linear_head, nearest_labelled, nearest_mean, simple_heads
from uda.neighbours import standardised

CLASSES = 3


def clusters(count: int, seed: int, spread: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features (count, 3) round one corner for each class, and labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return F.one_hot(labels).float() + spread * torch.randn(count, CLASSES, generator=generator), labels


@pytest.mark.parametrize("head", [nearest_mean, nearest_labelled, linear_head])
def test_heads_on_source_features_read_a_target_that_only_moved(head) -> None:
    source, labels = clusters(60, 0)
    target, truth = clusters(30, 1)
    given = (standardised(source), labels, standardised(4 * target + 7))
    predicted = head(*given) if head is linear_head else head(*given, CLASSES)
    assert torch.equal(predicted, truth)


@pytest.mark.parametrize("head", [nearest_mean, nearest_labelled])
def test_no_image_gets_a_class_that_the_source_has_no_image_of(head) -> None:
    source, labels = clusters(60, 0)
    there = labels != 1
    predicted = head(standardised(source[there]), labels[there], standardised(clusters(30, 1)[0]), CLASSES)
    assert set(predicted.tolist()) == {0, 2}


def test_all_three_are_heard() -> None:
    source, labels = clusters(60, 0)
    target, truth = clusters(30, 1)
    heads = simple_heads(standardised(source), labels, standardised(target), CLASSES)
    assert len(heads) == 3
    assert all(torch.equal(head, truth) for head in heads)
