"""Recipes: typed, read from TOML, every key overridable, unknown keys refused with the nearest right one."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
)

from uda import catalogue
from uda.data.augment import Augment
from uda.errors import UserError
from uda.methods import find_method, source_only
from uda.methods.base import TRAINING
from uda.selection import OF_SOURCE, SCORES


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Which images, and how they are framed."""

    source: str
    """data set with labels: mnist, usps, svhn, svhn-extra, mnist-m, synth or digits; or a folder, .csv or .npz of your own"""
    target: str
    """data set whose training images are used without their labels, or a path"""
    source_test: str | None = None
    """labelled source images to test on; left out: the data set's own, or every tenth of each class of your images"""
    target_test: str | None = None
    """labelled target images to test on; left out: the data set's own, or none"""
    classes: tuple[str, ...] | None = None
    """the class names in the order of the classifier's outputs; left out: folders in alphabetical order"""
    size: PositiveInt | None = None
    """side of the square that all images are brought to, pixels; left out: 32, or that of your source images"""
    channels: Literal[1, 3] | None = None
    """3: grey images are copied to three channels; 1: colour images are turned to grey; left out: 1 if all are grey"""
    memory: float = Field(1.0, ge=0)
    """GiB: images of your own that take more than this, decoded, are decoded when needed instead"""

    paired_test: bool = False
    """whether the n-th test images of both domains show the same: then translations are compared with the truth"""
    target_inverted_copies: bool = False
    """whether the target's training images are doubled by their negatives"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, S, S) of every image; known once `size` and `channels` are."""
        assert self.size is not None
        assert self.channels is not None
        return self.channels, self.size, self.size


class Augmentation(Section):
    """Random changes of training images, by domain."""

    source: Augment = Augment()
    target: Augment = Augment()


class SourceClassifier(Section):
    """The classifier that is trained on the source, and that methods start from."""

    backbone: str = "strided"
    """strided, lenet, unit, timm:NAME, or your own: FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"""
    width: PositiveInt | None = None
    """base width of strided, lenet or unit; left out: the network's own"""
    pretrained: bool = False
    """whether a timm network starts from downloaded weights"""
    weights: str | None = None
    """a state dict (.pt or .safetensors) of this network, already trained on the source; left out: train it"""
    split: str | None = None
    """of a timm or own network, the last module of the stem, which UNIT gives each domain its own of; left out: found"""
    mean: tuple[float, ...] | None = None
    """what a timm or own network wants subtracted from images in 0..1; left out: timm's figures, or 0"""
    std: tuple[float, ...] | None = None
    """and divided by; left out: timm's figures, or 1"""
    steps: NonNegativeInt = 600
    """0: the network is taken as it is"""
    refine_steps: NonNegativeInt = 0
    """steps on the augmented source that a network which comes trained takes before a method begins that reads the source"""
    batch: PositiveInt = 256
    training: source_only.Settings = source_only.Settings()


class Training(Section):
    """How long the method trains, and how often it is looked at."""

    steps: PositiveInt
    batch: PositiveInt = 64
    """images of each domain in a step"""
    target_batch: PositiveInt | None = None
    """target images in a step, where there are to be more of them; left out: as many as `batch`"""
    class_shares: Literal["own", "even", "predicted"] = "own"
    """how often source images of each class are drawn: as there are of them, equally often, or as often as the source classifier
    gives that class to target images"""
    log_every: PositiveInt = 10
    evaluate_every: PositiveInt = 100
    """steps between two label-free scores (and accuracies for `oracle`)"""


class Selection(Section):
    """Which label-free score picks `selected`."""

    score: tuple[str, ...] = ("information_maximization",)
    """a name from `uda.selection.SCORES`, or a list of some: then the mean of the ranks that they give decides"""
    keep: bool = False
    """whether each look's features and logits are kept (``outputs/``), to study scores later"""

    @field_validator("score", mode="before")
    @classmethod
    def _names(cls, given: object) -> object:
        names = (given,) if isinstance(given, str) else given
        if not isinstance(names, list | tuple) or not names:
            raise ValueError("give the name of a score, or a list of some")
        for name in names:
            if name not in SCORES:
                raise UserError.unknown("score", str(name), SCORES)
        return names

    @property
    def reads_source(self) -> bool:
        return any(name in OF_SOURCE for name in self.score)


class Recipe(Section):
    """A whole run, but for the data's whereabouts and the device."""

    name: str
    description: str = ""
    seed: int = 0
    data: Data
    augment: Augmentation = Augmentation()
    classifier: SourceClassifier = SourceClassifier()
    method: Any
    """the settings of one method, a frozen dataclass from `uda.methods`"""
    training: Training
    selection: Selection = Selection()

    @field_validator("method", mode="before")
    @classmethod
    def _settings(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        settings: type[Any] = find_method(given["name"]).Settings
        return TypeAdapter(settings).validate_python(given)

    @field_serializer("method")
    def _table(self, settings: Any) -> dict[str, Any]:
        return dataclasses.asdict(settings)

    @property
    def classifies(self) -> bool:
        """Whether the method makes a classifier; else it only translates, and asks for no labels."""
        return getattr(find_method(self.method.name), "CLASSIFIES", True)

    @property
    def reads_source(self) -> bool:
        """Whether the method reads source images."""
        return getattr(find_method(self.method.name), "READS_SOURCE", True)

    def framed(self, channels: int, size: int) -> Recipe:
        """The same recipe with the images' channels and side, which it may have left to the data."""
        return self.model_copy(update={"data": self.data.model_copy(update={"channels": channels, "size": size})})

    def to_toml(self) -> str:
        """The recipe with every default written out."""
        return _toml(self.model_dump(exclude_none=True))


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
        path = catalogue.find(str(recipe))
        tables = {"name": path.stem, **catalogue.read(path)}
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
        tables["training"] = {**tables.get("training", {}), **getattr(find_method(name), "TRAINING", TRAINING)}
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
    if dataclasses.is_dataclass(schema):
        fields: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(schema)}
    else:
        fields = {name: field.annotation for name, field in schema.model_fields.items()}
    for key, value in tables.items():
        if key not in fields:
            raise UserError.unknown("setting", prefix + key, [prefix + name for name in fields])
        inner = fields[key]
        if (
            isinstance(value, dict)
            and isinstance(inner, type)
            and (dataclasses.is_dataclass(inner) or issubclass(inner, BaseModel))
        ):
            _refuse_unknown(value, inner, f"{prefix}{key}.")


def _toml(tables: dict[str, Any], prefix: str = "") -> str:
    """TOML of nested tables of numbers, strings, booleans and flat lists: values first, then the inner tables."""

    def value(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        if isinstance(item, str):
            return '"' + item.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        if isinstance(item, list | tuple):
            return f"[{', '.join(value(part) for part in item)}]"
        return repr(item)

    lines = [f"{key} = {value(item)}" for key, item in tables.items() if not isinstance(item, dict)]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, item in tables.items():
        if isinstance(item, dict):
            text += f"\n[{prefix}{key}]\n" + _toml(item, f"{prefix}{key}.")
    return text
