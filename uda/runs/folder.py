"""The run folder: what was asked, what came out, and all that a resumed run needs. Every file is written whole or not at all."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from uda import plugins
from uda.atomic import atomic_write
from uda.data.domain import Domain
from uda.data.files import in_order, read
from uda.errors import UserError
from uda.evaluation.evaluator import Examples
from uda.evaluation.outputs import Outputs
from uda.models.weights import load_weights, save_tensors
from uda.recipe import presets
from uda.recipe.load import dump_recipe, load_recipe, named_code
from uda.recipe.schema import Recipe

EXAMPLES = ("images", "labels", "predicted", "confidence")
GOOD = "good.pt"
"""a checkpoint that all was well in, to go back to"""
FORMAT = 2
"""of run folders: raised when an older one can no longer be read"""


def default_path(recipe: Recipe, which: str) -> Path:
    """``runs/RECIPE-METHOD-WHICH-TIME``, not there yet, for a run that was not told where to go.

    `which`: its seed, or how many seeds.
    """
    method = recipe.method.name.rpartition(":")[2]
    name = recipe.name if recipe.name.endswith(f"-{method}") else f"{recipe.name}-{method}"
    path = Path("runs") / f"{name}-{which}-{datetime.now():%Y%m%d-%H%M%S}"
    return next(free for free in (path, *(path.with_name(f"{path.name}-{n}") for n in range(2, 99))) if not free.exists())


def agree(recipe: Path, trust: bool) -> None:
    """Before a recipe in a folder is read, which runs the code that it names.

    Args:
        recipe: the file.
        trust: whether the user agrees to that code, from now on.

    Raises:
        UserError: where the user has neither named that code, nor agrees to it.
    """
    names = named_code(presets.read(recipe))
    if trust:
        plugins.trust(names)
    else:
        plugins.require_trust(names, f"the recipe of {recipe.parent}")


class RunFolder:
    """Reads and writes one run folder.

    ``recipe.toml`` the resolved recipe · ``environment.json`` format, versions, machine, data root · ``metrics.jsonl`` losses and
    evaluations · ``weights/*.safetensors`` · ``outputs/*.safetensors`` features and logits · ``checkpoint.pt`` while training
    · ``result.json`` · pictures.
    """

    def __init__(self, path: Path, trusted: bool = False) -> None:
        self.path, self.trusted = path, trusted

    @classmethod
    def create(
        cls, path: Path, recipe: Recipe, environment: dict[str, Any], names: tuple[str, str] = ("recipe.toml", "environment.json")
    ) -> RunFolder:
        """A new run folder, with the recipe and the environment under these names.

        Raises:
            UserError: where the folder exists and is not empty, or cannot be made; or the recipe cannot be written so that it
                reads back as it is.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already; give another --out, or continue that run with: uda fit --resume {path}")
        folder, text = cls(path), dump_recipe(recipe)
        try:
            folder.write_text(names[0], text)
        except OSError as error:
            raise UserError(f"cannot write to {path} ({error.strerror}); give another --out") from error
        plugins.trust(named_code(recipe.model_dump()))  # the user has named it
        folder.write_json(names[1], {"format": FORMAT, **environment})
        return folder

    @classmethod
    def open(cls, path: Path, trust: bool = False) -> RunFolder:
        """An existing run folder.

        Args:
            path: where it is.
            trust: whether the user agrees to the code that its recipe names, from now on.

        Raises:
            UserError: where `path` is not one, or is of another format.
        """
        if not (path / "recipe.toml").is_file():
            raise UserError(f"{path} is not a run folder (it has no recipe.toml); give the folder that uda fit printed")
        folder = cls(path, trust)
        if trust:
            agree(path / "recipe.toml", trust)
        before_formats = not (path / "environment.json").exists() and (path / "setting.json").exists()
        environment = {"format": 1} if before_formats else folder.read_json("environment.json")
        found = environment.get("format") if isinstance(environment, dict) else None
        if found != FORMAT:
            raise UserError(
                f"{path} has run-folder format {found}, and this version of uda reads {FORMAT}; fit again, or use the version "
                "that made it"
            )
        return folder

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            UserError: where it is damaged, or names code that nobody here has named or agreed to.
        """
        agree(self.path / "recipe.toml", self.trusted)
        return load_recipe(str(self.path / "recipe.toml"))

    def write_text(self, name: str, text: str) -> None:
        with atomic_write(self.path / name) as path:
            path.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        try:
            return {**json.loads((self.path / name).read_text(encoding="utf-8"))}
        except FileNotFoundError:
            raise UserError(f"{self.path} has no {name}; finish the run with: uda fit --resume {self.path}") from None
        except (ValueError, TypeError, RecursionError) as error:  # TypeError: it holds something else than named values
            raise UserError(f"{self.path / name} is damaged ({error}); fit again") from error

    def write_weights(self, name: str, module: nn.Module) -> None:
        """Saves ``weights/name.safetensors``. Tied parts are saved under each of their names."""
        self._write_tensors(f"weights/{name}.safetensors", module.state_dict())

    def keep_weights(self, name: str, new: str) -> None:
        """Gives ``weights/name.safetensors`` the name `new`, and deletes the weights of other evaluations."""
        folder = self.path / "weights"
        if self.has_weights(name):  # else an interrupted run has come so far before
            os.replace(folder / f"{name}.safetensors", folder / f"{new}.safetensors")
        for other in folder.glob("evaluation-*.safetensors"):
            other.unlink()

    def write_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Saves a state dict as `torch.save` does, for other programs to read."""
        with atomic_write(self.path / name) as path:
            torch.save({key: value.detach().cpu().clone() for key, value in state.items()}, path)

    def write_sample(self, target: Domain) -> None:
        """Keeps up to 64 target images, uint8, so that exports can be checked where the data is not at hand."""
        self._write_tensors("sample.safetensors", {"target": next(read(target.images, in_order(len(target), 64)))})

    def read_sample(self) -> Tensor:
        """The target images that the run has kept, uint8 (n, C, S, S)."""
        return self._tensors("sample.safetensors")["target"]

    def read_unreadable(self) -> list[str]:
        """The lines of ``unreadable.txt``, ``PATH: REASON``; none where all images could be read."""
        path = self.path / "unreadable.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def write_outputs(self, name: str, outputs: Outputs) -> None:
        """Keeps what a classifier says in ``outputs/name.safetensors``, features as float16."""
        self._write_tensors(f"outputs/{name}.safetensors", {k: v for k, v in vars(outputs.kept()).items() if v is not None})

    def read_outputs(self, name: str) -> Outputs:
        """What `write_outputs` kept.

        Raises:
            UserError: where the file is missing or damaged.
        """
        return Outputs(**self._tensors(f"outputs/{name}.safetensors"))

    def write_examples(self, examples: Examples) -> None:
        """Keeps telling target images, as `uda.evaluation.evaluator.Evaluator.examples` returns them."""
        self._write_tensors("outputs/examples.safetensors", dict(zip(EXAMPLES, examples, strict=True)))

    def read_examples(self) -> Examples:
        """What `write_examples` kept.

        Raises:
            UserError: where the file is missing or damaged.
        """
        tensors = self._tensors("outputs/examples.safetensors")
        images, labels, predicted, confidence = (tensors[name] for name in EXAMPLES)
        return images, labels, predicted, confidence

    def _write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        with atomic_write(self.path / name) as path:
            save_tensors(tensors, path)

    def _tensors(self, name: str) -> dict[str, Tensor]:
        path = self.path / name
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is missing or damaged; fit again") from error

    def read_weights(self, name: str, module: nn.Module) -> None:
        """Loads ``weights/name.safetensors`` into `module`."""
        if not self.has_weights(name):
            raise UserError(f"{self.path} has no weights {name!r}; finish the run with: uda fit --resume {self.path}")
        load_weights(self.path / "weights" / f"{name}.safetensors", module)

    def has_weights(self, name: str) -> bool:
        return (self.path / "weights" / f"{name}.safetensors").is_file()

    def write_checkpoint(self, state: dict[str, Any], name: str = "checkpoint.pt") -> None:
        with atomic_write(self.path / name) as path:
            torch.save(state, path)

    def read_checkpoint(self, name: str = "checkpoint.pt") -> dict[str, Any] | None:
        """The state that the run was interrupted in; None where it had none. Loading executes nothing from the file."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise UserError(f"{path} is damaged; delete it to start this run's current stage again") from error
        return state

    def delete_checkpoint(self) -> None:
        for name in ("checkpoint.pt", GOOD):
            (self.path / name).unlink(missing_ok=True)

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
