"""The loop that takes a method's steps, and the observers that it tells how it goes."""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import Any, Literal

from uda import ranks, signals
from uda.collectives import averaged, copy_from_first
from uda.console import Display, StageDisplay
from uda.data.batches import Batches
from uda.errors import NotFinite, Terminated, UserError
from uda.evaluation.results import Result, Row
from uda.methods.base import Method
from uda.players import Players
from uda.runs.folder import CHECKPOINT, GOOD, Checkpoint, RunFolder
from uda.runtime import part_ways, random_state, restore_random_state

SMALLER = 0.1  # what learning rates are multiplied by after numerical trouble
SAVE_EVERY = 30.0  # seconds between two checkpoints
SHOWN = ("class", "generator_adversarial", "reconstruction", "target_entropy", "pseudo_label", "generator_class")

EndReason = Literal["done", "stopped", "failed"]


class Interrupted(Exception):
    """The run was asked to stop; what it goes on from is in the run folder `path`.

    Attributes:
        path: of the run, or of several seeds' runs.
        terminated: whether it was SIGTERM that asked.
    """

    def __init__(self, message: str, path: Path, terminated: bool = False) -> None:
        super().__init__(message)
        self.path, self.terminated = path, terminated


class Stop(Exception):
    """Raised by an observer after a step: the run is saved, and ends as `Interrupted`."""

    def __init__(self, terminated: bool = False) -> None:
        super().__init__()
        self.terminated = terminated


@contextmanager
def resumable(path: Path) -> Iterator[None]:
    """While there is a run in the folder `path` to go on with: what stops it, in training or outside, is `Interrupted`."""
    try:
        with signals.patient(), ranks.resumable(f"uda fit --resume {quote(str(path))}"):
            yield
    except KeyboardInterrupt as stop:
        raise Interrupted("interrupted", path, isinstance(stop, Terminated)) from None


@dataclass(frozen=True)
class Stage:
    """A part of a run that takes steps.

    Attributes:
        name: as it stands in ``metrics.jsonl``.
        start: how many steps an earlier part of the run has done.
        steps: how many there are in all.
        state: all that a resumed run needs, as it is when this is called.
    """

    name: str
    start: int
    steps: int
    state: Callable[[], Checkpoint]


class Observer:
    """Is told how a run goes on. A subclass overrides what it wants to know; it may raise `Stop` in `step`.

    Of a run's several processes, the first alone has observers of the user's.
    """

    def begin(self, stage: Stage) -> None:
        """Before a stage's first step."""

    def step(self, step: int, row: Row) -> None:
        """After each step; `row` is empty where nothing is logged of it."""

    def trouble(self, what: str) -> None:
        """Where a stage, which has ended as failed, begins again from where all was well."""

    def end(self, reason: EndReason) -> None:
        """After a stage's last step, whatever made it the last."""

    def result(self, result: Result) -> None:
        """After all, the run's figures."""


class Progress(Observer):
    """Shows a stage to a person: a bar or lines, the last losses, and the time that is left."""

    def __init__(self, display: Display) -> None:
        self.display, self.stack = display, ExitStack()

    def begin(self, stage: Stage) -> None:
        if stage.start:
            self.display.say(f"  {stage.name}: going on after step {stage.start}")
        self.stage, self.warm = stage, time.perf_counter()
        self.bar: StageDisplay = self.stack.enter_context(self.display.stage(stage.name, stage.start, stage.steps))

    def step(self, step: int, row: Row) -> None:
        start, steps = self.stage.start, self.stage.steps
        if step == start + 1:  # it also pays for compiling kernels, so the estimate is made from the next five
            self.warm = time.perf_counter()
        if step == start + 6 and steps - step > 20:
            self.bar.estimate((time.perf_counter() - self.warm) / 5 * (steps - start))
        note = "  ".join(f"{name} {row[name]:.3g}" for name in SHOWN if name in row)
        note += "".join(f"  {name} {value:.3f}" for name, value in row.get("scores", {}).items())
        self.bar.update(step, note)

    def trouble(self, what: str) -> None:
        self.display.say(f"  {what}")

    def end(self, reason: EndReason) -> None:
        self.stack.close()


