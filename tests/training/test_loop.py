"""The loop: what observers are told, and what becomes of a run that stops."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small_classifier
from uda import UserError
from uda.data.augment import Augment
from uda.data.batches import Batch, Batches
from uda.data.domain import Pair
from uda.methods.source_only import SourceOnly, SourceOnlySettings
from uda.players import Players
from uda.runs.folder import RunFolder
from uda.runtime import Runtime
from uda.training.loop import Checkpoints, EndReason, Interrupted, Loop, Metrics, Observer, Row, Signals, Stage, Stop

STEPS = 6


class Log(Observer):
    """Writes down what it is told; asks to stop after a step, if it is to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[Any] = []
        self.stop_after = stop_after

    def begin(self, stage: Stage) -> None:
        self.told.append(("begin", stage.name, stage.start, stage.steps))

    def step(self, step: int, row: Row) -> None:
        self.told.append(step)
        if step == self.stop_after:
            raise Stop

    def end(self, reason: EndReason) -> None:
        self.told.append(reason)


class Breaking(SourceOnly):
    """Whose loss is not a number from its third step on."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        values = super().step(batch)
        return values | {"odd": torch.tensor(float("nan") if self.done >= 3 else 0.0)}


class BreakingWhileFast(SourceOnly):
    """Whose weights are not numbers from its fourth step on, unless learning rates have been lowered."""

    def step(self, batch: Batch) -> dict[str, Tensor]:
        values = super().step(batch)
        if self.done >= 4 and self.players.scale == 1:
            with torch.no_grad():
                next(self.parameters()).fill_(float("nan"))
        return values


def train(
    path: Path,
    pair: Pair,
    runtime: Runtime,
    observers: Sequence[Observer],
    cls: type[SourceOnly] = SourceOnly,
    evaluate: Any = None,
    stage: str = "first",
) -> SourceOnly:
    """A stage of six steps, or what is left of it, in a run folder."""
    torch.manual_seed(0)
    path.mkdir(exist_ok=True)
    method, players = cls(SourceOnlySettings(), small_classifier(), (3, 16, 16), STEPS, runtime), Players(runtime, STEPS)
    method.setup(pair.target.without_labels(), players)
    batches = Batches(pair.source, None, 8, 0, Augment(erase=0.5), Augment(), runtime)
    Loop(RunFolder(path), 2, observers).train(stage, method, players, batches, evaluate)
    return method


def test_observers_are_told_of_the_beginning_each_step_and_the_end(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    log = Log()
    train(tmp_path, small_pair, fp32, [log])
    assert log.told == [("begin", "first", 0, STEPS), 1, 2, 3, 4, 5, 6, "done"]


def test_rows_hold_losses_when_they_are_logged_and_what_evaluation_returns(
    tmp_path: Path, small_pair: Pair, fp32: Runtime
) -> None:
    metrics = Metrics(RunFolder(tmp_path))
    train(tmp_path, small_pair, fp32, [metrics], evaluate=lambda step: {"scores": {"own": step}} if step == 3 else None)
    assert [(row["step"], "class" in row, "scores" in row) for row in metrics.rows] == [
        (2, True, False), (3, False, True), (4, True, False), (6, True, False),
    ]  # fmt: skip
    assert {row["stage"] for row in metrics.rows} == {"first"}
    assert RunFolder(tmp_path).read_metrics() == metrics.rows
    assert (metrics.of("first"), metrics.of("second")) == (metrics.rows, [])


def test_a_run_that_is_stopped_is_saved_and_interrupted(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    folder, log = RunFolder(tmp_path), Log(stop_after=3)
    with pytest.raises(Interrupted, match=r"after step 3 of 6 \(first\)") as raised:
        train(tmp_path, small_pair, fp32, [Checkpoints(folder), log])
    assert raised.value.path == tmp_path
    assert log.told == [("begin", "first", 0, STEPS), 1, 2, 3, "stopped"]
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    assert (checkpoint["stage"], checkpoint["players"]["done"]) == ("first", 3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_after_its_step(number: int, tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    class Sender(Observer):
        def step(self, step: int, row: Row) -> None:
            if step == 2:
                os.kill(os.getpid(), number)

    handler, log = signal.getsignal(number), Log()
    with pytest.raises(Interrupted, match="after step 2"):
        train(tmp_path, small_pair, fp32, [Sender(), log, Signals()])
    assert log.told == [("begin", "first", 0, STEPS), 1, 2, "stopped"]
    assert signal.getsignal(number) == handler, "it is put back"


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight = train(whole, small_pair, fp32, [Metrics(RunFolder(whole))])
    parts.mkdir()
    with pytest.raises(Interrupted):
        train(parts, small_pair, fp32, [Checkpoints(RunFolder(parts)), Metrics(RunFolder(parts)), Log(stop_after=3)])
    log = Log()
    resumed = train(parts, small_pair, fp32, [Metrics(RunFolder(parts)), log])
    assert log.told == [("begin", "first", 3, STEPS), 4, 5, 6, "done"]
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = [[(row["step"], row["class"]) for row in RunFolder(path).read_metrics()] for path in (whole, parts)]
    assert losses[0] == losses[1]


def test_rows_beyond_the_checkpoint_are_cut_off_when_a_run_goes_on(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    folder, log = RunFolder(tmp_path), Log(stop_after=3)
    with pytest.raises(Interrupted):
        train(tmp_path, small_pair, fp32, [Checkpoints(folder), Metrics(folder), log])
    folder.append_metrics({"stage": "first", "step": 5, "class": 99.0})
    folder.append_metrics({"stage": "another", "step": 5, "class": 98.0})
    train(tmp_path, small_pair, fp32, [Metrics(folder)])
    assert 99.0 not in [row["class"] for row in folder.read_metrics()]
    assert 98.0 in [row["class"] for row in folder.read_metrics()]


def test_a_checkpoint_of_another_stage_is_not_taken(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, small_pair, fp32, [Checkpoints(RunFolder(tmp_path)), Log(stop_after=3)])
    log = Log()
    train(tmp_path, small_pair, fp32, [log], stage="second")
    assert log.told[0] == ("begin", "second", 0, STEPS)


def test_seconds_of_an_interrupted_part_are_counted(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(Interrupted):
        train(tmp_path, small_pair, fp32, [Checkpoints(folder), Log(stop_after=3)])
    saved = folder.read_checkpoint()
    assert saved is not None
    folder.write_checkpoint(saved | {"seconds": {"first": 1000.0}, "spent": 2000.0})
    assert Loop(folder, 2, []).spent > 2000
    metrics = Metrics(folder)
    train(tmp_path, small_pair, fp32, [metrics])
    assert metrics.rows[-1]["seconds"] > 1000


def test_a_loss_that_is_no_number_is_named(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    with pytest.raises(UserError, match=r"first: the odd loss is nan at step 4; lower method.learning_rate"):
        train(tmp_path, small_pair, fp32, [], Breaking)


def test_a_failed_stage_is_not_saved(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    log = Log()
    with pytest.raises(UserError):
        train(tmp_path, small_pair, fp32, [Checkpoints(RunFolder(tmp_path)), log], Breaking)
    once = [("begin", "first", 0, STEPS), 1, 2, 3, "failed"]
    assert log.told == [*once, *once]  # it is tried again with smaller steps
    assert RunFolder(tmp_path).read_checkpoint() is None


def test_a_run_is_saved_as_it_goes_on_and_when_a_stage_ends(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    """Every `every` seconds; where that is 0, after each step."""
    folder, saved = RunFolder(tmp_path), []

    class Watch(Observer):
        def step(self, step: int, row: Row) -> None:
            checkpoint = folder.read_checkpoint()
            saved.append(checkpoint["players"]["done"] if checkpoint else None)

    train(tmp_path, small_pair, fp32, [Checkpoints(folder, every=0.0), Watch()])
    assert saved == [1, 2, 3, 4, 5, 6]
    folder.delete_checkpoint()
    saved.clear()
    train(tmp_path, small_pair, fp32, [Checkpoints(folder, every=1e6), Watch()])
    assert saved == [None] * 6
    checkpoint = folder.read_checkpoint()
    assert checkpoint is not None
    assert checkpoint["players"]["done"] == STEPS


def test_trouble_goes_back_once_and_on_with_smaller_steps(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    class Said(Observer):
        def trouble(self, what: str) -> None:
            said.append(what)

    said: list[str] = []
    metrics = Metrics(RunFolder(tmp_path))
    train(tmp_path, small_pair, fp32, [metrics, Said()], BreakingWhileFast)
    assert [row["step"] for row in metrics.of("first")] == [2, 4, 6]
    (line,) = said
    assert line.startswith("first: the weight network.")
    assert line.endswith("is not finite at step 4; back to step 0, and on with learning rates times 0.1")


def test_where_it_went_back_to_is_known_after_a_kill_too(tmp_path: Path, small_pair: Pair, fp32: Runtime) -> None:
    class Killed(Observer):
        def step(self, step: int, row: Row) -> None:
            if step == 3:
                raise KeyboardInterrupt

    folder = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, small_pair, fp32, [Checkpoints(folder, every=0.0), Killed()], BreakingWhileFast)
    log = Log()
    train(tmp_path, small_pair, fp32, [log], BreakingWhileFast)
    begun = [told for told in log.told if isinstance(told, tuple)]
    assert begun == [("begin", "first", 3, STEPS), ("begin", "first", 0, STEPS)]
