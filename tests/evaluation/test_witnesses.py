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
    COLUMNS,
    OF_CLASS,
    all_agree,
    evidence,
    likely,
    linear_head,
    nearest_labelled,
    nearest_mean,
    votes_of_near,
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


def test_an_image_that_is_like_no_labelled_one_gets_a_class_that_the_source_has() -> None:
    labels = torch.arange(60) % 2 + 1
    assert set(nearest_labelled(torch.zeros(60, 3), labels, torch.zeros(5, 3), CLASSES).tolist()) <= {1, 2}


def test_near_images_vote_for_the_class_of_their_cluster_and_as_chance_has_it_where_classes_are_shuffled() -> None:
    features, labels = clusters(300, 0)
    votes = votes_of_near(F.normalize(features), F.one_hot(labels).float())
    assert torch.equal(votes, F.one_hot(labels).float())
    shuffled = labels[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    votes = votes_of_near(F.normalize(features), F.one_hot(shuffled).float())
    assert votes.gather(1, shuffled[:, None]).mean().item() == pytest.approx(1 / CLASSES, abs=0.05)


def of(table: Tensor, name: str) -> Tensor:
    """A column of evidence."""
    return table[:, COLUMNS.index(name)]


def test_what_is_told_of_a_class_is_of_the_class_that_each_classifier_gives() -> None:
    """The adapted classifier's classes have changed places."""
    source, labels = clusters(60, 0)
    target, truth = clusters(60, 1)
    right, swapped = (outputs(target, 9 * F.one_hot(t, CLASSES).float(), source, labels) for t in (truth, (truth + 1) % CLASSES))
    same, other = evidence(right, right), evidence(right, swapped)
    assert same.shape == (60, len(COLUMNS))
    assert torch.equal(same[:, : len(OF_CLASS)], same[:, len(OF_CLASS) : 2 * len(OF_CLASS)]), "both give one class"
    heads = ("mean_head", "labelled_head", "linear_head")
    assert all(of(same, f"{head}_after").all() for head in heads)
    assert all(of(other, f"{head}_before").all() and not of(other, f"{head}_after").any() for head in heads)
    assert (of(other, "spread_after") < 0).all(), "near images say another class"
    assert (of(other, "own_spread_after") > 0).all(), "its own words cannot tell"
    assert (all_agree(same), all_agree(other)) == (1, 0)


def test_an_image_that_a_classifier_takes_for_another_is_outvoted_by_those_near_it() -> None:
    source, labels = clusters(60, 0)
    target, truth = clusters(60, 1)
    wrong = truth.clone()
    wrong[:6] = (truth[:6] + 1) % CLASSES  # a tenth, of all classes
    right, mistaken = (outputs(target, 9 * F.one_hot(t, CLASSES).float(), source, labels) for t in (truth, wrong))
    found = evidence(mistaken, right)
    assert torch.equal(of(found, "spread_after") > 0, torch.ones(60, dtype=torch.bool))
    assert torch.equal(of(found, "spread_before") > 0, wrong == truth)


def test_an_accuracy_is_likely_by_how_many_images_are() -> None:
    """Where both classifiers give one class, both are right or neither is, whatever trees say of the source classifier alone."""
    images = torch.zeros(2, len(COLUMNS))
    images[0, COLUMNS.index("agreement")] = 1
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2]])
    assert likely(probabilities, images) == pytest.approx(((0.8 + 0.3) / 2, (0.8 + 0.5) / 2))


def test_a_run_whose_images_the_heads_contradict_is_less_likely_right() -> None:
    source, labels = clusters(300, 0)
    target, truth = clusters(300, 1)
    right, wrong = (outputs(target, 9 * F.one_hot(t, CLASSES).float(), source, labels) for t in (truth, (truth + 1) % CLASSES))
    good, bad = witnesses(right, right), witnesses(right, wrong)
    assert good["likely_after"] == good["likely_before"] > 0.8
    assert bad["likely_after"] < 0.4 < bad["likely_before"]
    assert (good["log_classes"], good["log_images"]) == pytest.approx((math.log(3), math.log(300)))


@settings(max_examples=25)
@given(images=st.integers(1, 12), labelled=st.integers(3, 12), seed=st.integers(0, 99), flat=st.booleans())
def test_few_or_equal_images_give_finite_numbers(images: int, labelled: int, seed: int, flat: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros(images, 4) if flat else torch.randn(images, 4, generator=generator)
    source, labels = torch.randn(labelled, 4, generator=generator), torch.arange(labelled) % CLASSES
    both = outputs(target, torch.randn(images, CLASSES, generator=generator), source, labels)
    found = witnesses(both, both)
    assert all(math.isfinite(value) for value in found.values())
    assert 0 <= found["likely_after"] == found["likely_before"] <= 1
