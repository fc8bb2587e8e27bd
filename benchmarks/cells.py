"""What the benches share: one run per cell, kept in its folder, so that an interrupted bench goes on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from uda.console import Display
from uda.runs.environment import versions
from uda.runtime import choose_runtime, machine
from uda.training.fit import fit, resume


def run_cell(folder: Path, recipe: str, overrides: dict[str, Any], data_root: Path | None = None) -> dict[str, Any]:
    """The result of one run: what is there of it already, or what is there and the rest, or all of it."""
    if (folder / "recipe.toml").exists():
        return resume(folder, Display(), report=False).result
    return fit(recipe, out=folder, data_root=data_root, overrides=overrides, display=Display(), report=False).result


def where() -> str:
    """The machine and the versions, for the line under a table."""
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine()}; {choose_runtime()}; {torch.get_num_threads()} threads; {found}"
