"""One trial of a sweep: a run folder among those of other seeds, of which everything is known from the disk."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from uda.atomic import lock
from uda.cluster.spec import Combination
from uda.data.files import bound_readers
from uda.errors import OwnCodeError, UserError
from uda.evaluation.results import Row, evaluations
from uda.plugins import blamed, own_frames
from uda.runs.cache import digest
from uda.runs.folder import RUN, SEEDS, RunFolder
from uda.training.loop import Interrupted, Observer, Stage, Stop
from uda.training.seeds import run_seed
from uda.training.stages import ADAPTATION_STAGE

PATIENCE = 60.0
"""seconds that a trial waits for the process of a driver that died, which may still write to its folder"""


@dataclass(frozen=True)
class Trial:
    """A combination with one seed.

    Attributes:
        combination: what runs.
        seed: with which seed.
        out: the folder of the sweep.
    """

    combination: Combination
    seed: int
    out: Path

    @property
    def group(self) -> Path:
        """The folder of the combination, which holds one run folder for each seed."""
        return self.out / self.combination.name

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.group / f"seed-{self.seed}"

    @cached_property
    def source(self) -> str:
        """The same for trials that begin with the same source classifier."""
        recipe = self.combination.recipe
        return digest(recipe.data, recipe.classifier, recipe.augment.source, self.seed)

    @property
    def is_done(self) -> bool:
        return RunFolder(self.path).is_finished()

    def progress(self) -> tuple[str, int]:
        """The stage that it is in and the last step written down; an empty name where it has not come so far."""
        try:
            with (self.path / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - 4096))
                last: Row = json.loads(file.read().splitlines()[-1])
            return str(last["stage"]), int(last["step"])
        except (OSError, ValueError, LookupError):
            return "", 0

    def scores(self, step: int) -> dict[str, float] | None:
        """Its label-free scores at the first evaluation from `step` on; None where it has not come so far."""
        rows = RunFolder(self.path).read_metrics()
        later = [row for row in evaluations(rows) if row["stage"] == ADAPTATION_STAGE and row["step"] >= step]
        return later[0]["scores"] if later else None

    def result(self) -> dict[str, Any]:
        """The contents of ``result.json``."""
        return dict(RunFolder(self.path).read_result(self.combination.recipe.model_copy(update={"seed": self.seed})))


def sources_first(trials: list[Trial]) -> list[Trial]:
    """The trials in such an order that those which begin together begin with different source classifiers, where they can.

    So few wait for what another one is training.
    """
    seen: dict[str, int] = {}
    place = {}
    for trial in trials:
        place[trial] = seen[trial.source] = seen.get(trial.source, -1) + 1
    return sorted(trials, key=place.__getitem__)


class Ended(NamedTuple):
    """How a trial ended: ``"done"``, ``"stopped"`` at the step that was asked for, or ``"failed"``, and what there is to say."""

    state: str
    note: str = ""


class StopAt(Observer):
    """Stops a run at the first evaluation of the method from a step on, unless that is the last."""

    def __init__(self, until: int) -> None:
        self.until, self.reached = until, False

    def begin(self, stage: Stage) -> None:
        self.stage = stage

    def step(self, step: int, row: Row) -> None:
        if "scores" in row and self.until <= step < self.stage.steps:
            self.reached = True
            raise Stop


def run_trial(group: Path, seed: int, until: int | None = None, report: bool = True, cpus: int = 1) -> Ended:
    """Begins or continues a trial, in whatever process this is called; one that has come so far is not touched.

    Args:
        group: the folder of its combination, from which all else is read.
        seed: its seed.
        until: the step after which it is to stop; left out, it runs to its end.
        report: whether it gets a page of its own.
        cpus: cores that it has: one for itself, the others for processes that read images, of which there is at least one.

    Raises:
        Interrupted: where it was asked to stop; it goes on wherever it is called next.
    """
    bound_readers(max(1, cpus - 1))
    stop = StopAt(until) if until is not None else None
    try:
        if not (group / SEEDS[0]).is_file():
            raise UserError(f"{group} is not there on this node; give --out a folder that all nodes share")
        _wait_for(group / f"seed-{seed}" / RUN[0])
        asked = RunFolder.open(group, SEEDS, trust=True).read_asked()  # the spec has named its code
        run_seed(group, seed, asked, observers=[stop] if stop else [], trust=True, report=report)
    except Interrupted:
        if stop is None or not stop.reached:
            raise
        return Ended("stopped")
    except UserError as error:
        return Ended("failed", blamed(error) if isinstance(error, OwnCodeError) else str(error))
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not own_frames(error):  # Ray's own, of a node that ends: the trial is run again
            raise
        return Ended("failed", blamed(error))
    return Ended("done")


def _wait_for(recipe: Path) -> None:
    """Waits while another process holds a run folder, by its recipe; a dead one holds none."""
    until = time.monotonic() + PATIENCE
    while recipe.is_file() and time.monotonic() < until:
        with lock(recipe) as free:
            if free:
                return
        time.sleep(0.5)
