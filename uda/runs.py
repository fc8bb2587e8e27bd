"""The run folder: what was asked, what came out, and all that a resumed run needs. Every file is written whole or not at all."""

from __future__ import annotations

import copy
import json
import os
import pickle
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import uda
from uda.data.domain import Domain
from uda.data.files import in_order, read
from uda.errors import UserError
from uda.evaluation import Answers, Seen
from uda.methods import Method, Trained, find_method, unit_translation
from uda.models import GIVEN_IN_PYTHON, Classifier, build_classifier, build_foreign
from uda.models.layers import Normalize
from uda.models.own import split_network, whole_state_dict
from uda.recipe import Recipe, load_recipe
from uda.runtime import Runtime, choose_runtime
from uda.selection import Evidence

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
    · ``weights/*.safetensors`` · ``outputs/*.safetensors`` features and logits · ``checkpoint.pt`` while training
    · ``result.json`` · pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: Path, recipe: Recipe, setting: dict[str, Any], names: tuple[str, str] = ("recipe.toml", "setting.json")
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

    def keep_weights(self, name: str, new: str) -> None:
        """Gives ``weights/name.safetensors`` the name `new`, and deletes the looks' weights that nobody chose."""
        folder = self.path / "weights"
        if self.has_weights(name):  # else an interrupted run has come so far before
            os.replace(folder / f"{name}.safetensors", folder / f"{new}.safetensors")
        for other in folder.glob("look-*.safetensors"):
            other.unlink()

    def write_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Saves a state dict as `torch.save` does, for other programs to read."""
        with whole(self.path / name) as path:
            torch.save({key: value.detach().cpu().clone() for key, value in state.items()}, path)

    def write_sample(self, target: Domain) -> None:
        """Keeps up to 64 target images, uint8, so that exports can be checked where the data is not at hand."""
        with whole(self.path / "sample.safetensors") as path:
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
        with whole(self.path / "outputs" / f"{name}.safetensors") as path:
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
        with whole(self.path / "outputs" / "examples.safetensors") as path:
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
    """Loads a state dict into a module: .safetensors, or what `torch.save(net.state_dict(), path)` wrote.

    A checkpoint that holds the state dict under ``state_dict``, ``model_state_dict`` or ``model`` is understood, and so is one
    saved from within DataParallel. Nothing in the file is executed.

    Raises:
        UserError: where there is no such file, it is damaged, it holds more than tensors, or it is another network's.
    """
    state = _read_state(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in sorted(own.keys() & state.keys()) if own[name].shape != state[name].shape]
    if missing or extra or shapes:
        other = [f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}" for name in shapes]
        parts = [_few("missing", missing), _few("not in the network", extra), _few("of another shape", other)]
        raise UserError(f"{path} is of another network: {'; '.join(part for part in parts if part)}")
    module.load_state_dict(state)


def _few(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}; give the path of a state dict (.pt) or a .safetensors file") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, and loading it could execute code; save torch.save(net.state_dict(), {path.name!r})"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a state dict ({reason})") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a state dict; save one with torch.save(net.state_dict(), {path.name!r})")
    return dict(state)


def versions() -> dict[str, str]:
    """The versions of uda, Python and the packages that numbers depend on."""
    found = {"uda": uda.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def build_whole(recipe: Recipe, classes: int, model: nn.Module | None = None) -> tuple[nn.Module, Normalize] | None:
    """A network that is not ours (a copy of `model`, where given), whole, with the preprocessing that it expects; else None."""
    wanted, (channels, size, _) = recipe.classifier, recipe.data.shape
    if model is not None:
        foreign = copy.deepcopy(model), Normalize((0.0,) * channels, (1.0,) * channels)
    elif wanted.backbone == GIVEN_IN_PYTHON:
        raise UserError("this run's network was given in Python; give it again: uda.load(RUN, model=network)")
    elif (found := build_foreign(wanted.backbone, channels, size, classes, wanted.width, wanted.pretrained)) is not None:
        foreign = found
    else:
        return None
    network, expected = foreign
    mean, std = (wanted.mean or expected.mean), (wanted.std or expected.std)
    if len(mean) != channels or len(std) != channels:
        raise UserError(f"classifier.mean and .std need {channels} numbers each, one for each channel (data.channels)")
    return network, Normalize(mean, std)


def build_source_classifier(
    recipe: Recipe, classes: int, runtime: Runtime, model: nn.Module | None = None, weights: Path | None = None
) -> Classifier:
    """The network that `recipe.classifier` names (or a copy of `model`), in parts, on the runtime's device.

    Args:
        recipe: with its frame settled.
        classes: how many.
        runtime: where it goes.
        model: the network, where one was given in Python.
        weights: a state dict to start from, of the network as its author wrote it.
    """
    wanted, (channels, size, _) = recipe.classifier, recipe.data.shape
    foreign = build_whole(recipe, classes, model)
    network = build_classifier(wanted.backbone, channels, size, classes, wanted.width) if foreign is None else foreign[0]
    if weights is not None:
        load_weights(weights, network)
    if foreign is None:
        classifier = cast(Classifier, network)
    else:
        classifier = split_network(network, channels, size, classes, wanted.split, foreign[1])
    runtime.place(classifier)
    return classifier


def build_method(recipe: Recipe, classifier: Classifier, runtime: Runtime) -> Method:
    """The recipe's method, at its first step, starting from `classifier`."""
    return find_method(recipe.method.name).Method(recipe.method, classifier, recipe.data.shape, recipe.training.steps, runtime)


def build_translation(recipe: Recipe, runtime: Runtime) -> unit_translation.Method:
    """The recipe's method, at its first step, where it translates and does not classify."""
    return find_method(recipe.method.name).Method(recipe.method, recipe.data.shape, recipe.training.steps, runtime)


class Run:
    """A finished run: its figures, and its networks loaded back.

    Args:
        path: the run folder.
        model: the network, where the run was given one in Python.
        device: ``"auto"`` or a torch device.
        precision: ``"bf16"`` or ``"fp32"``; left out, as the run was computed.

    Attributes:
        path: the run folder.
        result: the contents of ``result.json``.
    """

    def __init__(
        self, path: str | Path, model: nn.Module | None = None, device: str = "auto", precision: str | None = None
    ) -> None:
        self._folder = RunFolder.open(Path(path))
        self.path, self._model, self._device, self._precision = self._folder.path, model, device, precision
        self.result: dict[str, Any] = self._folder.read_json("result.json")

    @cached_property
    def recipe(self) -> Recipe:
        return self._folder.recipe

    @property
    def accuracy(self) -> dict[str, float | None]:
        """``source``, ``source_only``, ``last``, ``selected``, ``oracle``: shares 0..1 of test images.

        All but the first are None where there were no labelled target test images.
        """
        self._asked_to_classify()
        return self.result["accuracy"]

    @property
    def target_accuracy(self) -> float | None:
        """Accuracy of `classifier` on the target test images, where there were some."""
        return self.accuracy["last"]

    @cached_property
    def runtime(self) -> Runtime:
        return choose_runtime(self._device, self._precision or self.result["precision"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.result["classes"])

    def seen(self, which: str = "last") -> Seen:
        """What was seen of the ``"last"`` classifier, or of the ``"source_only"`` one: features, logits, answers on tests."""
        return self._folder.read_seen(which)

    def temperature(self, which: str = "last") -> float:
        """What an adapted classifier's logits are divided by, so that it is as sure as it is right, by the estimate."""
        return 1.0 if which == "source" else self.result["calibration"]["temperature"]

    def sample(self) -> Tensor:
        """Some of the target images that were adapted to, uint8 (n, C, S, S), n at most 64."""
        return self._folder.read_sample()

    def _asked_to_classify(self) -> None:
        if not self.recipe.classifies:
            raise UserError(f"{self.path} translates images and has no classifier; use uda translate, or fit another --method")

    def _source_classifier(self) -> Classifier:
        self._asked_to_classify()
        return build_source_classifier(self.recipe, len(self.classes), self.runtime, self._model)

    def method(self) -> Any:
        """The trained method; one that makes images translates them with ``.translate(images, origin, destination)``."""
        if self.recipe.classifies:
            method: Trained = build_method(self.recipe, self._source_classifier(), self.runtime)
        else:
            method = build_translation(self.recipe, self.runtime)
        self._folder.read_weights("method", method.networks())
        return method

    def load_classifier(self, which: str = "last") -> nn.Module:
        """The adapted classifier after the ``"last"`` step or the ``"selected"`` one, or the ``"source"`` classifier.

        It is in evaluation mode, takes float images (N, C, H, W) in -1..1 (see `uda.data.augment.to_float`) and returns
        logits (N, K).
        """
        return self._load(self._source_classifier(), which)

    def _load(self, source: Classifier, which: str) -> nn.Module:
        if which not in ("last", "selected", "source"):
            raise UserError.unknown("classifier", which, ("last", "selected", "source"))
        classifier = source if which == "source" else build_method(self.recipe, source, self.runtime).classifier()
        self._folder.read_weights(which, classifier)
        return classifier.eval()

    @cached_property
    def classifier(self) -> nn.Module:
        """The adapted classifier after the last step."""
        return self.load_classifier()

    def load_network(self, which: str = "last") -> tuple[nn.Module, Normalize]:
        """The user's own (or timm) network, as its author wrote it, with adapted weights; and the preprocessing that it expects.

        Raises:
            UserError: where the network was one of ours, or the method has changed its layers.
        """
        source = self._source_classifier()
        state = whole_state_dict(self._load(source, which), source)
        if state is None:
            raise UserError(
                f"the adapted classifier does not fit {self.recipe.classifier.backbone} as it was written: use Run.classifier"
            )
        foreign = build_whole(self.recipe, len(self.classes), self._model)
        assert foreign is not None
        network, normalize = foreign
        network.load_state_dict(state)
        return network.eval(), normalize
