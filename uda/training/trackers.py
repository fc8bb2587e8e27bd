"""Trackers of experiments as observers of the loop: TensorBoard, MLflow, Weights & Biases.

Each is told the settings, the losses and scores that ``metrics.jsonl`` holds, by stage, and the figures of ``result.json``. A
resumed run goes on in the same place. Nothing leaves the machine unless the tracker's own variables say so
(``MLFLOW_TRACKING_URI``, ``WANDB_MODE=online``): else all of it lies in the run folder.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from uda.errors import UserError
from uda.evaluation.results import Result, Row
from uda.recipe.schema import Recipe
from uda.runs.cache import digest
from uda.training.loop import Observer, Stage

PARAMETERS = 100  # that MLflow takes at once


class Tracker(Observer):
    """Is told a run's numbers.

    Args:
        folder: the run folder.
        recipe: whose settings are told.
        run: what tells the run from others, and is the same where it is resumed.
    """

    package: ClassVar[str]

    def __init__(self, folder: Path, recipe: Recipe, run: str) -> None:
        self.folder, self.recipe, self.run = folder, recipe, digest(run)
        self.settings = flat(recipe.model_dump(mode="json"))
        self.opened = False

    def begin(self, stage: Stage) -> None:
        self.stage = stage.name.replace(" ", "_")
        if not self.opened:
            self.open(stage.start)
            self.opened = True

    def step(self, step: int, row: Row) -> None:
        if numbers := {name: value for name, value in flat(row).items() if isinstance(value, float)}:
            self.log({f"{self.stage}/{name}": value for name, value in numbers.items()}, step)

    def open(self, start: int) -> None:
        """Before the first numbers; of a resumed run, after `start` steps."""
        raise NotImplementedError

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers of a step of the present stage, by ``STAGE/NAME``."""
        raise NotImplementedError


class TensorBoard(Tracker):
    """Event files in ``RUN/tensorboard``: ``tensorboard --logdir RUN``."""

    package = "tensorboard"

    def open(self, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(self.folder / "tensorboard", purge_step=start + 1 if start else None)
        self.writer.add_text("recipe", "\n".join(f"    {line}" for line in self.recipe.to_toml().splitlines()))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def result(self, result: Result) -> None:
        if self.opened:
            for name, value in figures(result).items():
                self.writer.add_scalar(f"result/{name}", value, result["steps"])
            self.writer.close()


class MLflow(Tracker):
    """A run of the experiment ``uda``, at ``MLFLOW_TRACKING_URI`` or in ``RUN/mlflow.db``."""

    package = "mlflow"

    def open(self, start: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.folder / 'mlflow.db').absolute()}"
        self.client = MlflowClient(place)
        known = self.client.get_experiment_by_name("uda")
        experiment = known.experiment_id if known else self.client.create_experiment("uda")
        earlier = self.client.search_runs([experiment], f"tags.uda = '{self.run}'", max_results=1)
        if earlier:
            self.id = earlier[0].info.run_id
            return
        self.id = self.client.create_run(experiment, tags={"uda": self.run}, run_name=self.folder.name).info.run_id
        params = [Param(name, str(value)) for name, value in self.settings.items()]
        for first in range(0, len(params), PARAMETERS):
            self.client.log_batch(self.id, params=params[first : first + PARAMETERS])

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, [Metric(name, value, now, step) for name, value in numbers.items()])

    def result(self, result: Result) -> None:
        if self.opened:
            self.log({f"result/{name}": value for name, value in figures(result).items()}, result["steps"])
            self.client.set_terminated(self.id)


class WeightsAndBiases(Tracker):
    """A run of the project ``uda``, in ``RUN/wandb`` (``wandb sync`` sends it), or with ``WANDB_MODE=online`` on their server."""

    package = "wandb"

    def open(self, start: int) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or "offline"
        self.board = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "uda"), dir=self.folder, name=self.folder.name, id=self.run, mode=mode,
            resume="allow" if mode == "online" else None, config=self.settings, settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def begin(self, stage: Stage) -> None:
        super().begin(stage)
        self.board.define_metric(f"{self.stage}/*", step_metric=f"{self.stage}/step")  # each stage counts from 1

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.board.log({**numbers, f"{self.stage}/step": step})

    def result(self, result: Result) -> None:
        if self.opened:
            self.board.summary.update({f"result/{name}": value for name, value in figures(result).items()})
            self.board.finish()


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}


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
