"""The run folder: what was asked, what came out, and all that a resumed run needs. Every file is written whole or not at all."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import uda
from uda.errors import UserError
from uda.methods import METHODS, Method
from uda.models import Classifier, build_classifier
from uda.recipe import Recipe, load_recipe
from uda.runtime import Runtime, choose_runtime

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "numpy")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name only after the block ended well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class RunFolder:
    """Reads and writes one run folder.

    ``recipe.toml`` the resolved recipe · ``setting.json`` versions, machine, data root · ``metrics.jsonl`` losses and looks
    · ``weights/*.safetensors`` · ``checkpoint.pt`` while training · ``result.json`` · pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: Recipe, setting: dict[str, Any]) -> RunFolder:
        """A new run folder.

        Raises:
            UserError: where the folder exists and is not empty, or cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already; give another --out, or continue that run with: uda fit --resume {path}")
        folder = cls(path)
        try:
            folder.write_text("recipe.toml", recipe.to_toml())
        except OSError as error:
            raise UserError(f"cannot write to {path} ({error.strerror}); give another --out") from error
        folder.write_json("setting.json", setting)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            UserError: where `path` is not one.
        """
        if not (path / "recipe.toml").is_file():
            raise UserError(f"{path} is not a run folder (it has no recipe.toml); give the folder that uda fit printed")
        return cls(path)

    @property
    def recipe(self) -> Recipe:
        return load_recipe(str(self.path / "recipe.toml"))

    def write_text(self, name: str, text: str) -> None:
        with whole(self.path / name) as path:
            path.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.path} has no {name}; finish the run with: uda fit --resume {self.path}") from None
        except ValueError as error:
            raise UserError(f"{self.path / name} is damaged ({error}); fit again") from error

    def write_weights(self, name: str, module: nn.Module) -> None:
        """Saves ``weights/name.safetensors``. Tied parts are saved under each of their names."""
        tensors = {key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}
        with whole(self.path / "weights" / f"{name}.safetensors") as path:
            save_file(tensors, path)

    def read_weights(self, name: str, module: nn.Module) -> None:
        """Loads ``weights/name.safetensors`` into `module`."""
        if not self.has_weights(name):
            raise UserError(f"{self.path} has no weights {name!r}; finish the run with: uda fit --resume {self.path}")
        load_weights(self.path / "weights" / f"{name}.safetensors", module)

    def has_weights(self, name: str) -> bool:
        return (self.path / "weights" / f"{name}.safetensors").is_file()

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        with whole(self.path / "checkpoint.pt") as path:
            torch.save(state, path)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The state that the run was interrupted in; None where it had none. Loading executes nothing from the file."""
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise UserError(f"{path} is damaged; delete it to start this run's current stage again") from error

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        self.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def append_metrics(self, row: dict[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows; one that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows


def load_weights(path: Path, module: nn.Module) -> None:
    """Loads a .safetensors file into a module.

    Raises:
        UserError: where there is no such file, it is damaged, or it is another network's.
    """
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"no weights at {path}; give the path of a .safetensors file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as .safetensors ({str(error).splitlines()[0]})") from error
    except RuntimeError as error:
        keys = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UserError(f"{path} is of another network: {keys[:300]}") from error


def versions() -> dict[str, str]:
    """The versions of uda, Python and the packages that numbers depend on."""
    found = {"uda": uda.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def build_source_classifier(recipe: Recipe, classes: int, runtime: Runtime) -> Classifier:
    """The network that `recipe.classifier` names, untrained, on the runtime's device."""
    wanted = recipe.classifier
    network = build_classifier(wanted.backbone, recipe.data.channels, recipe.data.size, classes, wanted.width, wanted.pretrained)
    runtime.place(network)
    return network


def build_method(recipe: Recipe, classifier: Classifier, runtime: Runtime) -> Method:
    """The recipe's method, at its first step, starting from `classifier`."""
    shape = recipe.data.channels, recipe.data.size, recipe.data.size
    return METHODS[recipe.method.name].Method(recipe.method, classifier, shape, recipe.training.steps, runtime)


class Run:
    """A finished run: its figures, and its networks loaded back.

    Attributes:
        path: the run folder.
        result: the contents of ``result.json``.
    """

    def __init__(self, path: str | Path, device: str = "auto") -> None:
        self._folder = RunFolder.open(Path(path))
        self.path, self._device = self._folder.path, device
        self.result: dict[str, Any] = self._folder.read_json("result.json")

    @cached_property
    def recipe(self) -> Recipe:
        return self._folder.recipe

    @property
    def accuracy(self) -> dict[str, float]:
        """``source``, ``source_only``, ``last``, ``selected``, ``oracle``: shares 0..1 of test images."""
        return self.result["accuracy"]

    @property
    def target_accuracy(self) -> float:
        """Accuracy of `classifier` on the target test images."""
        return self.accuracy["last"]

    @cached_property
    def runtime(self) -> Runtime:
        return choose_runtime(self._device, self.result["precision"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.result["classes"])

    def method(self) -> Method:
        """The trained method; one that makes images translates them with ``.translate(images, origin, destination)``."""
        classifier = build_source_classifier(self.recipe, len(self.classes), self.runtime)
        method = build_method(self.recipe, classifier, self.runtime)
        self._folder.read_weights("method", method.networks())
        return method

    def load_classifier(self, which: str = "last") -> nn.Module:
        """The adapted classifier after the ``"last"`` step or the ``"selected"`` one, or the ``"source"`` classifier.

        It is in evaluation mode, takes float images (N, C, H, W) in -1..1 (see `uda.data.augment.to_float`) and returns
        logits (N, K).
        """
        if which not in ("last", "selected", "source"):
            raise UserError.unknown("classifier", which, ("last", "selected", "source"))
        source = build_source_classifier(self.recipe, len(self.classes), self.runtime)
        classifier = source if which == "source" else build_method(self.recipe, source, self.runtime).classifier()
        self._folder.read_weights(which, classifier)
        return classifier.eval()

    @cached_property
    def classifier(self) -> nn.Module:
        """The adapted classifier after the last step."""
        return self.load_classifier()
