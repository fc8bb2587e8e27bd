"""The bank of neighbours: what it holds, and who is near."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.conftest import domain
from uda import UserError
from uda.data.augment import to_float
from uda.methods.neighbours import NeighbourBank, inputs_of
from uda.models.weights import load_weights

FEATURES = torch.tensor([[3.0, 0], [10, 1], [0, 2], [-1, 5], [-4, 0]])
"""by direction, each nearest to the one before or after it"""
LOGITS = torch.arange(15.0).view(5, 3) ** 2 / 50


def filled() -> NeighbourBank:
    bank = NeighbourBank(2, 3)
    bank.fill((part, logits) for part, logits in zip(FEATURES.split(2), LOGITS.split(2), strict=True))
    return bank


def probabilities(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum(-1, keepdim=True)


def test_the_nearest_by_cosine_come_first_and_an_image_is_no_neighbour_of_its_own() -> None:
    near = filled().nearest(torch.tensor([0, 3]), 2)
    assert torch.allclose(near, probabilities(LOGITS[torch.tensor([[1, 2], [2, 4]])]))


def test_all_others_are_neighbours_where_there_are_no_more() -> None:
    near = filled().nearest(torch.tensor([0]), 9)
    assert torch.allclose(near, probabilities(LOGITS[torch.tensor([[1, 2, 3, 4]])]))


def test_an_update_takes_the_place_of_what_was_at_its_positions_alone() -> None:
    bank, features, logits = filled(), torch.tensor([[0.0, -7]]), torch.tensor([[1.0, 2, 0]])
    bank.update(torch.tensor([2]), features.requires_grad_(), logits.requires_grad_())
    expected_features, expected = FEATURES.clone(), LOGITS.clone()
    expected_features[2], expected[2] = torch.tensor([0.0, -1]), logits.detach()[0]
    assert torch.allclose(bank.features, expected_features / expected_features.norm(dim=1, keepdim=True))
    assert torch.allclose(bank.probabilities, probabilities(expected))
    assert not bank.features.requires_grad


def test_an_empty_bank_takes_its_length_from_a_saved_one(tmp_path: Path) -> None:
    save_file(filled().state_dict(), tmp_path / "bank.safetensors")
    other = NeighbourBank(2, 3)
    load_weights(tmp_path / "bank.safetensors", other)
    for loaded, saved in zip(other.buffers(), filled().buffers(), strict=True):
        assert torch.equal(loaded, saved)


def test_a_bank_of_other_features_is_refused(tmp_path: Path) -> None:
    save_file(filled().state_dict(), tmp_path / "bank.safetensors")
    with pytest.raises(UserError, match=r"features is \(5, 2\), not \(0, 4\)"):
        load_weights(tmp_path / "bank.safetensors", NeighbourBank(4, 3))


def test_a_filled_bank_takes_no_other_length() -> None:
    bank, longer = filled(), NeighbourBank(2, 3)
    longer.fill([(FEATURES, LOGITS), (FEATURES, LOGITS)])
    with pytest.raises(RuntimeError, match="size mismatch"):
        bank.load_state_dict(longer.state_dict())


def test_a_domain_is_read_in_order_and_whole() -> None:
    target = domain("t", 300, 0).without_labels()
    blocks = list(inputs_of(target))
    assert [len(block) for block in blocks] == [256, 44]
    assert torch.equal(torch.cat(blocks), to_float(target.images))
