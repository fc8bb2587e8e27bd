"""What a recipe holds: the settings of each room, composed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from pydantic import Field, SerializeAsAny, field_validator
from tomlkit.items import Table

from uda.data.frame import Frame
from uda.data.settings import AugmentationSettings, DataSettings
from uda.evaluation.selection import SelectionSettings
from uda.methods import find_method
from uda.methods.base import MethodSettings, TrainingSettings
from uda.methods.source_only import SourceClassifierSettings
from uda.types import Section


class Recipe(Section):
    """A whole run, but for the data's whereabouts and the device."""

    name: str = Field(pattern=r"^[^/\\\x00]*[^/\\\x00.][^/\\\x00]*$")
    """part of the names of its run folders"""
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**63 - 1)
    data: DataSettings
    augment: AugmentationSettings = AugmentationSettings()
    classifier: SourceClassifierSettings = SourceClassifierSettings()
    method: SerializeAsAny[MethodSettings]
    training: TrainingSettings
    selection: SelectionSettings = SelectionSettings()

    @field_validator("method", mode="before")
    @classmethod
    def _settings(cls, given: object) -> object:
        return find_method(given["name"]).Settings.model_validate(given) if isinstance(given, dict) else given

    @property
    def classifies(self) -> bool:
        """Whether the method makes a classifier; else it only translates, and asks for no labels."""
        return find_method(self.method.name).classifies

    @property
    def kept_aside(self) -> float:
        """The share of target images that are kept aside: of a method that only translates, or trains on their labels, none."""
        method = find_method(self.method.name)
        return self.data.target_held_out if method.classifies and not method.reads_target_labels else 0.0

    @property
    def reads_source(self) -> bool:
        """Whether the method reads source images."""
        return find_method(self.method.name).reads_source

    @property
    def translates_too_few(self) -> bool:
        """Whether the method translates, and its batches hold fewer target images than source images."""
        fewer = (self.training.target_batch or self.training.batch) < self.training.batch
        return fewer and find_method(self.method.name).translates

    @property
    def lacks_masks(self) -> bool:
        """Whether the method learns from masked images, and no image is masked."""
        masked = "masked" in self.data.views.strong if self.classifier.freezes else self.augment.target.mask
        return find_method(self.method.name).reads_masked and not masked

    @property
    def reads_pixels(self) -> bool:
        """Whether the method reads images at a side of their own, beside what a frozen body has kept."""
        return self.classifier.freezes and find_method(self.method.name).reads_pixels

    @property
    def drawn_frame(self) -> Frame:
        """The frame of the images that a method draws, and takes them from."""
        return self.data.drawn_frame if self.reads_pixels else self.data.frame

    def with_frame(self, frame: Frame) -> Recipe:
        """The same recipe with the frame of its images, which it may have left to the data and the network."""
        return self.model_copy(update={"data": self.data.model_copy(update=frame._asdict())})

    def to_toml(self, comments: Mapping[str, str] | None = None) -> str:
        """The recipe with every default written out; what is left open (None) is left out.

        Args:
            comments: what stands behind a setting's value, by dotted key.

        Raises:
            ValueError: for a value that TOML has no form for, which only a method of one's own can have.
        """
        document = tomlkit.document()
        _add(document, self.model_dump(), comments or {})
        return tomlkit.dumps(document)


def _add(table: Table | tomlkit.TOMLDocument, values: dict[str, Any], comments: Mapping[str, str], prefix: str = "") -> None:
    """Adds settings to a TOML table: values first, since what follows an inner table belongs to that."""
    for key, value in sorted(values.items(), key=lambda pair: isinstance(pair[1], dict)):
        if isinstance(value, dict):
            inner = tomlkit.table()
            _add(inner, value, comments, f"{prefix}{key}.")
            table.add(key, inner)
        elif value is not None:
            item = tomlkit.item(value)
            if prefix + key in comments:
                item.comment(" ".join(comments[prefix + key].split()))  # a file's name may hold the end of a line
            table.add(key, item)
        elif prefix + key in comments:
            table.add(tomlkit.comment(f"{key} is left open: {comments[prefix + key]}"))
