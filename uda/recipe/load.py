"""Reading recipes: from TOML, every key overridable, unknown keys refused with the nearest right one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ValidationError,
)

from uda.errors import UserError
from uda.evaluation.selection import OF_SOURCE
from uda.methods import find_method
from uda.recipe import presets
from uda.recipe.schema import Recipe


def load_recipe(recipe: str | Path | Recipe, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name, path or object, with dotted overrides such as ``{"method.feature_norm": "l2", "seed": 1}``.

    An override of ``method.name`` leaves the recipe's own method behind: its settings, its steps and its batches. The tables that
    the recipe has for the new one, under ``[methods.NAME.method]`` or ``[methods.NAME.augment.target]``, then count.

    Raises:
        UserError: for an unknown recipe, key or method, or a value of the wrong kind.
    """
    if isinstance(recipe, Recipe):
        tables = recipe.model_dump()
    else:
        path = presets.find(str(recipe))
        tables = {"name": path.stem, **presets.read(path)}
    overrides = dict(overrides or {})
    others = tables.pop("methods", {})
    for name, changes in others.items():
        _refuse_unknown(changes, Recipe, f"methods.{name}.")
        _refuse_unknown(changes.get("method", {}), find_method(name).Settings, f"methods.{name}.method.")
    method = tables.get("method")
    if isinstance(method, dict) and overrides.get("method.name", method.get("name")) != method.get("name"):
        # Another method's settings mean nothing to this one, and it takes other steps.
        name = str(overrides["method.name"])
        tables["method"] = {}
        tables["training"] = {**tables.get("training", {}), **find_method(name).default_training.model_dump()}
        tables = _merged(tables, others.get(name, {}))
    if "classifier.backbone" in overrides:
        tables.get("classifier", {}).pop("width", None)  # nor does the width of another network
    for key, value in overrides.items():
        *parents, last = key.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UserError(f"unknown setting {key!r}; {parent!r} is a value, not a table")
        table[last] = value
    return _validate(tables)


def _merged(tables: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tables` with the values of `changes`, table by table."""
    merged = dict(tables)
    for key, value in changes.items():
        merged[key] = _merged(merged.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def parse_override(text: str) -> tuple[str, Any]:
    """``"method.feature_norm=l2"`` to a key and a value: numbers, true/false and lists as in TOML, anything else a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r} is not KEY=VALUE; write for example --set method.feature_norm=l2")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _validate(tables: dict[str, Any]) -> Recipe:
    _refuse_unknown(tables, Recipe, "")
    method = tables.get("method")
    if not isinstance(method, dict) or "name" not in method:
        raise UserError('the recipe has no table [method] with a name; add: [method] name = "unit"')
    _refuse_unknown(method, find_method(str(method["name"])).Settings, "method.")
    missing = [key for key in ("source", "target") if key not in tables.get("data", {})]
    if missing:
        flags = " ".join(f"--{key} DIR" for key in missing)
        raise UserError(f"the recipe {tables['name']!r} leaves open which images to read; give {flags}")
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"setting {where!r}: {first['msg'][0].lower()}{first['msg'][1:]} (got {first['input']!r})") from error
    reading = [name for name in recipe.selection.score if name in OF_SOURCE]
    if reading and not recipe.reads_source:
        raise UserError(f"{recipe.method.name} reads no source image, but the score {reading[0]} does; choose another score")
    return recipe


def _refuse_unknown(tables: dict[str, Any], schema: Any, prefix: str) -> None:
    """Compares a table's keys with the fields of a pydantic model or dataclass, and its inner tables with theirs."""
    fields = {name: field.annotation for name, field in schema.model_fields.items()}
    for key, value in tables.items():
        if key not in fields:
            raise UserError.unknown("setting", prefix + key, [prefix + name for name in fields])
        inner = fields[key]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            _refuse_unknown(value, inner, f"{prefix}{key}.")
