"""How much translations of one image differ."""

import itertools
import math
from typing import Any

import pytest
import torch

from uda.data.domain import Pair
from uda.evaluation.diversity import DRAWS, diversity, pairwise_distance
from uda.evaluation.translation import evaluate_translation, judge_by_source, train_judge
from uda.runtime import Runtime


def test_the_mean_distance_of_two_rows() -> None:
    """Of a triangle with sides of 3, 4 and 5."""
    assert pairwise_distance(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])) == pytest.approx(4)


def test_translations_of_one_image_are_compared_with_each_other_and_with_no_others() -> None:
    """Two images far apart, drawn ever brighter: by the number of the draw, and twice that."""
    images, calls = torch.tensor([10, 200], dtype=torch.uint8).view(2, 1, 1, 1), itertools.count()

    def draw(images: torch.Tensor) -> torch.Tensor:
        return images + next(calls) * torch.tensor([1, 2], dtype=torch.uint8).view(2, 1, 1, 1)

    real = torch.tensor([[0, 0], [0, 30], [40, 0]], dtype=torch.uint8).view(3, 1, 1, 2)
    found = diversity(images, real, draw, lambda part: part.flatten(1).float())
    pairs = list(itertools.combinations(range(DRAWS), 2))
    assert found["diversity"] == pytest.approx(sum(1.5 * (b - a) for a, b in pairs) / len(pairs))
    assert found["real_diversity"] == pytest.approx((30 + 40 + math.hypot(30, 40)) / 3)


@pytest.mark.parametrize("by_source", [False, True], ids=["by a judge", "by the source classifier"])
def test_both_ways_are_measured_where_translations_are_drawn(by_source: bool, small_pair: Pair, fp32: Runtime) -> None:
    judge, _ = train_judge(small_pair.target.without_labels(), small_pair.target, fp32)

    def found(drawn: float, draws: bool) -> dict[str, Any]:
        def translate(images: torch.Tensor, origin: int, destination: int) -> torch.Tensor:
            return images + drawn * (1 + destination) * torch.randn_like(images)

        if by_source:
            return judge_by_source(small_pair, translate, judge, lambda images: images, fp32, draws)
        return evaluate_translation(small_pair, translate, fp32, labelled=False, draws=draws)

    told, same, untold = found(0.1, True), found(0.0, True), found(0.1, False)
    assert told["diversity"] > told["backward"]["diversity"] > 0
    assert same["diversity"] == same["backward"]["diversity"] == 0
    assert told["real_diversity"] == same["real_diversity"] > 0
    assert "diversity" not in untold
    assert told["feature_distance"] == untold["feature_distance"]
