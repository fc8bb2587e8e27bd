"""Trackers of experiments as observers of the loop: TensorBoard, MLflow, Weights & Biases.

Each is told the settings, the losses and scores that ``metrics.jsonl`` holds, by stage, and the figures of ``result.json``. A
resumed run goes on in the same place. Nothing leaves the machine unless the tracker's own variables say so
(``MLFLOW_TRACKING_URI``, ``WANDB_MODE=online``): else all of it lies in the run folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from uda.console import Display
from uda.errors import UserError
from uda.evaluation.results import Result, Row
from uda.plugins import named
from uda.recipe.schema import Recipe
from uda.runs.cache import digest
from uda.runs.environment import Environment
from uda.runs.folder import RunFolder
from uda.training.loop import EndReason, Observer, Stage

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PARAMETERS = 100  # that MLflow takes at once


class Tracker(Observer):
    """Is told a run's numbers.

    Args:
        folder: the run folder.
        recipe: whose settings are told.
        run: what tells the run from others, and is the same where it is resumed.
    """

    package: ClassVar[str]
    takes_back: ClassVar[bool] = False
    """whether what it was told can be taken back; else, of steps that are taken again, the first telling stays"""

    def __init__(self, folder: Path, recipe: Recipe, run: str) -> None:
        self.folder, self.recipe, self.run = folder, recipe, digest(run)
        self.settings = flat(recipe.model_dump(mode="json"))
        self.opened = False
        self.told: dict[str, int] = {}  # the last step of each stage that it knows

    def begin(self, stage: Stage) -> None:
        self.open_once()
        self.enter(stage.name.replace(" ", "_"), stage.start)

    def step(self, step: int, row: Row) -> None:
        numbers = {name: value for name, value in flat(row).items() if isinstance(value, float)}
        if numbers and (self.takes_back or step > self.told.get(self.stage, 0)):
            self.told[self.stage] = step
            self.log({f"{self.stage}/{name}": value for name, value in numbers.items()}, step)

    def result(self, result: Result) -> None:
        self.open_once()
        self.close(figures(result), result["steps"])

    def open_once(self) -> None:
        """Opens it, unless it is open."""
        if not self.opened:
            self.opened = True
            self.open()

    def open(self) -> None:
        """Before the first numbers."""
        raise NotImplementedError

    def enter(self, stage: str, start: int) -> None:
        """A stage begins, or goes on after `start` steps: what was told of later ones is not of this run."""
        self.stage = stage

    def close(self, figures: Mapping[str, float], steps: int) -> None:
        """After the last numbers: accuracies by name, after so many steps. It may be told so twice."""
        raise NotImplementedError

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of a step of the present stage, by ``STAGE/NAME``."""
        raise NotImplementedError


