"""The measures of translations."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uda.data.augment import to_float
from uda.data.domain import Pair
from uda.evaluation import translation
from uda.evaluation.evaluator import predict
from uda.evaluation.translation import (
    evaluate_translation,
    frechet_distance,
    judge_translations,
    train_evaluation_classifier,
)
from uda.runtime import Runtime


def test_the_distance_of_two_normal_distributions_is_the_known_one() -> None:
    """For diagonal covariances: |m - n|^2 + sum (s - t)^2, of moments that these samples have exactly."""
    base = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    base = base / base.std(0)
    a, b = base * torch.tensor([1.0, 2.0]), base * torch.tensor([3.0, 2.0]) + torch.tensor([5.0, 0.0])
    assert frechet_distance(a, b) == pytest.approx(25 + 4, rel=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(3, 40), st.integers(1, 8))
def test_the_distance_is_symmetric_not_negative_and_zero_to_itself(seed: int, count: int, width: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    a, b = torch.randn(count, width, generator=draws), 2 * torch.randn(count + 2, width, generator=draws) + 1
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-6)
    assert frechet_distance(a, b) > 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def perfect(small_pair: Pair) -> torch.Tensor:
    """For each source test image, a target test image of its class."""
    labels, others = small_pair.source_test.sample_labels(10_000), small_pair.target_test.labels
    return small_pair.target_test.images[[int((others == label).nonzero()[0, 0]) for label in labels]]


def test_translations_of_the_right_class_are_consistent_and_near(
    small_pair: Pair, fp32: Runtime, perfect: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "STEPS", 150)
    known = replace(small_pair, target=small_pair.target_test)  # so few images teach a classifier only themselves
    found = evaluate_translation(known, lambda images: to_float(perfect), fp32)
    wrong = evaluate_translation(known, lambda images: to_float(perfect.roll(1, 0)), fp32)
    assert found["class_consistency"] > 0.9 > 0.5 > wrong["class_consistency"]
    assert found["judge_accuracy"] > 0.9
    assert found["feature_distance"] == pytest.approx(wrong["feature_distance"], rel=1e-4), "it knows of no classes"
    real = evaluate_translation(known, lambda images: to_float(small_pair.target_test.sample(10_000)), fp32)
    assert real["feature_distance"] == pytest.approx(0, abs=1e-2)
    assert real["untranslated_distance"] > 1
    assert "trained 150 steps" in found["feature_network"]


def test_without_target_labels_there_is_no_class_consistency(small_pair: Pair, fp32: Runtime) -> None:
    pair = replace(small_pair, target=small_pair.target.without_labels(), target_test=None)
    found = evaluate_translation(pair, lambda images: images, fp32)
    assert found.keys() == {"feature_distance", "untranslated_distance", "feature_network"}
    assert found["feature_distance"] == found["untranslated_distance"] > 0
    assert "random weights" in found["feature_network"]


def test_the_evaluation_repeats_and_leaves_every_random_state(small_pair: Pair, fp32: Runtime) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, second = (evaluate_translation(small_pair, lambda images: images, fp32) for _ in range(2))
    assert first == second
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_the_evaluation_classifier_learns(small_pair: Pair, fp32: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "STEPS", 40)
    network = train_evaluation_classifier(small_pair.target, fp32)
    right = predict(network, small_pair.target.images, fp32).argmax(1) == small_pair.target.labels
    assert right.float().mean() > 0.5


def test_the_source_classifier_judges_translations_both_ways(small_pair: Pair, fp32: Runtime) -> None:
    """The target is the source's negative here, so turning images into their negatives is the translation."""
    source, target = small_pair.source_test, replace(small_pair.source_test, images=255 - small_pair.source_test.images)
    pair = Pair(source, source, target, target)
    judge = train_evaluation_classifier(source, fp32)

    def judged(factor: float) -> dict[str, Any]:
        return judge_translations(pair, lambda images, *_: factor * images, judge, lambda images: images, fp32)

    good, none = judged(-1), judged(1)
    assert good["class_consistency_back"] == good["untranslated_consistency"] == none["class_consistency"]
    assert good["class_consistency"] == good["untranslated_consistency_back"] == none["class_consistency_back"]
    assert good["feature_distance"] == pytest.approx(0, abs=1e-3)
    assert none["feature_distance"] > 0.1
    assert none["feature_distance"] == pytest.approx(good["untranslated_distance"])


def test_images_without_labels_have_no_class_to_keep(small_pair: Pair, fp32: Runtime) -> None:
    pair = Pair(small_pair.source, small_pair.source_test, small_pair.target.without_labels(), None)
    judge = train_evaluation_classifier(pair.target, fp32)
    found = judge_translations(pair, lambda images, *_: images, judge, lambda images: images, fp32)
    assert "class_consistency" in found
    assert "class_consistency_back" not in found
