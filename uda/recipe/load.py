"""What decides a setting: its default, then the recipe (what it extends before what it says itself), then the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import AliasChoices, ValidationError

from uda.data.names import absolute, is_url
from uda.errors import UserError
from uda.evaluation.selection import OF_SOURCE
from uda.methods import find_method
from uda.models.published import LIBRARIES
from uda.plugins import anchored
from uda.recipe import presets
from uda.recipe.schema import Recipe


@dataclass(frozen=True)
class Resolved:
    """A recipe, and why it is as it is.

    Attributes:
        recipe: every setting's value.
        origins: where each value came from, by dotted key: ``"default"``, ``"recipe svhn2mnist"``, ``"--seed"``.
        notes: a line for each kind of setting that a user's own file gives and that was made for another method.
    """

    recipe: Recipe
    origins: dict[str, str]
    notes: tuple[str, ...]


class _Said(NamedTuple):
    """What one place says of a setting."""

    value: Any
    origin: str
    file: str = ""
    """the user's own file that says it; empty where nobody's own does"""


CODE = ("method", "name"), ("classifier", "backbone")
"""where a recipe may name code"""
ROLES = "source", "target", "source_test", "target_test"
PLACES: dict[str, Callable[[str], str]] = {
    **dict.fromkeys((f"data.{role}" for role in ROLES), absolute),
    **dict.fromkeys(map(".".join, CODE), anchored),
    **dict.fromkeys(("classifier.weights", "classifier.backbone_weights"), lambda path: str(Path(path).absolute())),
}
"""settings that say where something lies, and how a path among them is made absolute"""
_Layer = dict[str, _Said]
"""what is said of settings, by dotted key"""


def load_recipe(recipe: str | Path | Recipe, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name, path or object, with dotted overrides such as ``{"method.feature_norm": "l2", "seed": 1}``.

    Raises:
        UserError: for an unknown recipe, key or method, or a value of the wrong kind.
    """
    return resolve(recipe, overrides).recipe


def resolve(
    recipe: str | Path | Recipe, overrides: Mapping[str, Any] | None = None, flags: Mapping[str, str] | None = None
) -> Resolved:
    """As `load_recipe`, and where each value came from.

    Settings and training that were made for one method mean nothing to another. So where a file, or ``method.name`` among the
    overrides, names another method than what lies beneath, both are dropped, and the new method's default training takes their
    place. ``method.name`` makes a shipped recipe the shipped recipe ``RECIPE-METHOD``, where there is one, also where it is only
    extended, by what leaves method and training open. The training that a user's own file asks for is kept all the same;
    `Resolved.notes` says so.

    Args:
        recipe: a shipped recipe's name, a path to a TOML file, or a `Recipe`.
        overrides: values by dotted key.
        flags: by which flag an override came, by its key; left out, by ``--set``.

    Raises:
        UserError: for an unknown recipe, key or method, or a value of the wrong kind.
    """
    given = {
        key: _Said(_anchored(key, value), (flags or {}).get(key, "--set")) for key, value in flatten(overrides or {}).items()
    }
    layer: _Layer = {}
    notes: list[str] = []
    for file in _files(recipe, _value(given, "method.name")):
        notes += _notes(layer, file)
        layer = _lay(layer, file)
    if not _of(layer, "training") and (method := _value(layer, "method.name")):
        layer |= _default_training(method)
    notes += _notes(layer, given)
    tables = tuple(f"{key}." for key, value in (overrides or {}).items() if isinstance(value, Mapping))
    layer = {key: said for key, said in layer.items() if not key.startswith(tables)}  # a table takes the place of the whole one
    layer = _lay(layer, given)
    found = _validate(_nest({key: said.value for key, said in layer.items()}))
    origins = {key: layer[key].origin if key in layer else "default" for key in flatten(found.model_dump())}
    return Resolved(found, origins, tuple(notes))


