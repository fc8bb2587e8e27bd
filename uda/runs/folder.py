"""The run folder: what was asked, what came out, and all that a resumed run needs. Every file is written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uda.atomic import atomic_write
from uda.data.domain import Domain
from uda.data.files import in_order, read
from uda.errors import UserError
from uda.evaluation.evaluator import Answers, Seen
from uda.evaluation.selection import Evidence
from uda.models.weights import load_weights
from uda.recipe.load import load_recipe
from uda.recipe.schema import Recipe


class RunFolder:
    """Reads and writes one run folder.

    ``recipe.toml`` the resolved recipe · ``environment.json`` versions, machine, data root · ``metrics.jsonl`` losses and looks
    · ``weights/*.safetensors`` · ``outputs/*.safetensors`` features and logits · ``checkpoint.pt`` while training
    · ``result.json`` · pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: Path, recipe: Recipe, setting: dict[str, Any], names: tuple[str, str] = ("recipe.toml", "environment.json")
    ) -> RunFolder:
        """A new run folder, with the recipe and the setting under these names.

        Raises:
            UserError: where the folder exists and is not empty, or cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"{path} exists already; give another --out, or continue that run with: uda fit --resume {path}")
        folder = cls(path)
        try:
            folder.write_text(names[0], recipe.to_toml())
        except OSError as error:
            raise UserError(f"cannot write to {path} ({error.strerror}); give another --out") from error
        folder.write_json(names[1], setting)
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
        with atomic_write(self.path / name) as path:
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
        with atomic_write(self.path / "weights" / f"{name}.safetensors") as path:
            save_file(tensors, path)

    def keep_weights(self, name: str, new: str) -> None:
        """Gives ``weights/name.safetensors`` the name `new`, and deletes the looks' weights that nobody chose."""
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
        with atomic_write(self.path / "sample.safetensors") as path:
            save_file({"target": next(read(target.images, in_order(len(target), 64))).cpu()}, path)

    def read_sample(self) -> Tensor:
        """The target images that the run has kept, uint8 (n, C, S, S)."""
        return self._tensors("sample.safetensors")["target"]

    def write_seen(self, name: str, seen: Seen) -> None:
        """Keeps a classifier's logits, and features as float16, in ``outputs/name.safetensors``."""
        tensors = {field: value.cpu() for field, value in vars(seen.evidence).items() if value is not None}
        tensors |= {field: value.half() for field, value in tensors.items() if field.endswith("features")}
        if seen.test is not None:
            tensors |= {"test_logits": seen.test.logits, "test_labels": seen.test.labels}
        with atomic_write(self.path / "outputs" / f"{name}.safetensors") as path:
            save_file({field: value.contiguous() for field, value in tensors.items()}, path)

    def read_seen(self, name: str) -> Seen:
        """What `write_seen` kept.

        Raises:
            UserError: where the file is missing or damaged.
        """
        tensors = self._tensors(f"outputs/{name}.safetensors")
        test = Answers(tensors.pop("test_logits"), tensors.pop("test_labels")) if "test_logits" in tensors else None
        return Seen(Evidence(**tensors), test)

    def write_examples(self, images: Tensor, labels: Tensor, predicted: Tensor, confidence: Tensor) -> None:
        """Keeps telling target images, uint8 (n, C, S, S); labels (n,), -1 where unknown; predicted classes; probabilities."""
        tensors = {"images": images, "labels": labels, "predicted": predicted, "confidence": confidence}
        with atomic_write(self.path / "outputs" / "examples.safetensors") as path:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path)

    def read_examples(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `write_examples` kept.

        Raises:
            UserError: where the file is missing or damaged.
        """
        tensors = self._tensors("outputs/examples.safetensors")
        return tensors["images"], tensors["labels"], tensors["predicted"], tensors["confidence"]

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

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        with atomic_write(self.path / "checkpoint.pt") as path:
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

    def delete_checkpoint(self) -> None:
        (self.path / "checkpoint.pt").unlink(missing_ok=True)

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
