"""What the benches share: one run per cell, kept in its folder, so that an interrupted bench goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from uda.console import Display
from uda.evaluation.results import Result
from uda.recipe.load import flatten, resolve
from uda.runs.environment import versions
from uda.runs.folder import RunFolder
from uda.runtime import choose_runtime, machine
from uda.training.fit import fit, resume


def run_cell(folder: Path, recipe: str, overrides: dict[str, Any], data_root: Path | None = None) -> Result:
    """The result of one run: what is there of it already, or what is there and the rest, or all of it.

    Ends the bench where the run that is there had other settings, but for those left open, and for the source classifier's file,
    which cells give each other as they come.
    """
    if (folder / "recipe.toml").exists():
        there, asked = (flatten(each.model_dump()) for each in (RunFolder.open(folder).recipe, resolve(recipe, overrides).recipe))
        told = {key: value for key, value in asked.items() if value is not None and key != "classifier.weights"}
        if others := [key for key, value in told.items() if there.get(key) != value]:
            raise SystemExit(f"{folder} was run with another {', '.join(others[:3])}; give another --out, or delete it")
        return resume(folder, Display(), report=False).result
    return fit(recipe, out=folder, data_root=data_root, overrides=overrides, display=Display(), report=False).result


def accuracy_of(result: Result, name: str) -> float:
    """An accuracy of a run whose target has labelled test images."""
    accuracy = result["accuracy"][name]
    assert accuracy is not None
    return accuracy


def where() -> str:
    """The machine and the versions, for the line under a table."""
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine()}; {choose_runtime()}; {torch.get_num_threads()} threads; {found}"