def parse_override(text: str) -> tuple[str, Any]:
    """``"method.feature_norm=l2"`` to a key and a value: numbers, true/false and lists as in TOML, anything else a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r} is not KEY=VALUE; write for example --set method.feature_norm=l2")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def dump_recipe(recipe: Recipe) -> str:
    """A recipe as TOML that is known to read back as the same recipe.

    Raises:
        UserError: where it does not, which a setting of a method of one's own can bring about.
    """
    try:
        text = recipe.to_toml()
        text.encode()  # which fails for names of files that are not UTF-8
        back = flatten(_validate(tomllib.loads(text)).model_dump())
    except ValueError as error:
        raise UserError(f"the recipe {recipe.name!r} cannot be written as TOML and read back: {error}") from error
    for key, value in flatten(recipe.model_dump()).items():
        if back.get(key) != value:
            raise UserError(f"setting {key!r} is {value!r}, but reads back from TOML as {back.get(key)!r}; choose another value")
    return text


def named_code(tables: Mapping[str, Any]) -> list[str]:
    """The code that a recipe's tables name, FILE.py:NAME or MODULE:NAME, and that reading the recipe runs."""
    names = [str(table.get(key)) for name, key in CODE for table in [tables.get(name)] if isinstance(table, Mapping)]
    data = tables.get("data")
    places = [str(data.get(role)) for role in ROLES] if isinstance(data, Mapping) else []
    code = [name for name in names if ":" in name and not name.startswith(LIBRARIES)]
    return code + [place for place in places if is_url(place)]  # which commands open, such as curl


def _files(recipe: str | Path | Recipe, method: str | None) -> list[_Layer]:
    """What a recipe says, and before it what the files say that it extends."""
    if isinstance(recipe, Recipe):
        return [{key: _Said(_anchored(key, value), "the recipe given") for key, value in flatten(recipe.model_dump()).items()}]
    path = presets.find(str(recipe))
    if method is not None:
        path = presets.variant(path, method)
    layers = []
    for file, tables in presets.read_all(path, method):
        own = "" if presets.is_shipped(file) else str(file)
        origin = f"recipe {own or file.stem}" + ("" if file == path else " (extended)")
        # What is extended lends its settings, not its name.
        tables = {"name": path.stem, **tables} if file == path else {**tables, "name": path.stem, "description": ""}
        layers.append({key: _Said(_anchored(key, value), origin, own) for key, value in flatten(tables).items()})
    return layers


def _anchored(key: str, value: Any) -> Any:
    """A setting's value, in which a path is absolute: the run may be gone on with, and used, from any other folder."""
    return PLACES[key](value) if key in PLACES and isinstance(value, str) else value


def _lay(below: _Layer, above: _Layer) -> _Layer:
    """`above` over `below`, without what `below` says for a method or network that `above` replaces.

    The training that a user's own file asks for is kept.
    """
    before = _value(below, "method.name")
    method = _value(above, "method.name") or before
    above = {_field_name(key, method): said for key, said in above.items()}
    if before is not None and method is not None and method != before:
        kept = {key: said for key, said in _of(below, "training").items() if said.file}
        below = {key: said for key, said in below.items() if key.partition(".")[0] not in ("method", "training")}
        below |= _default_training(method) | kept
    width = _value(below, "classifier.width")
    if width is not None and _value(above, "classifier.backbone") not in (None, _value(below, "classifier.backbone")):
        why = f"default, since {width} of {below['classifier.width'].origin} is another network's"
        below |= {"classifier.width": _Said(None, why)}
    return below | above


def _value(layer: _Layer, key: str) -> str | None:
    return str(layer[key].value) if key in layer and layer[key].value is not None else None


def _of(layer: _Layer, table: str) -> _Layer:
    return {key: said for key, said in layer.items() if key.startswith(f"{table}.")}


def _default_training(method: str) -> _Layer:
    training = find_method(method).default_training.model_dump()
    return {f"training.{key}": _Said(value, f"default training of {method}") for key, value in training.items()}


def _notes(layer: _Layer, given: _Layer) -> tuple[str, ...]:
    """What becomes of a user's own [training] and [method], where what is laid over them names another method."""
    before, method = _value(layer, "method.name"), _value(given, "method.name")
    if before is None or method is None or method == before:
        return ()
    notes = []
    for table, fate in (("training", f"is kept for {method}"), ("method", f"is left out, since the method is {method}")):
        own = {key: said for key, said in _of(layer, table).items() if said.file and key != "method.name" and key not in given}
        for file in dict.fromkeys(said.file for said in own.values()):
            keys = ", ".join(key for key, said in own.items() if said.file == file)
            notes.append(f"{keys} of {file}, made for {before}, {fate}")
    return tuple(notes)


