"""What a sweep is to run: a TOML file of lists, and the combinations that it stands for."""

from __future__ import annotations

import itertools
import math
import os
import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from uda.errors import UserError
from uda.plugins import anchored
from uda.recipe import presets
from uda.recipe.load import flatten, resolve
from uda.recipe.schema import Recipe
from uda.runs.folder import title
from uda.types import Section

BACKBONE = "classifier.backbone"
MOST = 100_000
"""combinations in a spec"""
LONGEST = 200
"""bytes of a folder's name"""


class SweepSpec(Section):
    """The contents of such a file: the product of its lists is what there is to run."""

    recipes: tuple[str, ...] = Field(min_length=1)
    """names from `uda recipes`, or .toml files"""
    methods: tuple[str, ...] = ()
    """names from `uda methods`; left out: each recipe's own"""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63 - 1)], ...] = Field(default=(0,), min_length=1)
    """each combination runs once with each"""
    settings: dict[str, list[Any]] = Field(default={})
    """a list of values for each dotted key, such as ``"method.learning_rate" = [0.001, 0.01]``"""
    search: Literal["grid", "random", "halving"] = "grid"
    """grid: every combination; random: `trials` of them; halving: all begin, and those that the label-free score puts last stop
    early"""
    trials: PositiveInt | None = None
    """of a random search: so many combinations, each with every seed"""
    keep: Annotated[int, Field(ge=2)] = 3
    """of halving: one in so many goes on at each stop"""
    reports: bool = True
    """whether each run folder gets its report.html, which takes some seconds; ``uda report`` makes it later"""
    cpus: PositiveInt = 1
    """cores of one trial, and its threads"""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """its share of a GPU; left out: one, where there is any"""

    @field_validator("settings", mode="before")
    @classmethod
    def _flat(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        return {key: values for key, values in flatten(given).items() if values != {}}  # an empty table asks for nothing

    @model_validator(mode="after")
    def _agree(self) -> SweepSpec:
        if (self.search == "random") != (self.trials is not None):
            raise ValueError('trials = N goes with search = "random"; give both or neither')
        for key, values in {"recipes": self.recipes, "methods": self.methods, "seeds": self.seeds, **self.settings}.items():
            alike = {value if type(value) in (int, float) else repr(value) for value in values}  # 4 and 4.0 are
            if len(alike) < len(values):
                raise ValueError(f"{key} names a value twice; name each once")
            if key in self.settings and not values:
                raise ValueError(f"{key} has no values; give a list of some")
            if key in ("seed", "method.name"):
                raise ValueError(f"{key} has a list of its own; write it under {'seeds' if key == 'seed' else 'methods'}")
        return self


@dataclass(frozen=True, eq=False)
class Combination:
    """A recipe, a method and settings: what runs once with each seed.

    Attributes:
        name: of its folder.
        recipe: resolved, with seed 0.
        values: what the spec says of it, by dotted key.
    """

    name: str
    recipe: Recipe
    values: dict[str, Any]


def read_spec(path: Path) -> SweepSpec:
    """A spec from its file.

    Raises:
        UserError: for a file that is no spec, in one line that says what to write.
    """
    if not path.is_file():
        raise UserError(f"no spec {path}; give a .toml file with recipes, methods, seeds and [settings]")
    try:
        return _beside(path.parent, SweepSpec.model_validate(presets.read(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise UserError.unknown("key", where, SweepSpec.model_fields, "keys of recipes under [settings].") from None
        if first["loc"][:1] == ("settings",) and first["type"] == "list_type":
            raise UserError(f"{path}: {where} is {first['input']!r}; give a list of values: [{first['input']!r}]") from None
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where + ': ' if where else ''}{what[0].lower()}{what[1:]}") from None


def _beside(folder: Path, spec: SweepSpec) -> SweepSpec:
    """The spec with the code that it names, FILE.py:NAME, looked for beside it, whichever folder a node works in."""
    backbones = [anchored(str(name), folder) for name in spec.settings.get(BACKBONE, ())]
    settings = {**spec.settings, BACKBONE: backbones} if backbones else spec.settings
    methods = tuple(anchored(name, folder) for name in spec.methods)
    return spec.model_copy(update={"methods": methods, "settings": settings})


def combinations(spec: SweepSpec) -> list[Combination]:
    """All that a spec stands for, in its order; of a random search, always the same ones.

    Raises:
        UserError: for the first that cannot run.
    """
    keys, lists = list(spec.settings), list(spec.settings.values())
    if (count := math.prod(map(len, (spec.recipes, spec.methods or (None,), *lists)))) > MOST:
        raise UserError(f"the spec stands for {count:,} combinations, of which {MOST:,} are too many to list; give shorter lists")
    product = list(itertools.product(spec.recipes, spec.methods or (None,), *lists))
    if spec.trials is not None and spec.trials < len(product):
        chosen = set(random.Random(0).sample(range(len(product)), spec.trials))
        product = [one for number, one in enumerate(product) if number in chosen]
    found = [_combine(recipe, method, dict(zip(keys, values, strict=True))) for recipe, method, *values in product]
    names = [one.name for one in found]
    if long := [name for name in names if len(os.fsencode(name)) > LONGEST]:
        raise UserError(f"the folder {long[0][:60]}... would have a name of more than {LONGEST} bytes; set fewer keys at once")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two combinations would share the folder {twice[0]}; give one of their recipes another name")
    if spec.search == "halving":
        _check_scores(found)
    _check_stops(found, stops(spec, found))
    return found


def _combine(recipe: str, method: str | None, values: dict[str, Any]) -> Combination:
    said = {"method.name": method} if method is not None else {}
    try:
        resolved = resolve(recipe, {**said, **values, "seed": 0}).recipe
        if not resolved.classifies:
            raise UserError(f"{resolved.method.name} has no accuracy to compare; run it once, with uda fit")
    except UserError as error:
        told = ", ".join(f"{key} = {value!r}" for key, value in values.items())
        raise UserError(f"{recipe}{f' with {method}' if method else ''}{f' and {told}' if told else ''}: {error}") from error
    last = [key.rpartition(".")[2] for key in values]
    short = last if len(set(last)) == len(last) else list(values)
    name = "-".join([title(resolved), *(f"{key}={_plain(value)}" for key, value in zip(short, values.values(), strict=True))])
    return Combination(name, resolved, values)


def _plain(value: object) -> str:
    """A value as part of a folder's name."""
    text = "+".join(map(_plain, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^\w.+=-]", "_", text)[-60:]


def _check_scores(found: list[Combination]) -> None:
    """Halving ranks all combinations of a recipe by the same scores."""
    by_recipe: dict[str, tuple[str, ...]] = {}
    for one in found:
        scores = one.recipe.selection.score
        if by_recipe.setdefault(problem(one.recipe), scores) != scores:
            raise UserError(
                f"{one.name} selects by another score than the others; halving needs the same selection.score for all"
            )


def stops(spec: SweepSpec, found: list[Combination]) -> list[int]:
    """The steps at which halving ranks what is left: steps/keep^R, .., steps/keep, as many as there are combinations for."""
    if spec.search != "halving":
        return []
    steps = min(one.recipe.training.steps for one in found)
    most = max(Counter(problem(one.recipe) for one in found).values())
    return [max(1, steps // spec.keep**rung) for rung in range(int(math.log(most, spec.keep) + 1e-9), 0, -1)]


def _check_stops(found: list[Combination], at: list[int]) -> None:
    """Between two stops there is an evaluation, by which those that are left are ranked anew."""
    for one in found if at else ():
        if (every := one.recipe.training.evaluate_every) > at[0]:
            raise UserError(
                f"{one.name} is evaluated every {every} steps, and halving stops at {', '.join(map(str, at))}; set "
                f"training.evaluate_every to {at[0]} or less, or raise training.steps"
            )


def problem(recipe: Recipe) -> str:
    """What tells one adaptation problem from another: trials of the same one are ranked and compared."""
    return f"{recipe.data.source} to {recipe.data.target}"
