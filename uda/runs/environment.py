"""What a run is computed with and on, and what of that is another when the run goes on."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel

import uda
from uda import ranks
from uda.data.domain import LabelledDomain, Pair
from uda.data.files import READERS
from uda.errors import UserError
from uda.recipe.schema import Recipe
from uda.runs.cache import digest, digest_of_file, digest_of_images
from uda.runtime import Runtime, machine

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "numpy", "pillow")
WHEREABOUTS = {
    "data": {"source", "target", "source_test", "target_test"},
    "classifier": {"backbone", "weights", "backbone_weights"},
    "method": {"name"},
}
"""settings that say where something lies: it may have been moved since"""


class Environment(BaseModel):
    """The contents of ``environment.json``.

    Attributes:
        device, precision, data_root, cache: as the run was told or has chosen.
        data: a digest of the images and of the labels of each split, by ``"source images"``, ``"source labels"`` and so on.
        recipe: a digest of the recipe, but for the `WHEREABOUTS`.
        versions: of uda, Python and the packages that numbers depend on.
        machine: processor, cores and system.
        threads, readers: how many of torch's threads compute, and how many processes read images.
        processes: how many the run has.
        files: a digest of each file that the recipe names, code and weights, by its setting.
        track: the trackers that are told how it goes.
        started: when the run began.
    """

    format: int
    device: str
    precision: Literal["bf16", "fp32"]
    data_root: str
    cache: bool = True
    data: dict[str, str] = {}
    recipe: str = ""
    versions: dict[str, str]
    machine: str
    threads: int
    readers: int | None = None
    processes: int = 1
    files: dict[str, str] = {}
    track: list[str] = []
    started: str

    @property
    def run(self) -> str:
        """What tells this run from others."""
        return f"{self.started} {self.recipe}"


def describe_environment(recipe: Recipe, pair: Pair, runtime: Runtime, data_root: str, cache: bool) -> dict[str, Any]:
    """What `Environment` holds of a run that begins now, but for the format."""
    return {
        "device": str(runtime.device),
        "precision": runtime.precision,
        "data_root": data_root,
        "cache": cache,
        "data": data_digests(pair),
        "recipe": digest(recipe.model_dump_json(exclude=WHEREABOUTS)),
        "versions": versions(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "readers": READERS,
        "processes": ranks.world_size(),
        "files": files_digests(recipe),
        "started": datetime.now().isoformat(timespec="seconds"),
    }


def check_alike(environment: dict[str, Any]) -> None:
    """Whether all processes of a run have the same settings and images; they come here together.

    Raises:
        UserError: in all of them, where they have not: they would train on positions of other images.
    """
    mine = environment["recipe"], environment["data"]
    if ranks.anywhere(ranks.agreed(mine) != mine):
        raise UserError("the processes of this run do not have the same settings and images; start all with one command and data")


def versions() -> dict[str, str]:
    """The versions of uda, Python and the packages that numbers depend on."""
    found = {"uda": uda.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def files_digests(recipe: Recipe) -> dict[str, str]:
    """A name for the content of each file of code or weights that a recipe names, by its setting."""
    named = {
        "method.name": recipe.method.name,
        "classifier.backbone": recipe.classifier.backbone,
        "classifier.weights": recipe.classifier.weights,
        "classifier.backbone_weights": recipe.classifier.backbone_weights,
    }
    places = {
        key: str(value).partition(".py:")[0] + ".py" if ".py:" in str(value) else str(value) for key, value in named.items()
    }
    return {key: digest_of_file(Path(place)) for key, place in places.items() if os.path.isfile(place)}


def data_digests(pair: Pair) -> dict[str, str]:
    """A name for the content of each split's images, and of its labels with the classes that they stand for."""
    found = {}
    for role, domain in vars(pair).items():
        if domain is not None:
            found[f"{role} images"] = digest_of_images(domain.images)
        if isinstance(domain, LabelledDomain):
            found[f"{role} labels"] = digest(domain.labels, domain.classes)
    return found


def compare(path: Path, began: Environment, now: Environment) -> list[str]:
    """A line for each thing that is another than when the run in `path` began, and may round differently.

    Raises:
        UserError: where the data or the recipe is another, so that the figures would be of two runs.
    """
    splits = dict.fromkeys([*began.data, *now.data])
    changed = [what.replace("_", " ") for what in splits if now.data.get(what) != began.data.get(what)]
    if changed:
        raise UserError(
            f"since {path} began, its {' and '.join(changed)} have changed; put the old data back, or delete {path} and fit anew"
        )
    if began.recipe and began.recipe != now.recipe:
        raise UserError(f"{path / 'recipe.toml'} has been changed since the run began; put the old settings back, or fit anew")
    then, here = _computed_with(began), _computed_with(now)
    differing = [name for name in then if name in here and then[name] != here[name]]
    files = [
        f"the file of {key} is another than when the run began"
        for key in began.files
        if now.files.get(key) not in (None, began.files[key])  # one that is missing is missed where it is needed
    ]
    return files + [f"{name}: {then[name]} when the run began, {here[name]} now" for name in differing]


def _computed_with(environment: Environment) -> dict[str, str]:
    rest = {"machine": environment.machine, "threads": environment.threads, "processes that read images": environment.readers}
    return environment.versions | {name: str(value) for name, value in rest.items() if value is not None}