def _validate(tables: dict[str, Any]) -> Recipe:
    method = tables.get("method")
    if not isinstance(method, dict) or method.get("name") is None:
        raise UserError('the recipe has no table [method] with a name; add: [method] name = "unit"')
    try:
        recipe = Recipe.model_validate(tables)
    except ValidationError as error:
        raise _in_one_line(error, str(tables["name"]), str(method["name"])) from error
    reading = [name for name in recipe.selection.score if name in OF_SOURCE]
    if reading and not recipe.reads_source:
        raise UserError(f"{recipe.method.name} reads no source image, but the score {reading[0]} does; choose another score")
    if recipe.translates_too_few:
        raise UserError(
            f"training.target_batch is {recipe.training.target_batch}, less than training.batch ({recipe.training.batch}), and "
            f"{recipe.method.name} translates as many images of each domain; leave target_batch out, or raise it"
        )
    least = find_method(recipe.method.name).least_batch
    if min(recipe.training.batch, recipe.training.target_batch or recipe.training.batch) < least:
        raise UserError(f"{recipe.method.name} takes {least} images or more of each domain in a step; raise training.batch")
    if recipe.lacks_masks:
        masking = "'data.views.strong=[\"masked\"]'" if recipe.classifier.freezes else "augment.target.mask=0.5"
        raise UserError(f"{recipe.method.name} learns from masked images; say so: --set {masking}")
    return recipe


def _in_one_line(error: ValidationError, recipe: str, method: str) -> UserError:
    """The first unknown key with the nearest right one; where all are known, what images to read, or the first wrong value."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    lacks = [one["loc"] for one in errors if one["type"] == "missing"]
    left_open = [key for key in ("source", "target") if ("data", key) in lacks or ("data",) in lacks]
    if left_open and first["type"] != "extra_forbidden":
        flags = " ".join(f"--{key} DIR" for key in left_open)
        return UserError(f"the recipe {recipe!r} leaves open which images to read; give {flags}")
    *tables, last = map(str, first["loc"])
    where = ".".join((*tables, last))
    if first["type"] != "extra_forbidden":
        return UserError(f"setting {where!r}: {first['msg'][0].lower()}{first['msg'][1:]} (got {first['input']!r})")
    homes = [] if tables else [f"{table}.{last}" for table in Recipe.model_fields if last in _names([table], method)]
    if homes:
        return UserError(f"unknown setting {last!r}; did you mean {' or '.join(map(repr, homes))}?")
    cutoff = 0.5 if tables else 0.6  # names of tables are short, and alike by chance
    return UserError.unknown("setting", where, [".".join((*tables, name)) for name in _names(tables, method)], cutoff=cutoff)


def _field_name(key: str, method: str | None) -> str:
    """A dotted key with the field's own name in place of an alias; an unknown key stays as it is."""
    *tables, last = key.split(".")
    return ".".join((*tables, _names(tables, method).get(last, last)))


def _names(tables: list[str], method: str | None) -> dict[str, str]:
    """All keys that a table within tables may have, aliases too, each with its field's own name; empty for an unknown table."""
    section: Any = Recipe
    for table in tables:
        field = getattr(section, "model_fields", {}).get(table)
        of_method = section is Recipe and table == "method" and method is not None
        section = find_method(str(method)).Settings if of_method else field and field.annotation
    names: dict[str, str] = {}
    for name, field in getattr(section, "model_fields", {}).items():
        aliases = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
        names |= dict.fromkeys([name, *map(str, aliases)], name)
    return names


def flatten(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values within tables within tables, by dotted key; an empty table is a value."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Tables within tables, from dotted keys."""
    tables: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise UserError(f"unknown setting {key!r}; {parent!r} is a value, not a table")
        if value == {}:
            table.setdefault(last, {})
        elif isinstance(table.get(last), dict):
            raise UserError(f"setting {key!r} is a table; set one of its keys, such as {key}.{next(iter(table[last]), 'KEY')}")
        else:
            table[last] = value
    return tables
