"""What a step takes, against numbers counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import TINY
from uda import UserError
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.recipe.load import load_recipe
from uda.recipe.schema import Recipe
from uda.runs import memory
from uda.runs.build import Networks
from uda.runtime import Runtime

CPU = Runtime(torch.device("cpu"), "fp32", True, "asked for")


def network() -> Classifier:
    """1 -> 4 maps of 8 x 8, batch norm, ReLU, pooled, to 2 classes."""
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return split_network(layers, 1, 8, 2, None)


def recipe(folder: Path, **settings: Any) -> Recipe:
    (folder / "tiny.toml").write_text(TINY)
    wanted = load_recipe(folder / "tiny.toml", {key.replace("__", "."): value for key, value in settings.items()})
    return wanted.model_copy(update={"data": wanted.data.model_copy(update={"size": 8, "channels": 1})})


def test_what_is_kept_for_gradients_is_what_layers_read_again() -> None:
    image, maps, after, pooled = 64, 4 * 64, 4 * 64, 4
    kept = memory.kept_for_gradients(network(), torch.zeros(1, 1, 8, 8))
    assert image + maps + after + pooled <= kept <= image + maps + 2 * after + 2 * pooled


def test_more_images_keep_more_and_nothing_is_left_changed() -> None:
    made = network().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    one, two = (memory.kept_for_gradients(made, torch.rand(count, 1, 8, 8)) for count in (1, 2))
    assert 1.9 * one < two <= 2 * one
    assert made.training
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("free", [10_000, 30_000])
def test_a_step_without_room_is_refused(free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first amount holds no batch of images; the second one does, and not what the network keeps of it."""
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    wanted = recipe(tmp_path, classifier__batch=8, training__batch=8)
    with pytest.raises(UserError, match=r"takes at least .* are free; lower training\.batch"):
        memory.check_memory(wanted, Networks(None, network()), CPU)


def test_bf16_keeps_half_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe(tmp_path, classifier__batch=8, training__batch=1000)
    needed = 2000 * 64 * memory.BATCH + 1000 * 3 * memory.kept_for_gradients(network(), torch.zeros(1, 1, 8, 8))
    monkeypatch.setattr(memory, "free_memory", lambda device: needed)
    memory.check_memory(wanted, Networks(None, network()), Runtime(torch.device("cpu"), "bf16", True, "asked for"))
    with pytest.raises(UserError):
        memory.check_memory(wanted, Networks(None, network()), CPU)
