"""How a sweep stands: one live table for a person, and a table of results for other programs."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.live import Live
from rich.table import Table

from uda.atomic import atomic_write
from uda.cluster.trials import Ended, Trial
from uda.console import Display
from uda.inference.predict import as_cell

RESULTS = "results.csv"
ACCURACIES = "source", "source_only", "last", "selected", "oracle"
SHOWN = 20
"""trials that the table shows at most: those that run, and of the others those that ended last"""


class Standing:
    """Keeps ``results.csv`` in the folder of a sweep, and shows how far its trials are.

    Attributes:
        failed: trials that failed, and why.
    """

    def __init__(self, out: Path, trials: list[Trial], display: Display) -> None:
        self.out, self.trials, self.display, self.began = out, trials, display, time.time()
        self.failed: dict[Trial, str] = {}
        self.stopped: set[Trial] = set()
        self.results = {trial: trial.result() for trial in trials if trial.is_done}
        self.live = Live(console=display.console, auto_refresh=False, transient=True) if display.console.is_terminal else None

    def __enter__(self) -> Standing:
        self._write()
        if self.results:
            self.display.say(f"{len(self.results)} of {len(self.trials)} trials are finished already")
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()
        if kind is None:
            self.display.show(self._table(len(self.trials)))
        elif issubclass(kind, KeyboardInterrupt):
            self.display.say(f"{len(self.results)} of {len(self.trials)} trials are finished; the same command goes on")

    def end(self, trial: Trial, ended: Ended) -> None:
        """A trial has ended."""
        if ended.state == "done":
            self.results[trial] = trial.result()
        elif ended.state == "failed":
            self.failed[trial] = ended.note
        self._write()
        self.show()
        if self.live is None and ended.state != "stopped":
            count = len(self.results) + len(self.failed)
            self.display.say(
                f"  {count} of {len(self.trials)}: {trial.combination.name}, seed {trial.seed}: {self._state(trial)}"
            )

    def stop(self, trials: set[Trial]) -> None:
        """The scores of these trials were not good enough to go on."""
        self.stopped = {trial for trial in trials if trial not in self.results and trial not in self.failed}
        self._write()

    def show(self) -> None:
        """Brings the live table up to date."""
        if self.live:
            self.live.update(self._table(SHOWN), refresh=True)

    def _state(self, trial: Trial) -> str:
        if trial in self.results:
            return "done"
        if trial in self.failed:
            return f"failed: {self.failed[trial]}"
        if trial in self.stopped:
            return "stopped by its score"
        return "running" if self._runs(trial) else "waiting"

    def _runs(self, trial: Trial) -> bool:
        """Whether anything has been written to its folder since this driver began."""
        try:
            with os.scandir(trial.path) as files:
                return any(file.stat().st_mtime >= self.began for file in files)
        except OSError:
            return False

    def _table(self, most: int) -> Table:
        states = {trial: self._state(trial).partition(":")[0] for trial in self.trials}
        counts = [(name, sum(state == name for state in states.values())) for name in dict.fromkeys(states.values())]
        table = Table(
            title=f"{self.out}: {', '.join(f'{count} {name}' for name, count in sorted(counts))}",
            title_justify="left", box=box.SIMPLE_HEAD,
        )  # fmt: skip
        for name in ("combination", "seed", "state", "source_only", "last", "estimated", "seconds"):
            table.add_column(name, justify="left" if name in ("combination", "state") else "right", overflow="fold")
        ended = [*self.results, *self.failed]
        shown = [trial for trial in self.trials if states[trial] == "running"]
        shown += [trial for trial in reversed(ended) if trial not in shown]
        shown += [trial for trial in self.trials if trial not in shown]
        chosen = set(shown[:most])
        for trial in self.trials:
            if trial in chosen:
                table.add_row(trial.combination.name, str(trial.seed), self._shown(trial, states[trial]), *self._figures(trial))
        return table

    def _shown(self, trial: Trial, state: str) -> str:
        stage, step = trial.progress() if state == "running" else ("", 0)
        return f"{stage} {step}" if stage else state

    def _figures(self, trial: Trial) -> list[str]:
        if trial not in self.results:
            return ["", "", "", ""]
        row = self._row(trial)
        shares = [row[name] for name in ("source_only", "last", "estimated")]
        return [*("" if share is None else f"{share:.4f}" for share in shares), f"{row['seconds']:.0f}"]

    def _row(self, trial: Trial) -> dict[str, Any]:
        """What ``results.csv`` says of a trial."""
        one = trial.combination
        row: dict[str, Any] = {"folder": str(trial.path.relative_to(self.out.absolute())), "recipe": one.recipe.name}
        row |= {"method": one.recipe.method.name, "seed": trial.seed, **one.values, "state": self._state(trial).partition(":")[0]}
        result = self.results.get(trial)
        if result is None:
            return row | {"note": self.failed.get(trial, "")}
        accuracy = {name: result["accuracy"][name] for name in ACCURACIES}
        return row | accuracy | {"estimated": result["estimated"]["accuracy"], "seconds": result["seconds"]["total"]}

    def _write(self) -> None:
        columns = ["folder", "recipe", "method", "seed", *self.trials[0].combination.values, "state"]
        columns += [*ACCURACIES, "estimated", "seconds", "note"]
        with atomic_write(self.out / RESULTS) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            for trial in self.trials:
                row = self._row(trial)
                table.writerow({key: as_cell(value) if isinstance(value, str) else value for key, value in row.items()})
