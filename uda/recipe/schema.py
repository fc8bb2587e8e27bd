"""What a recipe holds: the settings of each room, composed."""

from __future__ import annotations

from typing import Any

from pydantic import (
    field_serializer,
    field_validator,
)

from uda.data.settings import AugmentationSettings, DataSettings
from uda.evaluation.selection import SelectionSettings
from uda.methods import find_method
from uda.methods.base import MethodSettings, TrainingSettings
from uda.methods.source_only import SourceClassifierSettings
from uda.types import Section


class Recipe(Section):
    """A whole run, but for the data's whereabouts and the device."""

    name: str
    description: str = ""
    seed: int = 0
    data: DataSettings
    augment: AugmentationSettings = AugmentationSettings()
    classifier: SourceClassifierSettings = SourceClassifierSettings()
    method: Any
    """the settings of one method, a `MethodSettings` of `uda.methods`"""
    training: TrainingSettings
    selection: SelectionSettings = SelectionSettings()

    @field_validator("method", mode="before")
    @classmethod
    def _settings(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        settings: type[MethodSettings] = find_method(given["name"]).Settings
        return settings.model_validate(given)

    @field_serializer("method")
    def _table(self, settings: Any) -> dict[str, Any]:
        return settings.model_dump()

    @property
    def classifies(self) -> bool:
        """Whether the method makes a classifier; else it only translates, and asks for no labels."""
        return find_method(self.method.name).classifies

    @property
    def reads_source(self) -> bool:
        """Whether the method reads source images."""
        return find_method(self.method.name).reads_source

    def with_image_size(self, channels: int, size: int) -> Recipe:
        """The same recipe with the images' channels and side, which it may have left to the data."""
        return self.model_copy(update={"data": self.data.model_copy(update={"channels": channels, "size": size})})

    def to_toml(self) -> str:
        """The recipe with every default written out."""
        return _toml(self.model_dump(exclude_none=True))


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
