"""What can be told of a classifier without target labels."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uda.evaluation.outputs import Outputs
from uda.evaluation.witnesses import (
    linear_head,
    nearest_labelled,
    nearest_mean,
    neighbours_agree,
    witnesses,
)
from uda.neighbours import standardised

CLASSES = 3


def clusters(count: int, seed: int, spread: float = 0.1) -> tuple[Tensor, Tensor]:
    """Features (count, 3) round one corner for each class, and labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    return F.one_hot(labels).float() + spread * torch.randn(count, CLASSES, generator=generator), labels


def outputs(target: Tensor, logits: Tensor, source: Tensor, labels: Tensor) -> Outputs:
    return Outputs(target, logits, source, 5 * F.one_hot(labels, CLASSES).float(), labels)


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


def test_neighbours_agree_where_clusters_have_one_class_each_and_as_chance_has_it_else() -> None:
    features, labels = clusters(300, 0)
    assert neighbours_agree(F.normalize(features), labels) == 1
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert neighbours_agree(F.normalize(features), shuffled) == pytest.approx(1 / CLASSES, abs=0.05)


def test_a_classifier_that_did_not_change_agrees_with_itself_and_one_whose_classes_changed_places_does_not() -> None:
    source, labels = clusters(60, 0)
    target, truth = clusters(60, 1)
    right, swapped = (outputs(target, 9 * F.one_hot(t, CLASSES).float(), source, labels) for t in (truth, (truth + 1) % CLASSES))
    same, other = witnesses(right, right), witnesses(right, swapped)
    assert (same["agreement"], same["linear_head"], same["all_agree"]) == (1, 1, 1)
    assert (other["agreement"], other["linear_head"], other["all_agree"]) == (0, 0, 0)
    assert other["neighbours_before"] == same["neighbours_before"] == 1  # which cannot tell
    assert (same["spread"], same["spread_after"], same["own_spread"]) == (1, 1, 1)
    assert (other["spread"], other["spread_after"], other["own_spread"]) == (0, 0, 1), "its own words cannot tell, either"
    assert other["linear_head_before"] == other["mean_head_before"] == other["labelled_head_before"] == 1
    assert (same["log_classes"], same["log_images"]) == (math.log(3), math.log(60))


def test_an_image_that_each_classifier_takes_for_another_is_outvoted_by_those_near_it() -> None:
    source, labels = clusters(60, 0)
    target, truth = clusters(60, 1)
    wrong = truth.clone()
    wrong[:6] = (truth[:6] + 1) % CLASSES  # a tenth, of all classes
    right, mistaken = (outputs(target, 9 * F.one_hot(t, CLASSES).float(), source, labels) for t in (truth, wrong))
    names = ("spread", "spread_before", "spread_after", "own_spread")
    assert [witnesses(mistaken, right)[name] for name in names] == pytest.approx([1, 0.9, 1, 1])
    assert [witnesses(right, mistaken)[name] for name in names] == pytest.approx([0.9, 1, 0.9, 0.9])


@settings(max_examples=25)
@given(images=st.integers(1, 12), labelled=st.integers(3, 12), seed=st.integers(0, 99), flat=st.booleans())
def test_few_or_equal_images_give_finite_numbers(images: int, labelled: int, seed: int, flat: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(images, 4) if flat else torch.randn(images, 4, generator=generator)
    source, labels = torch.randn(labelled, 4, generator=generator), torch.arange(labelled) % CLASSES
    both = outputs(target, torch.randn(images, CLASSES, generator=generator), source, labels)
    assert all(math.isfinite(value) for value in witnesses(both, both).values())
