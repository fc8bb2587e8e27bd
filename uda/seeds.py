"""One recipe with several seeds: run folders side by side, trained one after another."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from uda.comparing import Group, open_group
from uda.data import data_root as find_data_root
from uda.display import Display
from uda.errors import UserError
from uda.fitting import Interrupted, fit, resume
from uda.models import GIVEN_IN_PYTHON
from uda.recipe import Recipe, load_recipe
from uda.runs import RunFolder

ASKED, RECIPE = "seeds.json", "seeds.toml"


def fit_seeds(
    recipe: str | Path | Recipe,
    seeds: int,
    *,
    model: nn.Module | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    display: Display | None = None,
    overrides: dict[str, Any] | None = None,
) -> Group:
    """Runs a recipe with `seeds` seeds, from the recipe's own upwards, into ``out/seed-N``; the other arguments as in `uda.fit`.

    Raises:
        UserError: for wrong input, in one line that says what to do.
        Interrupted: after SIGINT or SIGTERM; its path is `out`, which `resume_seeds` continues.
    """
    if seeds < 1:
        raise UserError(f"--seeds {seeds} is no number of seeds; give 2 or more")
    given = {"classifier.backbone": GIVEN_IN_PYTHON, "classifier.steps": 0} if model is not None else {}
    wanted = load_recipe(recipe, {**given, **(overrides or {})})
    name = f"{wanted.name}-{wanted.method.name.rpartition(':')[2]}-{seeds}-seeds-{datetime.now():%Y%m%d-%H%M%S}"
    folder = RunFolder(Path(out) if out is not None else Path("runs") / name)
    if folder.path.exists() and any(folder.path.iterdir()):
        raise UserError(f"{folder.path} exists already; give another --out, or continue it with: uda fit --resume {folder.path}")
    folder.write_text(RECIPE, wanted.to_toml())
    root = find_data_root(Path(data_root) if data_root is not None else None).absolute()
    asked = [wanted.seed + number for number in range(seeds)]
    folder.write_json(ASKED, {"seeds": asked, "data_root": str(root), "device": device, "precision": precision})
    return resume_seeds(folder.path, display, model)


def resume_seeds(path: Path, display: Display | None = None, model: nn.Module | None = None) -> Group:
    """Runs what is left of a folder that `fit_seeds` made; what is finished stays as it is."""
    folder, display = RunFolder(path), display or Display(quiet=True)
    asked = folder.read_json(ASKED)
    for seed in asked["seeds"]:
        out = path / f"seed-{seed}"
        try:
            if (out / "recipe.toml").exists():
                resume(out, display, model)
            else:
                where = {name: asked[name] for name in ("data_root", "device", "precision")}
                recipe = load_recipe(path / RECIPE, {"seed": seed})
                if recipe.classifier.backbone == GIVEN_IN_PYTHON and model is None:
                    raise UserError("this run's network was given in Python; give it again: resume_seeds(PATH, model=network)")
                fit(recipe, model=model, out=out, display=display, **where)
        except Interrupted as stop:
            raise Interrupted(f"seed {seed}: {stop}", path) from None
    return open_group(path)