class TensorBoard(Tracker):
    """Event files in ``RUN/tensorboard``, a folder for each stage: ``tensorboard --logdir RUN``.

    It tells the steps of one stage from those of another by their folders, when those of an interrupted part are dropped.
    """

    package = "tensorboard"
    takes_back = True

    def open(self) -> None:
        writer = self._writer("recipe", 0)
        writer.add_text("recipe", "\n".join(f"    {line}" for line in self.recipe.to_toml().splitlines()))
        writer.close()

    def enter(self, stage: str, start: int) -> None:
        super().enter(stage, start)
        self.writer = self._writer(stage, start + 1)

    def _writer(self, name: str, first: int) -> SummaryWriter:
        """Of a folder, in which all that came at step `first` or later is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(self.folder / "tensorboard" / name, purge_step=first)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def end(self, reason: EndReason) -> None:
        self.writer.close()

    def close(self, figures: Mapping[str, float], steps: int) -> None:
        writer = self._writer("result", 0)
        for name, value in figures.items():
            writer.add_scalar(f"result/{name}", value, steps)
        writer.close()


class MLflow(Tracker):
    """A run of the experiment ``uda``, at ``MLFLOW_TRACKING_URI`` or in ``RUN/mlflow.db``."""

    package = "mlflow"

    def open(self) -> None:
        # A server that is down is noticed within seconds; a minute's patience would be each step's.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.folder / 'mlflow.db').absolute()}"
        self.client = MlflowClient(place)
        known = self.client.get_experiment_by_name("uda")
        experiment = known.experiment_id if known else self.client.create_experiment("uda")
        earlier = self.client.search_runs([experiment], f"tags.uda = '{self.run}'", max_results=1)
        if earlier:
            self.id = earlier[0].info.run_id
            for name in earlier[0].data.metrics:
                stage, last = name.partition("/")[0], self.client.get_metric_history(self.id, name)[-1].step
                self.told[stage] = max(last, self.told.get(stage, 0))
            return
        self.id = self.client.create_run(experiment, tags={"uda": self.run}, run_name=self.folder.name).info.run_id
        params = [Param(name, str(value)) for name, value in self.settings.items()]
        for first in range(0, len(params), PARAMETERS):
            self.client.log_batch(self.id, params=params[first : first + PARAMETERS])

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, [Metric(name, value, now, step) for name, value in numbers.items()])

    def close(self, figures: Mapping[str, float], steps: int) -> None:
        if "result" not in self.told:
            self.log({f"result/{name}": value for name, value in figures.items()}, steps)
        self.client.set_terminated(self.id)


class WeightsAndBiases(Tracker):
    """A run of the project ``uda``, in ``RUN/wandb`` (``wandb sync`` sends it), or with ``WANDB_MODE=online`` on their server.

    Offline, it cannot go on with what an interrupted part has written: it is told that anew, from ``metrics.jsonl``.
    """

    package = "wandb"

    def open(self) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        earlier = list((self.folder / "wandb").glob(f"offline-run-*-{self.run}")) if mode == "offline" else []
        for path in earlier:
            shutil.rmtree(path, ignore_errors=True)
        self.board = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "uda"), dir=self.folder, name=self.folder.name, id=self.run, mode=mode,
            resume="allow" if mode == "online" else None, config=self.settings, settings=wandb.Settings(silent=True),
        )  # fmt: skip

        for row in RunFolder(self.folder).read_metrics() if earlier else ():
            self.enter(row["stage"].replace(" ", "_"), 0)
            self.step(row["step"], row)

    def enter(self, stage: str, start: int) -> None:
        super().enter(stage, start)
        self.board.define_metric(f"{self.stage}/*", step_metric=f"{self.stage}/step")  # each stage counts from 1
        self.told.setdefault(self.stage, int(self.board.summary.get(f"{self.stage}/step") or 0))  # of a run that goes on online

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.board.log({**numbers, f"{self.stage}/step": step})

    def close(self, figures: Mapping[str, float], steps: int) -> None:
        self.board.summary.update({f"result/{name}": value for name, value in figures.items()})
        self.board.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}


class Careful(Observer):
    """Tells a tracker what it is told; where that fails, as where its server is down, says so once, and the run goes on."""

    def __init__(self, tracker: Tracker, display: Display) -> None:
        self.tracker, self.display, self.there = tracker, display, True

    def begin(self, stage: Stage) -> None:
        self._try(lambda: self.tracker.begin(stage))

    def step(self, step: int, row: Row) -> None:
        self._try(lambda: self.tracker.step(step, row))

    def end(self, reason: EndReason) -> None:
        self._try(lambda: self.tracker.end(reason))

    def result(self, result: Result) -> None:
        self._try(lambda: self.tracker.result(result))

    def _try(self, tell: Callable[[], None]) -> None:
        if not self.there:
            return
        try:
            tell()
        except Exception as error:  # whatever a client of somebody's server raises
            self.there = False
            place = self.tracker.folder
            self.display.say(f"  note: {self.tracker.package} is told no more ({named(error)}); all of it is in {place}")


def trackers_of(folder: RunFolder, environment: Environment, display: Display) -> list[Careful]:
    """Those that a run was begun with."""
    return [Careful(TRACKERS[name](folder.path, folder.recipe, environment.run), display) for name in environment.track]


def check_trackers(names: Sequence[str]) -> None:
    """Whether these trackers can be had.

    Raises:
        UserError: for a name that is none of `TRACKERS`, or where its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError.unknown("tracker", name, TRACKERS)
        if importlib.util.find_spec(TRACKERS[name].package) is None:
            raise UserError(f'{name} is not installed; pip install "uda-toolkit[track]", or leave out --track {name}')


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def figures(result: Result) -> dict[str, float]:
    """The accuracies that are known, by their names."""
    return {name: value for name, value in result.get("accuracy", {}).items() if value is not None}
