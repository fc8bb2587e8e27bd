"""Which images lie together, and what spreads among them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from uda import neighbours
from uda.neighbours import nearest, propagate, spread, standardised


def drawn(images: int, dim: int = 3) -> torch.Tensor:
    return F.normalize(torch.randn(images, dim, generator=torch.Generator().manual_seed(0)), dim=1)


def test_the_nearest_are_those_of_the_highest_cosine_and_not_the_image_itself() -> None:
    features = drawn(8)
    cosines, positions = nearest(features, torch.tensor([2, 5]), 3)
    for row, image in enumerate((2, 5)):
        others = sorted(set(range(8)) - {image}, key=lambda other: -float(features[image] @ features[other]))
        assert positions[row].tolist() == others[:3]
        assert torch.allclose(cosines[row], features[positions[row]] @ features[image])


def test_there_are_no_more_neighbours_than_other_images() -> None:
    assert nearest(drawn(4), torch.arange(4), 10)[1].shape == (4, 3)
    assert nearest(drawn(1), torch.arange(1), 10)[1].shape == (1, 0)


def test_a_single_image_is_what_is_said_of_it() -> None:
    assert propagate(torch.tensor([[0.3, 0.7]]), drawn(1)).tolist() == [pytest.approx([0.3, 0.7])]


def test_an_image_among_others_of_another_class_is_outvoted_by_them() -> None:
    features = F.normalize(torch.cat([torch.tensor([[1.0, 0, 0]]).repeat(6, 1), torch.tensor([[0.0, 1, 0]]).repeat(6, 1)]), dim=1)
    said = F.one_hot(torch.tensor([0, 0, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1]), 2).float()
    assert propagate(said, features, count=4).argmax(1).tolist() == [0] * 6 + [1] * 6


def test_blocks_of_images_are_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.rand(11, 4, generator=torch.Generator().manual_seed(1))
    whole = propagate(start, drawn(11), count=3)
    monkeypatch.setattr(neighbours, "BLOCK", 2)
    assert torch.allclose(propagate(start, drawn(11), count=3), whole)


def test_many_rounds_come_to_the_papers_limit() -> None:
    torch.manual_seed(0)
    start, nearest = torch.rand(12, 5), torch.stack([torch.randperm(12)[:3] for _ in range(12)])
    weights = torch.rand(12, 3).softmax(1)
    weighted = torch.zeros(12, 12).scatter(1, nearest, weights)
    limit = 0.2 * torch.linalg.solve(torch.eye(12) - 0.8 * weighted, start)
    assert torch.allclose(spread(start, nearest, weights, 0.8, 100), limit, atol=1e-5)
    assert torch.allclose(spread(start, nearest, weights, 0.8, 1), 0.8 * weighted @ start + 0.2 * start)


def test_standardised_features_have_no_mean_one_deviation_and_length_1() -> None:
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 9, 0.1, 2]) + 5
    scaled = (features - features.mean(0)) / features.std(0, correction=0)
    assert torch.allclose(standardised(features), scaled / scaled.norm(dim=1, keepdim=True), atol=1e-5)


def test_a_column_that_says_the_same_of_all_images_counts_nothing() -> None:
    features = torch.cat([drawn(6), torch.full((6, 1), 7.0)], 1)
    assert standardised(features)[:, 3].tolist() == [0.0] * 6
