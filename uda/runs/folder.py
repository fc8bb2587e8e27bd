"""The run folder: what was asked, what came out, and all that a resumed run needs. Every file is written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from shlex import quote
from typing import Any, NotRequired, TypeVar

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from uda import plugins, ranks
from uda.atomic import atomic_write, held, is_temporary, lock, saying, sweep, sync, temporary_beside
from uda.data.domain import Domain
from uda.data.files import in_order, read
from uda.data.names import is_path, is_url
from uda.errors import UserError
from uda.evaluation.evaluator import Examples
from uda.evaluation.outputs import Outputs
from uda.evaluation.results import Checked, CheckedRow, Result, Row, read_check, read_result
from uda.models.weights import load_weights, save_state, save_tensors
from uda.paths import regular
from uda.recipe import presets
from uda.recipe.load import dump_recipe, load_recipe, named_code
from uda.recipe.schema import Recipe
from uda.runs.cache import digest_of_file
from uda.runs.environment import Environment
from uda.text import printable

Read = TypeVar("Read")
RUN, SEEDS = ("recipe.toml", "environment.json"), ("seeds.toml", "seeds.json")
"""what a run folder begins with, and a folder of several seeds"""
METRICS, CHECKPOINT, RESULT, UNREADABLE = "metrics.jsonl", "checkpoint.pt", "result.json", "unreadable.txt"
CHECK = "check.json"
"""what labels of a few target images say, where somebody has given them"""
EXAMPLES = ("images", "labels", "predicted", "confidence")
GOOD = "good.pt"
"""a checkpoint that all was well in, to go back to"""
FORMAT = 2
"""of run folders: raised when an older one can no longer be read"""


def title(recipe: Recipe) -> str:
    """``RECIPE-METHOD``; the recipe alone where its name says the method already."""
    method = recipe.method.name.rpartition(":")[2]
    return recipe.name if recipe.name.endswith(f"-{method}") else f"{recipe.name}-{method}"


def default_path(recipe: Recipe, which: str) -> Path:
    """``runs/RECIPE-METHOD-WHICH-TIME``, not there yet, for a run that was not told where to go.

    `which`: its seed, or how many seeds.
    """
    return _free(Path("runs") / f"{title(recipe)}-{which}-{datetime.now():%Y%m%d-%H%M%S}")


def _free(path: Path) -> Path:
    """This name, or the first of those with a number behind it that is not there yet."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(free for free in chain((path,), numbered) if not free.exists())


def agree(recipe: Path, trust: bool) -> None:
    """Before a recipe in a folder is read, which runs the code that it names.

    Args:
        recipe: the file.
        trust: whether the user agrees to that code, from now on.

    Raises:
        UserError: where the user has neither named that code, nor agrees to it.
    """
    tables = presets.read(recipe)
    if "extends" in tables or any("." in key for key in tables):  # code could be named there, too
        raise UserError(
            f"{recipe} is not as a run writes it (it extends another, or has a dot in a key); put that back, or fit anew"
        )
    names = named_code(tables)
    if trust:
        plugins.trust(names)
    else:
        plugins.require_trust(names, f"the recipe of {recipe.parent}")


class Asked(BaseModel):
    """What a folder of seeds was begun with: the contents of ``seeds.json``."""

    format: int
    seeds: list[int] = Field(min_length=1)
    data_root: str
    device: str
    precision: str
    cache: bool = True
    track: list[str] = []


class _Formatted(BaseModel):
    format: int


class Checkpoint(TypedDict):
    """What ``checkpoint.pt`` holds, as far as that can be checked before it is loaded."""

    run: NotRequired[str]
    metrics: NotRequired[int]
    stage: str
    method: dict[str, Any]
    players: dict[str, Any]
    batches: dict[str, Any]
    random: dict[str, Any]
    random_of_others: NotRequired[list[dict[str, Any]]]
    seconds: dict[str, float]
    spent: float
    troubles: dict[str, str]


