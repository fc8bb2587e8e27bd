"""One recipe with several seeds: run folders side by side, trained one after another."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from uda import ranks
from uda.console import Display
from uda.data.names import data_roots, join_roots
from uda.errors import UserError
from uda.recipe.load import load_recipe, resolve
from uda.recipe.schema import Recipe
from uda.report.compare import Group, open_group, seed_folders
from uda.runs.folder import RUN, SEEDS, Asked, agree, default_path, open_folder, shared_folder
from uda.runs.run import Run
from uda.training.fit import asked_for, check_outside, fit, resume
from uda.training.loop import Interrupted, Observer, resumable
from uda.training.trackers import check_trackers

MOST = 1000
"""seeds in one folder: more are a slip of the hand"""


def fit_seeds(
    recipe: str | Path | Recipe,
    seeds: int,
    *,
    model: nn.Module | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    cache: bool = True,
    track: Sequence[str] = (),
    display: Display | None = None,
    observers: Sequence[Observer] = (),
    overrides: dict[str, Any] | None = None,
) -> Group:
    """Runs a recipe with `seeds` seeds, from the recipe's own upwards, into ``out/seed-N``; the other arguments as in `uda.fit`.

    Raises:
        UserError: for wrong input, in one line that says what to do.
        Interrupted: after SIGINT or SIGTERM; its path is `out`, which `resume_seeds` continues.
    """
    check_seeds(seeds)
    check_trackers(track)
    wanted = asked_for(recipe, model, overrides or {}, display or Display(quiet=True))
    if not wanted.classifies:
        raise UserError(f"{wanted.method.name} has no accuracy to compare over seeds; run it once, with --seed")
    ranks.join()
    path = ranks.agreed(Path(out) if out is not None else default_path(wanted, f"{seeds}-seeds"))
    asked = [wanted.seed + number for number in range(seeds)]
    resolve(wanted, {"seed": asked[-1]})  # which may be too large
    where = {
        "data_root": join_roots(data_roots(data_root)),
        "device": device,
        "precision": precision,
        "cache": cache,
        "track": list(track),
    }
    check_outside(path, wanted)
    there = path.exists()
    folder = shared_folder(path, wanted, {"seeds": asked, **where}, SEEDS, out is not None)
    path = folder.path
    try:
        return resume_seeds(path, display, model, observers)
    except UserError:
        begun = any(folder.exists() for folder in seed_folders(path))
        if ranks.first() and not begun:  # refused before the first run began: nothing is left behind
            folder.remove() if there else shutil.rmtree(path)
        raise


def check_seeds(seeds: int) -> None:
    """Raises a UserError where a run cannot be made of so many seeds."""
    if not 1 <= seeds <= MOST:
        raise UserError(f"--seeds {seeds}: give the number of seeds, 1 to {MOST:,}")


def resume_seeds(
    path: Path,
    display: Display | None = None,
    model: nn.Module | None = None,
    observers: Sequence[Observer] = (),
    trust: bool = False,
) -> Group:
    """Runs what is left of a folder that `fit_seeds` made; what is finished stays as it is."""
    ranks.join()
    with resumable(path):
        folder, display = open_folder(path, SEEDS, trust), display or Display(quiet=True)
        agree(path / SEEDS[0], trust)
        asked = folder.read_asked()
        with folder.locked():
            for seed in asked.seeds:
                try:
                    run_seed(path, seed, asked, display, model, observers, trust)
                except Interrupted as stop:
                    raise Interrupted(f"seed {seed}: {stop}", path, stop.terminated) from None
        return open_group(path)


def run_seed(
    path: Path,
    seed: int,
    asked: Asked,
    display: Display | None = None,
    model: nn.Module | None = None,
    observers: Sequence[Observer] = (),
    trust: bool = False,
    report: bool = True,
) -> Run:
    """Begins or continues one run of a folder of seeds, which was begun with what is `asked`; a finished one stays as it is."""
    out = path / f"seed-{seed}"
    if ranks.agreed(all((out / name).exists() for name in RUN)):
        return resume(out, display, model, report=report, observers=observers, trust=trust)
    where = asked.model_dump(include={"data_root", "device", "precision", "cache", "track"})
    recipe = load_recipe(path / SEEDS[0], {"seed": seed})
    return fit(recipe, model=model, out=out, display=display, report=report, observers=observers, **where)
