"""Every shipped recipe goes through the command line once, on drawn images in its own data sets' form, with steps to count."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import NETS, domain, write_folder
from tests.models.nets import SmallResNet
from uda.cli import main
from uda.data.datasets.digits import NAMES
from uda.data.datasets.synthetic import draw_street_digits
from uda.recipe import presets
from uda.recipe.load import load_recipe

PHOTOGRAPHS = {"office31": ("amazon", "webcam"), "pacs": ("photo", "art_painting")}
FEW = {
    "training.steps": 1, "training.batch": 4, "training.target_batch": 4, "training.log_every": 1, "training.evaluate_every": 1,
    "data.size": 16,
}  # fmt: skip
SMALL = {
    "unit": {"method.width": 4, "method.code_dim": 8},
    "unit_translation": {"method.width": 4, "method.discriminator_depth": 2},
    "drit": {"method.width": 4, "method.discriminator_scales": 1},
    "cogan": {"method.width": 4},
}
"""of networks that are made by the method"""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All data sets of the recipes, as they lie below --data-root; a user's own ``source``, ``target`` and ``net.pt``."""
    root = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate((*NAMES, "mnist-m")):
        for split in ("train", "test"):
            images, labels = draw_street_digits(40, seed)
            np.savez(root / f"{name}_{split}.npz", images=images.permute(0, 2, 3, 1), labels=labels, note="drawn for a test")
    drawn = domain("drawn", 96, 0)
    few = drawn.only(torch.cat([(drawn.labels == number).nonzero()[:2, 0] for number in range(10)]))
    for folder in ("source", *(f"{name}/{place}" for name, places in PHOTOGRAPHS.items() for place in places)):
        write_folder(few, root / folder, True)
    write_folder(few, root / "target", False)
    torch.save(SmallResNet().state_dict(), root / "net.pt")
    return root


def settings(name: str, sets: Path) -> dict[str, object]:
    """What makes a recipe small, by the keys of it that there are."""
    recipe = load_recipe(name, {"data.source": "./a", "data.target": "./b"} if given(name) else None)
    small = FEW | SMALL.get(recipe.method.name, {})
    if recipe.classifies:
        small |= {"classifier.steps": 1, "classifier.batch": 16}
    if recipe.classifier.freezes and recipe.method.name == "unit":
        small |= {"data.drawn_size": 12, "data.drawn_read_size": 16, "method.drawn_batch": 2}
    if recipe.classifier.freezes:
        small |= {
            "classifier.backbone": f"{NETS}:SmallResNet",
            "classifier.backbone_weights": str(sets / "net.pt"),
            "classifier.bottleneck": 8,
            "data.channels": 1,
        }
    elif recipe.classifier.width is not None:
        small |= {"classifier.width": 8}
    return small


def given(name: str) -> bool:
    """Whether the user says where the images are."""
    return not any("source" in tables.get("data", {}) for _, tables in presets.read_all(presets.find(name)))


@pytest.mark.parametrize("name", presets.names())
def test_a_shipped_recipe_ends_in_a_result(name: str, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "fit",
        "--recipe",
        name,
        "--out",
        str(tmp_path / "run"),
        "--data-root",
        str(sets),
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    if given(name):
        words += ["--source", str(sets / "source"), "--target", str(sets / "target")]
    for key, value in settings(name, sets).items():
        words += ["--set", f"{key}={value}"]
    monkeypatch.setattr(sys, "argv", ["uda", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["recipe"], result["steps"]) == (name, 1)