class RunFolder:
    """Reads and writes one run folder.

    ``recipe.toml`` the resolved recipe · ``environment.json`` format, versions, machine, data root · ``metrics.jsonl`` losses and
    evaluations · ``weights/*.safetensors`` · ``outputs/*.safetensors`` features and logits · ``checkpoint.pt`` until all is done
    · ``result.json`` · pictures.

    Attributes:
        path: where it is.
        names: of the two files that it begins with: the recipe, and what it is computed with.
    """

    def __init__(self, path: Path, names: tuple[str, str] = RUN, trusted: bool = False) -> None:
        self.path, self.names, self.trusted = path, names, trusted
        self.written: dict[str, str] = {}  # of a finished run, a digest of each file of tensors, as its result has it

    @classmethod
    def create(
        cls, path: Path, recipe: Recipe, environment: dict[str, Any], names: tuple[str, str] = RUN, named: bool = True
    ) -> RunFolder:
        """A new run folder, with the recipe and the environment under these names. It is there with both, or is not there.

        Where another process makes one of this name at the same moment, it gets another name, unless the user has `named` it.

        Raises:
            UserError: where the folder exists and holds something, or cannot be made; or the recipe cannot be written so that it
                reads back as it is.
        """
        text = dump_recipe(recipe), json.dumps({"format": FORMAT, **environment}, indent=2) + "\n"
        files = dict(zip(names, text, strict=True))
        home = path if path.is_dir() else path.parent
        try:
            home.mkdir(parents=True, exist_ok=True)
            sweep(home)
            if os.path.lexists(path):
                check_free(path, names)
                _fill(path, files)
            else:
                path = _make(path, home, files, named)
        except OSError as error:
            raise UserError(f"cannot write to {path} ({error.strerror}); give another --out") from error
        plugins.trust(named_code(recipe.model_dump()))  # the user has named it
        return cls(path, names)

    @classmethod
    def open(cls, path: Path, names: tuple[str, str] = RUN, trust: bool = False) -> RunFolder:
        """An existing run folder.

        Args:
            path: where it is.
            trust: whether the user agrees to the code that its recipe names, from now on.

        Raises:
            UserError: where `path` is not one, or is of another format.
        """
        if names == RUN and (path / SEEDS[0]).is_file():
            raise UserError(f"{path} is a folder of seeds; give the folder of one of them, as {path / 'seed-0'}")
        if not (path / names[0]).is_file():
            raise UserError(f"{path} is not a run folder (it has no {names[0]}); give the folder that uda fit printed")
        folder = cls(path, names, trust)
        if trust:
            agree(path / names[0], trust)
        before_formats = not (path / names[1]).exists() and (path / "setting.json").exists()
        if not before_formats and not (path / names[1]).is_file():
            raise UserError(f"{path} has no {names[1]}, and cannot be gone on with; delete it, and fit again")
        found = 1 if before_formats else folder._parsed(names[1], _Formatted.model_validate_json).format
        if found != FORMAT:
            raise UserError(
                f"{path} has run-folder format {found}, and this version of uda reads {FORMAT}; fit again, or use the version "
                "that made it"
            )
        return folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it is open, no other process writes here. What dead ones left half written is deleted.

        Raises:
            UserError: where another process does.
        """
        with ExitStack() as held:
            try:
                free = held.enter_context(lock(self.path / self.names[0]))
            except OSError as error:
                raise UserError(f"cannot write to {self.path} ({error.strerror}); change its permissions") from error
            if not free:
                raise UserError(f"another process writes to {self.path}; wait until it has ended, or stop it")
            for part in (self.path, self.path / "weights", self.path / "outputs"):
                if part != self.path and part.is_symlink():
                    raise UserError(f"{part} is a link, which may lead to files of others; put the folder itself there")
                sweep(part)
            yield

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            UserError: where it is damaged, or names code that nobody here has named or agreed to.
        """
        agree(self.path / "recipe.toml", self.trusted)
        recipe = load_recipe(str(self.path / "recipe.toml"))
        if "target_held_out" in recipe.data.model_fields_set:
            return recipe
        # A run from before any images were kept aside has trained on all of them.
        return recipe.model_copy(update={"data": recipe.data.model_copy(update={"target_held_out": 0.0})})

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A temporary file that becomes the folder's file `name`, as by `atomic_write`.

        Raises:
            UserError: where the folder is gone, which is not made anew: it would lack what was written before.
        """
        self._require_there()
        with atomic_write(self.path / name) as path:
            yield path

    def _require_there(self) -> None:
        if not self.path.is_dir():
            again = f"uda fit --resume {quote(str(self.path))}"
            raise UserError(f"{self.path} was deleted or moved while it was written to; put it back, and go on with: {again}")

    def write_text(self, name: str, text: str) -> None:
        with self.writing(name) as path:
            path.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def remove(self) -> None:
        """Takes back what `create` has written into a folder that was there before."""
        for name in self.names:
            (self.path / name).unlink(missing_ok=True)

    def read_environment(self) -> Environment:
        """What the run is computed with."""
        return self._parsed(self.names[1], Environment.model_validate_json)

    def read_asked(self) -> Asked:
        """What a folder of seeds was begun with."""
        return self._parsed(self.names[1], Asked.model_validate_json)

    def read_result(self, recipe: Recipe) -> Result:
        """The figures.

        Raises:
            UserError: where there are none yet, some are missing or of another kind, or they are of another run.
        """
        result = self._parsed(RESULT, lambda text: read_result(text, recipe.classifies))
        if (result["method"], result["seed"], result["steps"]) != (recipe.method.name, recipe.seed, recipe.training.steps):
            raise UserError(f"{self.path / RESULT} and recipe.toml are of two runs; put the right one back, or fit again")
        self.written = result.get("files", {})
        return result

    def read_check(self) -> Checked | None:
        """What a few labels say (`uda check`); None where nobody has given any."""
        return self._parsed(CHECK, read_check, "check again") if os.path.lexists(self.path / CHECK) else None

    def digests(self) -> dict[str, str]:
        """A name for the content of each file of weights and outputs, by its path in the folder."""
        files = sorted((*self.path.glob("weights/*.safetensors"), *self.path.glob("outputs/*.safetensors")))
        return {file.relative_to(self.path).as_posix(): digest_of_file(file) for file in files}

    def _check_whose(self, name: str) -> None:
        if name in self.written and digest_of_file(self.path / name) != self.written[name]:
            raise UserError(f"{self.path / name} is not the file that the run wrote; put that back, or fit again")

    def _parsed(self, name: str, read: Callable[[bytes], Read], otherwise: str = "fit again") -> Read:
        try:
            regular(self.path / name)
            return read((self.path / name).read_bytes())
        except FileNotFoundError:
            raise UserError(f"{self.path} has no {name}; finish the run with: uda fit --resume {quote(str(self.path))}") from None
        except OSError as error:
            raise UserError(f"{self.path / name} cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path / name} is damaged ({_first(error)}); {otherwise}") from error

    def write_weights(self, name: str, module: nn.Module) -> None:
        """Saves ``weights/name.safetensors``. Tied parts are saved under each of their names."""
        self._write_tensors(f"weights/{name}.safetensors", module.state_dict())

    def keep_weights(self, name: str, new: str) -> None:
        """Gives ``weights/name.safetensors`` the name `new`, and deletes the weights of other evaluations."""
        folder = self.path / "weights"
        if not self.has_weights(new) and not self.has_weights(name):
            raise UserError(f"{folder / name}.safetensors is gone; fit again")
        if self.has_weights(name):  # else an interrupted run has come so far before
            os.replace(folder / f"{name}.safetensors", folder / f"{new}.safetensors")
        for other in folder.glob("evaluation-*.safetensors"):
            other.unlink()

    def write_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Saves a state dict as `torch.save` does, for other programs to read."""
        with self.writing(name) as path:
            save_state({key: value.detach().cpu().clone() for key, value in state.items()}, path)

    def write_sample(self, target: Domain) -> None:
        """Keeps up to 64 target images, uint8, so that exports can be checked where the data is not at hand."""
        self._write_tensors("sample.safetensors", {"target": next(read(target.images, in_order(target.images, 64)))})

    def read_sample(self) -> Tensor:
        """The target images that the run has kept, uint8 (n, C, S, S)."""
        (images,) = self._tensors("sample.safetensors", ("target",))
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise self._damaged("sample.safetensors")
        return images

    def ask_for_moved_images(self) -> None:
        """Asks where the images of the run's recipe are now, if they are not where they were.

        Raises:
            UserError: where some are not there.
        """
        data = self.recipe.data
        for name in (data.source, data.source_test, data.target, data.target_test):
            if name and is_path(name) and not is_url(name) and "{" not in name and not os.path.lexists(name):
                recipe = self.path / self.names[0]
                raise UserError(f"the run's images {name} are not there; put them back, or write their new place into {recipe}")

    def write_unreadable(self, lines: list[str]) -> None:
        """Writes down which images cannot be read, ``PATH: REASON``, each once; what is not `printable` is written out."""
        self.write_text(UNREADABLE, "".join(f"{line}\n" for line in dict.fromkeys(map(printable, lines))))

    def read_unreadable(self) -> list[str]:
        """The lines of ``unreadable.txt``, as `write_unreadable` wrote them; none where all images could be read.

        Raises:
            UserError: where it is a file of another kind.
        """
        there = os.path.lexists(self.path / UNREADABLE)
        return self._parsed(UNREADABLE, lambda content: content.decode("utf-8").splitlines()) if there else []

    def read_picture(self, name: str) -> bytes | None:
        """The content of a picture; None where the run has none of this name.

        Raises:
            UserError: where it is no file.
        """
        return self._parsed(name, bytes) if os.path.lexists(self.path / name) else None

    def write_outputs(self, name: str, outputs: Outputs) -> None:
        """Keeps what a classifier says in ``outputs/name.safetensors``, features as float16."""
        self._write_tensors(f"outputs/{name}.safetensors", {k: v for k, v in vars(outputs.kept()).items() if v is not None})

    def read_outputs(self, name: str) -> Outputs:
        """What `write_outputs` kept.

        Raises:
            UserError: where the file is missing or damaged.
        """
        file = f"outputs/{name}.safetensors"
        tensors = self._load(file)
        try:
            outputs = Outputs(**tensors)
            outputs.check()
            return outputs
        except (TypeError, ValueError, IndexError) as error:  # other names, or values that contradict each other
            raise self._damaged(file) from error

    def write_examples(self, examples: Examples) -> None:
        """Keeps telling target images, as `uda.evaluation.evaluator.Evaluator.examples` returns them."""
        self._write_tensors("outputs/examples.safetensors", dict(zip(EXAMPLES, examples, strict=True)))

    def read_examples(self) -> Examples:
        """What `write_examples` kept.

        Raises:
            UserError: where the file is missing or damaged.
        """
        images, labels, predicted, confidence = self._tensors("outputs/examples.safetensors", EXAMPLES)
        alike = {labels.shape, predicted.shape, confidence.shape} == {images.shape[:1]} and images.ndim == 4
        types = (images.dtype, labels.dtype, predicted.dtype) == (torch.uint8, torch.int64, torch.int64)
        if not alike or not types or not confidence.isfinite().all():
            raise self._damaged("outputs/examples.safetensors")
        return images, labels, predicted, confidence

    def _write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        with self.writing(name) as path:
            save_tensors(tensors, path)

    def _load(self, name: str) -> dict[str, Tensor]:
        try:
            regular(self.path / name)
            self._check_whose(name)
            return load_file(self.path / name)
        except PermissionError as error:
            raise UserError(f"{self.path / name} cannot be read ({error.strerror}); change its permissions") from error
        except (OSError, SafetensorError) as error:
            raise self._damaged(name) from error

    def _tensors(self, name: str, wanted: tuple[str, ...]) -> list[Tensor]:
        found = self._load(name)
        if found.keys() != set(wanted):
            raise self._damaged(name)
        return [found[each] for each in wanted]

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{self.path / name} is missing or damaged; fit again")

    def read_weights(self, name: str, module: nn.Module) -> None:
        """Loads ``weights/name.safetensors`` into `module`."""
        if not self.has_weights(name):
            raise UserError(f"{self.path} has no weights {name!r}; finish the run with: uda fit --resume {quote(str(self.path))}")
        self._check_whose(f"weights/{name}.safetensors")
        load_weights(self.path / "weights" / f"{name}.safetensors", module)

    def has_weights(self, name: str) -> bool:
        return (self.path / "weights" / f"{name}.safetensors").is_file()

    def write_checkpoint(self, state: Checkpoint, name: str = CHECKPOINT) -> None:
        if (metrics := self.path / METRICS).exists():
            sync(metrics)  # its rows up to here are not written again
            state = {**state, "metrics": metrics.stat().st_size}
        with self.writing(name) as path:
            save_state(state, path)

    def is_finished(self) -> bool:
        """Whether there is a result, and nothing is left to do."""
        return (self.path / RESULT).is_file() and not self.has_checkpoint()

    def has_checkpoint(self) -> bool:
        """Whether something is still to be done: the checkpoint is what a run deletes last."""
        return (self.path / CHECKPOINT).is_file()

    def read_checkpoint(self, name: str = CHECKPOINT) -> Checkpoint | None:
        """The state that the run was interrupted in; None where it had none. Loading executes nothing from the file."""
        path = self.path / name
        if not path.is_file():
            return None
        try:
            state: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            TypeAdapter(Checkpoint).validate_python(state)
        except Exception as error:  # a damaged file makes the reader raise almost anything
            raise UserError(f"{path} is damaged; delete it to start this run's current stage again") from error
        metrics = self.path / METRICS
        if state.get("metrics", 0) > (metrics.stat().st_size if metrics.is_file() else 0):
            raise UserError(f"{metrics} has been cut since {path} was written; fit again")
        return state

    def delete_checkpoint(self) -> None:
        for name in (GOOD, CHECKPOINT):  # the last one says that all is done
            (self.path / name).unlink(missing_ok=True)

    def write_metrics(self, rows: list[Row]) -> None:
        self.write_text(METRICS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))

    def append_metrics(self, row: Row) -> None:
        self._require_there()
        path = self.path / METRICS
        with saying(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def read_metrics(self) -> list[Row]:
        """All rows; a last one that a kill cut short is left out.

        Raises:
            UserError: where another line is damaged.
        """
        path = self.path / METRICS
        text, rows = path.read_bytes() if path.is_file() else b"", []
        for number, line in enumerate(text.split(b"\n")[:-1], 1):  # whatever stands behind the last line's end was cut short
            try:
                CheckedRow.model_validate_json(line)
                rows.append(json.loads(line))
            except ValueError as error:
                raise UserError(f"{path} is damaged (line {number}, {_first(error)}); fit again") from error
        return rows


class FollowersFolder(RunFolder):
    """The run folder for processes of the run that are not its first: they read it, and write nothing."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def write_text(self, name: str, text: str) -> None:
        pass

    def _write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        pass

    def write_checkpoint(self, state: Checkpoint, name: str = CHECKPOINT) -> None:
        pass

    def append_metrics(self, row: Row) -> None:
        pass


def shared_folder(
    path: Path, recipe: Recipe, environment: dict[str, Any], names: tuple[str, str] = RUN, named: bool = True
) -> RunFolder:
    """A new run folder, which the first process of a run makes as `RunFolder.create` does, and the others then open."""
    folder = RunFolder.create(path, recipe, environment, names, named) if ranks.first() else None
    path = ranks.agreed(folder.path if folder is not None else path)
    if ranks.anywhere(not path.is_dir()):
        raise UserError(f"not all processes of this run see {path}; give an --out on a disk that all machines share")
    if folder is not None:
        return folder
    plugins.trust(named_code(recipe.model_dump()))
    return FollowersFolder(path, names)


def open_folder(path: Path, names: tuple[str, str] = RUN, trust: bool = False) -> RunFolder:
    """An existing run folder, as `RunFolder.open` does; only the first process of a run gets one that it can write to."""
    return (RunFolder if ranks.first() else FollowersFolder).open(path, names, trust)


def check_free(path: Path, names: tuple[str, str] = RUN) -> None:
    """Whether a run could begin in a folder: one that is not there, or in which nothing else has begun.

    Raises:
        UserError: where it could not.
    """
    try:
        if not path.exists() or (path.is_dir() and _there(path) < set(names)):
            return
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give another --out") from error
    hint = f", or continue that run with: uda fit --resume {quote(str(path))}" if (path / names[0]).is_file() else ""
    if RunFolder(path, names).is_finished():
        hint = f"; it holds a finished run (uda report {quote(str(path))})"
    raise UserError(f"{path} exists already; give another --out{hint}")


def _first(error: Exception) -> str:
    """What is wrong first, in a few words."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}" if where else first["msg"]


def _make(path: Path, home: Path, files: dict[str, str], named: bool) -> Path:
    """Makes the folder `path` with these files, which are written into another folder of `home`; all of it, or nothing.

    Returns where it is: where another process has just made one of this name, and it is not `named`, under another name.

    Raises:
        UserError: where it is.
    """
    made = temporary_beside(home / "run")
    made.mkdir()
    try:
        with held(made):
            for name, content in files.items():
                (made / name).write_text(content, encoding="utf-8")
                sync(made / name)
            while True:
                try:
                    os.rename(made, path)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if named:
                        raise UserError(f"another process has just begun a run in {path}; give another --out") from None
                    path = _free(path)
        sync(home)
        return path
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(path: Path, files: dict[str, str]) -> None:
    """Writes these files, the first of them last, into a folder that may be one that cannot be replaced, such as a mount point.

    Raises:
        UserError: where another process does the same.
    """
    with held(path) as free:
        if not free or not _there(path) < set(files):
            raise UserError(f"another process begins a run in {path}; give another --out")
        for name, content in reversed(files.items()):
            with atomic_write(path / name) as temporary:
                temporary.write_text(content, encoding="utf-8")


def _there(path: Path) -> set[str]:
    """The names in a folder, but for what a process that died here has left of a beginning."""
    return {file.name for file in path.iterdir() if not is_temporary(file)}
