"""Deeper into a frozen body, as long as that seems to pay."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import NETS, SHORT
from uda import UserError
from uda.console import Display
from uda.recipe.load import load_recipe
from uda.recipe.schema import Recipe
from uda.runs.run import Run
from uda.training.deeper import go_deeper
from uda.training.fit import fit, resume

FEW = {"classifier.steps": 2, "classifier.batch": 16, "training.steps": 2, "training.batch": 8, "training.evaluate_every": 2}
FROZEN = {"classifier.backbone": f"{NETS}:SmallResNet", "classifier.trainable": "head", "method.name": "im"}


@pytest.fixture
def settings(folders: Path) -> dict[str, Any]:
    short = {key: value for key, value in SHORT.items() if not key.startswith("method.")}
    images = {"data.source": str(folders / "source"), "data.target": str(folders / "target"), "data.channels": 1}
    return short | images | FEW | FROZEN


def made(recipe: Recipe, path: Path, estimated: float) -> Run:
    """Stands for a finished run."""
    result = {"estimated": {"accuracy": estimated}}
    return SimpleNamespace(recipe=recipe, path=path, result=result, classes=tuple("0123456789"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("estimates", "trained", "best"),
    [((0.6, 0.7), ["from layer2", "from layer1"], "deeper-2"), ((0.6, 0.5), ["from layer2", "from layer1"], "deeper-1"),
     ((0.4, 0.9), ["from layer2"], "run")],
)  # fmt: skip
def test_it_goes_on_as_long_as_the_estimate_grows(
    estimates: tuple[float, ...], trained: list[str], best: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    recipe = load_recipe("folders", settings | {"classifier.deeper": 2, "data.size": 16})
    asked: list[str] = []

    def begin(deeper: Recipe, out: Path) -> Run:
        asked.append(deeper.classifier.trainable)
        assert not deeper.classifier.deeper
        return made(deeper, out, estimates[len(asked) - 1])

    found = go_deeper(made(recipe, tmp_path / "run", 0.5), begin, Display(quiet=True))
    assert asked == trained
    assert found.path.name == best


def test_a_deeper_run_lies_in_the_first_one_and_is_gone_on_with(settings: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = fit("folders", out=out, device="cpu", precision="fp32", report=False, overrides=settings | {"classifier.deeper": 1})
    runs = Run(out), Run(out / "deeper-1")
    assert runs[1].recipe.classifier.trainable == "from layer2"
    assert found.path == max(runs, key=lambda run: run.result["estimated"]["accuracy"]).path
    (out / "deeper-1").rename(tmp_path / "gone")
    again = resume(out, report=False)
    assert again.path.relative_to(out) == found.path.relative_to(out)
    assert Run(out / "deeper-1").result["accuracy"] == Run(tmp_path / "gone").result["accuracy"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"classifier.trainable": "all"}, "deeper is for a frozen body"),
        ({"classifier.backbone": "strided"}, "strided has no stages"),
    ],
)
def test_what_has_no_frozen_stages_is_refused_first(
    wrong: dict[str, Any], said: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        fit("folders", out=tmp_path / "run", device="cpu", overrides=settings | {"classifier.deeper": 1} | wrong)
    assert not (tmp_path / "run").exists()
