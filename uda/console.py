"""What a user sees while a run goes on: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from uda.text import printable

PLAIN_EVERY = 15.0  # seconds between two plain lines of one stage


def duration(seconds: float) -> str:
    """``"2 min 05 s"``, ``"48 s"``, ``"3 h 10 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def next_steps(run: Path, classifies: bool, look_at: str = "") -> str:
    """What a finished run is good for, with the command; and at which images to look where no label tells how good it is."""
    use = predict_with(run) if classifies else f"uda translate {quote(str(run))} IMAGES"
    check = f", and at {look_at} to see how good it is (uda check {quote(str(run))})" if look_at else ""
    return f"look at {run / 'report.html'}{check}; then use it: {use}"


def predict_with(run: Path) -> str:
    """The command that classifies images with a run."""
    return f"uda predict {quote(str(run))} IMAGES"


class _Console(Console):
    """Shows what a terminal would obey, in lines, cells and titles, as text; colours of its own stay."""

    lasting = False

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text, keep="\n"), **how)

    def print(self, *what: Any, **how: Any) -> None:
        """Where the output cannot be written, as on a full disk, it ends, and what goes on does so without a word."""
        try:
            super().print(*what, **how)
        except OSError as error:
            if not self.lasting or error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Whoever read the output has seen enough; the work goes on, where rich would end it."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def new_console(quiet: bool = False, soft_wrap: bool = False, lasting: bool = False) -> Console:
    """A console for text of any origin: nothing in it is taken for markup or the name of an emoji, or moves the cursor.

    `lasting`: what goes on behind it is worth more than what it shows.
    """
    console = _Console(quiet=quiet, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)
    console.lasting = lasting
    return console


class StageDisplay:
    """One stage's progress: call `update` after steps, `estimate` once its speed is known."""

    def __init__(self, display: Display, name: str, start: int, steps: int, bar: Progress | None) -> None:
        self.display, self.name, self.start, self.steps, self.bar = display, printable(name), start, steps, bar
        self.began = self.said = time.perf_counter()
        self.task = bar.add_task(self.name, total=steps, completed=start, note="") if bar else None

    def update(self, step: int, note: str = "") -> None:
        """`note`: losses and scores, short; an empty one leaves the last on show."""
        if self.bar is not None and self.task is not None:
            if note:
                self.bar.update(self.task, completed=step, note=printable(note))
            else:
                self.bar.update(self.task, completed=step)
        elif note and (time.perf_counter() - self.said > PLAIN_EVERY or step == self.steps):
            self.said = time.perf_counter()
            left = (self.said - self.began) / max(1, step - self.start) * (self.steps - step)
            self.display.say(
                f"  {self.name} {step}/{self.steps}  {note}" + (f"  {duration(left)} left" if step < self.steps else "")
            )

    def estimate(self, seconds: float) -> None:
        self.display.say(f"  {self.name}: {self.steps - self.start:,} steps, about {duration(seconds)}")


class Display:
    """Says things to a person. `quiet` says nothing; one of `lasting` work falls silent where the output cannot be written."""

    def __init__(self, quiet: bool = False, console: Console | None = None, lasting: bool = False) -> None:
        self.console = console or new_console(quiet, soft_wrap=True, lasting=lasting)

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def show(self, table: Table) -> None:
        self.console.print(table)

    @contextmanager
    def stage(self, name: str, start: int, steps: int) -> Iterator[StageDisplay]:
        """A stage of `steps` steps, `start` of which an earlier part of the run has done."""
        if not self.console.is_terminal:
            yield StageDisplay(self, name, start, steps, None)
            return
        columns = (
            TextColumn("  {task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), TextColumn("{task.fields[note]}", style="dim", markup=False),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as bar:
            yield StageDisplay(self, name, start, steps, bar)
