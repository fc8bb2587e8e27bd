"""Boosted trees, kept as tensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from uda.evaluation.trees import FILE, OUTCOMES, Trees, shipped
from uda.evaluation.witnesses import COLUMNS, OF_RUN


def stumps() -> Trees:
    """One tree an outcome: the first asks whether x_1 <= 0.5, and below that x_0 <= 2; the second is a leaf."""
    return Trees(
        feature=torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.int16),
        threshold=torch.tensor([[0.5, 2, 0, 0, 0], [0, 0, 0, 0, 0]]),
        left=torch.tensor([[1, 3, 2, 3, 4], [0, 0, 0, 0, 0]], dtype=torch.int16),
        right=torch.tensor([[2, 4, 2, 3, 4], [0, 0, 0, 0, 0]], dtype=torch.int16),
        value=torch.tensor([[0, 0, 5.0, 1, -1], [0.5, 0, 0, 0, 0]]),
        start=torch.tensor([0.0, 1.0]),
        depth=torch.tensor([2], dtype=torch.int16),
    )


def test_each_row_goes_down_to_its_leaf_and_outcomes_add_up() -> None:
    rows = torch.tensor([[9.0, 0.6], [2.0, 0.5], [2.1, 0.5]])
    logits = torch.tensor([[5.0, 1.5], [1, 1.5], [-1, 1.5]])
    assert torch.allclose(stumps()(rows), logits.softmax(1))


def test_trees_are_what_was_saved(tmp_path: Path) -> None:
    trees = stumps()
    trees.save(tmp_path / "trees.safetensors")
    rows = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Trees(**load_file(tmp_path / "trees.safetensors"))(rows), trees(rows))


def test_the_shipped_ones_read_what_is_told_of_an_image_and_of_its_run() -> None:
    trees, width = shipped(), len(COLUMNS) + len(OF_RUN)
    assert int(trees.feature.max()) < width
    assert len(trees.start) == OUTCOMES
    told = trees(torch.randn(5, width, generator=torch.Generator().manual_seed(0)))
    assert told.shape == (5, OUTCOMES)
    assert told.sum(1).tolist() == pytest.approx([1] * 5)
    assert FILE.stat().st_size < 100_000
