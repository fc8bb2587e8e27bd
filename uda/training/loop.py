"""The loop that takes a method's steps."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

from uda.console import Display
from uda.data.batches import Batches
from uda.errors import UserError
from uda.evaluation.evaluator import Evaluator, Seen
from uda.evaluation.selection import SCORES, entropy
from uda.methods import Method, Trained
from uda.recipe.schema import Recipe
from uda.runs.folder import RunFolder
from uda.runtime import random_state, restore_random_state

SAVE_EVERY = 30.0  # seconds between two checkpoints


class Interrupted(Exception):
    """The run was asked to stop; its state is saved in the run folder `path`."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class Look:
    """A look at the method while it trains: its label-free scores, and beside them what the evaluator sees."""

    def __init__(self, folder: RunFolder, recipe: Recipe, method: Method, evaluator: Evaluator) -> None:
        self.folder, self.method, self.evaluator = folder, method, evaluator
        self.wanted, self.every = recipe.selection, recipe.training.evaluate_every

    def __call__(self, step: int) -> dict[str, Any]:
        """The figures to write down. The weights are kept until one look of all is selected."""
        classifier = self.method.classifier()
        evidence = self.evaluator.evidence(classifier, self.wanted.reads_source or self.wanted.keep)
        scores = {name: SCORES[name](evidence) for name in self.wanted.score}
        self.folder.write_weights(f"look-{step}", classifier)
        if self.wanted.keep:
            self.folder.write_seen(f"look-{step}", Seen(evidence, None))
        row = {"scores": scores, "target_mean_entropy": entropy(evidence.target_logits)}
        answers = self.evaluator.on_target(classifier)
        return row if answers is None else row | {"target_test_accuracy": answers.accuracy}


class Loop:
    """Takes a method's steps, writes down its losses, and saves enough to go on after an interruption."""

    def __init__(self, folder: RunFolder, recipe: Recipe, display: Display) -> None:
        self.folder, self.recipe, self.display = folder, recipe, display
        self.began = time.perf_counter()
        self.checkpoint = folder.read_checkpoint()
        self.spent_before: float = self.checkpoint["spent"] if self.checkpoint else 0.0
        self.seconds: dict[str, float] = dict(self.checkpoint["seconds"]) if self.checkpoint else {}
        self.stop = False

    def train(self, stage: str, method: Trained, batches: Batches, steps: int, look: Look | None = None) -> list[dict[str, Any]]:
        """Steps until `steps`; returns all rows of this stage, those of an interrupted part included."""
        start = 0
        if self.checkpoint and self.checkpoint["stage"] == stage:
            method.load_state_dict(self.checkpoint["method"])
            batches.load_state_dict(self.checkpoint["batches"])
            restore_random_state(self.checkpoint["random"])
            start = self.checkpoint["step"]
            self.display.say(f"  {stage}: going on after step {start}")
        done = [row for row in self.folder.read_metrics() if row["stage"] != stage or row["step"] <= start]
        self.folder.write_metrics(done)
        rows = [row for row in done if row["stage"] == stage]
        before, began = self.seconds.get(stage, 0.0) if start else 0.0, time.perf_counter()
        saved = warm = began

        def save(step: int) -> None:
            self.seconds[stage] = before + time.perf_counter() - began
            self.folder.write_checkpoint(
                {
                    "stage": stage,
                    "step": step,
                    "method": method.state_dict(),
                    "batches": batches.state_dict(),
                    "random": random_state(),
                    "seconds": self.seconds,
                    "spent": self.spent_before + time.perf_counter() - self.began,
                }
            )

        with self.display.stage(stage, start, steps) as progress, _signals(self._ask_to_stop), closing(batches):
            for step in range(start + 1, steps + 1):
                values = method.step(batches.next())
                if step == start + 1:  # it also pays for compiling kernels, so the estimate is made from the next five
                    warm = time.perf_counter()
                if step == start + 6 and steps - step > 20:
                    progress.estimate((time.perf_counter() - warm) / 5 * (steps - start))
                note = ""
                row: dict[str, Any] = {}
                if step % self.recipe.training.log_every == 0 or step == steps:
                    row = {name: float(value) for name, value in values.items()}
                    self._refuse_nan(stage, step, row)
                    note = "  ".join(f"{name} {value:.3g}" for name, value in row.items() if name in SHOWN)
                if look and (step % look.every == 0 or step == steps):
                    row |= look(step)
                    note += "".join(f"  {name} {value:.3f}" for name, value in row["scores"].items())
                if row:
                    row = {"stage": stage, "step": step, "seconds": round(before + time.perf_counter() - began, 2), **row}
                    rows.append(row)
                    self.folder.append_metrics(row)
                progress.update(step, note)
                if self.stop or time.perf_counter() - saved > SAVE_EVERY or step == steps:
                    save(step)
                    saved = time.perf_counter()
                if self.stop:
                    raise Interrupted(f"interrupted after step {step} of {steps} ({stage})", self.folder.path)
        return rows

    def _ask_to_stop(self) -> None:
        self.stop = True

    def _refuse_nan(self, stage: str, step: int, row: dict[str, float]) -> None:
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"{stage}: the {bad[0]} loss is {row[bad[0]]} at step {step}; lower method.learning_rate, or try --precision fp32"
            )


SHOWN = ("class", "generator_adversarial", "reconstruction", "target_entropy", "pseudo_label", "generator_class")


class _signals:
    """SIGINT and SIGTERM ask for a stop after the step; outside the main thread they cannot be caught, and are not."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self.ask = ask

    def __enter__(self) -> None:
        self.old: dict[int, Any] = {}

        def handler(number: int, frame: FrameType | None) -> None:
            self.ask()

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.old[number] = signal.signal(number, handler)
            except ValueError:
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