class Metrics(Observer):
    """Writes ``metrics.jsonl``, and keeps its rows. What an interrupted part wrote beyond its last checkpoint is cut off."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.rows = folder, folder.read_metrics()

    def begin(self, stage: Stage) -> None:
        self.rows = [row for row in self.rows if row["stage"] != stage.name or row["step"] <= stage.start]
        self.folder.write_metrics(self.rows)

    def step(self, step: int, row: Row) -> None:
        if row:
            self.rows.append(row)
            self.folder.append_metrics(row)

    def of(self, stage: str) -> list[Row]:
        """The rows of one stage."""
        return [row for row in self.rows if row["stage"] == stage]


class Checkpoints(Observer):
    """Saves all that a resumed run needs, every `every` seconds and when a stage ends."""

    def __init__(self, folder: RunFolder, every: float | None = None) -> None:
        self.folder, self.every = folder, SAVE_EVERY if every is None else every

    def begin(self, stage: Stage) -> None:
        self.stage, self.saved = stage, time.perf_counter()

    def step(self, step: int, row: Row) -> None:
        if ranks.agreed(time.perf_counter() - self.saved > self.every):  # a state is that of all processes
            self._save()

    def end(self, reason: EndReason) -> None:
        if reason != "failed":
            self._save()

    def _save(self) -> None:
        self.folder.write_checkpoint(self.stage.state())
        self.saved = time.perf_counter()


class Signals(Observer):
    """SIGINT and SIGTERM stop the run after the step; outside the main thread they cannot be caught, and are not."""

    def begin(self, stage: Stage) -> None:
        self.asked, self.old = 0, {}

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = number

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.old[number] = signal.signal(number, ask)
            except ValueError:
                return

    def step(self, step: int, row: Row) -> None:
        if self.asked:
            raise Stop(self.asked == signal.SIGTERM)

    def end(self, reason: EndReason) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


class Loop:
    """Takes the steps of one stage after another.

    Attributes:
        seconds: what each stage has taken so far, those of an interrupted part included.
        troubles: by stage, what was not finite, and where the stage went on from with smaller steps.
        run: what tells the run from others: no other one's checkpoint is gone on from.
    """

    def __init__(self, folder: RunFolder, log_every: int, observers: Sequence[Observer], run: str = "") -> None:
        self.folder, self.log_every, self.observers, self.run = folder, log_every, observers, run
        self.began, self.checkpoint = time.perf_counter(), folder.read_checkpoint()
        if self.checkpoint and self.checkpoint.get("run", run) != run:
            raise self._foreign()
        self.spent_before: float = self.checkpoint["spent"] if self.checkpoint else 0.0
        self.seconds: dict[str, float] = dict(self.checkpoint["seconds"]) if self.checkpoint else {}
        self.troubles: dict[str, str] = dict(self.checkpoint["troubles"]) if self.checkpoint else {}

    @property
    def spent(self) -> float:
        """Seconds since the run began, without those in which it lay interrupted."""
        return self.spent_before + time.perf_counter() - self.began

    def train(
        self,
        name: str,
        method: Method,
        players: Players,
        batches: Batches,
        evaluate: Callable[[int], Row | None] | None = None,
        table: str = "method",
    ) -> None:
        """Steps of `method`, which is set up, until it has taken all that `players` were made for.

        Where a loss, a score or a weight is not finite, it goes back, once, to where all was well (the last evaluation, or the
        stage's beginning), and on from there with learning rates times `SMALLER`.

        Args:
            name: of the stage.
            method, players, batches: what takes the steps; all three go on from a checkpoint of this stage.
            evaluate: what is to be written down of the method after a step; None where it is not to be evaluated then.
            table: of the recipe, where the method's settings stand.

        Raises:
            NotFinite: where that does not help; it names the setting to change.
            Interrupted: where it was stopped.
        """
        copy_from_first(method)
        part_ways()
        self._restore(self.checkpoint, name, method, players, batches)
        for last in (name in self.troubles, True):
            try:
                self._steps(name, method, players, batches, evaluate)
                return
            except NotFinite as trouble:
                good = self.folder.read_checkpoint(GOOD)
                if last or good is None or good["stage"] != name:
                    raise NotFinite(f"{name}: {trouble}; {advice(method, players, table)}") from None
                self._restore(good, name, method, players, batches)
                players.scale = SMALLER
                self.troubles[name] = f"{trouble}; back to step {players.done}, and on with learning rates times {SMALLER}"
                for observer in self.observers:
                    observer.trouble(f"{name}: {self.troubles[name]}")

    def _steps(
        self, name: str, method: Method, players: Players, batches: Batches, evaluate: Callable[[int], Row | None] | None
    ) -> None:
        before, began = self.seconds.get(name, 0.0) if players.done else 0.0, time.perf_counter()

        def seconds() -> float:
            return before + time.perf_counter() - began

        def state() -> Checkpoint:
            finite_weights(method, players.done)  # nothing else is gone on from
            self.seconds[name] = seconds()
            return {
                "run": self.run, "stage": name, "seconds": self.seconds, "spent": self.spent, "troubles": self.troubles,
                "method": method.state_dict(), "players": players.state_dict(), "batches": batches.state_dict(),
                "random": random_state(), "random_of_others": ranks.of_others(random_state()),
            }  # fmt: skip

        stage = Stage(name, players.done, players.steps, state)
        reason: EndReason = "failed"
        stop: Stop | None = None

        def tell_end(observer: Observer) -> None:
            observer.end(reason)

        with ExitStack() as ends, closing(batches):
            for observer in self.observers:
                observer.begin(stage)
                ends.callback(tell_end, observer)  # each is told, even where another fails
            if stage.start == 0:
                self.folder.write_checkpoint(state(), GOOD)
            for step in range(stage.start + 1, stage.steps + 1):
                row = self._step(step, step == stage.steps, method, batches, evaluate)
                if "scores" in row:
                    self.folder.write_checkpoint(state(), GOOD)
                row = {"stage": name, "step": step, "seconds": round(seconds(), 2), **row} if row else row
                stop = self._stopped(step, row)
                if ranks.anywhere(stop is not None):
                    reason = "stopped"
                    break
            else:
                reason = "done"
        if reason == "stopped":
            done = f"interrupted after step {players.done} of {stage.steps} ({name})"
            raise Interrupted(done, self.folder.path, stop is not None and stop.terminated)

    def _stopped(self, step: int, row: Row) -> Stop | None:
        """Tells the observers of a step; how one of them stops the run, if one does."""
        try:
            for observer in self.observers:
                observer.step(step, row)
        except Stop as stop:
            return stop
        return None

    def _step(self, step: int, last: bool, method: Method, batches: Batches, evaluate: Callable[[int], Row | None] | None) -> Row:
        """One step; what is to be written down of it, all of which is finite."""
        losses = method.step(batches.next())
        row = finite("loss", step, averaged(losses)) if last or step % self.log_every == 0 else {}
        evaluated = (evaluate(step) if evaluate else None) or {}
        finite("score", step, evaluated.get("scores", {}))
        if row or evaluated:
            finite_weights(method, step)
        return row | evaluated

    def _restore(self, state: Checkpoint | None, name: str, method: Method, players: Players, batches: Batches) -> None:
        """Puts everything back as a checkpoint has it, where that is one of this stage."""
        if state and state["stage"] == name:
            try:
                method.load_state_dict(state["method"])
                players.load_state_dict(state["players"])
                batches.load_state_dict(state["batches"])
                others = state.get("random_of_others", [])
                if ranks.rank() <= len(others):  # else there are more processes than there were
                    restore_random_state([state["random"], *others][ranks.rank()])
            except Exception as error:  # another run's state makes the readers raise almost anything
                raise self._foreign() from error

    def _foreign(self) -> UserError:
        path = self.folder.path / CHECKPOINT
        return UserError(f"{path} is damaged or another run's; delete it to start this run's current stage again")


def finite(kind: str, step: int, values: Mapping[str, Any]) -> Row:
    """Losses or scores as numbers.

    Raises:
        NotFinite: where one is infinite or not a number.
    """
    row = {name: float(value) for name, value in values.items()}
    for name, value in row.items():
        if not math.isfinite(value):
            raise NotFinite(f"the {name} {kind} is {value} at step {step}")
    return row


def finite_weights(method: Method, step: int) -> None:
    """Whether the weights that a method trains, and its statistics of batch norm, are finite.

    Raises:
        NotFinite: where they are not.
    """
    trained = ((name, weight) for name, weight in method.named_parameters() if weight.requires_grad)
    statistics = ((name, value) for name, value in method.named_buffers() if name.endswith(("running_mean", "running_var")))
    for name, value in itertools.chain(trained, statistics):
        if not value.isfinite().all():
            raise NotFinite(f"the weight {name} is not finite at step {step}")


def advice(method: Method, players: Players, table: str) -> str:
    """Which settings to change where numbers do not stay finite."""
    rates = [f"{table}.{name}" for name in type(method.settings).model_fields if name.endswith("_rate")]
    lower = f"lower {' or '.join(rates)}" if rates else "take smaller steps"
    return lower + (", or fit with --precision fp32" if players.runtime.precision == "bf16" else "")
