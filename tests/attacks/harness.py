"""A command in a process of its own, with limits of time and memory: what it printed, wrote and took."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uda.cli import main

EXTRA = 2**30  # bytes beyond what the process had before


@dataclass(frozen=True)
class Outcome:
    """What became of one attack.

    Attributes:
        code: the exit code; -N where signal N ended it, as SIGKILL (9) does after the time limit.
        out, err: what it printed.
        seconds: what it took.
    """

    code: int
    out: str
    err: str
    seconds: float

    @property
    def refused(self) -> bool:
        """Whether it ended as wrong input has to: in one line, with exit code 2."""
        return self.code == 2 and self.err.startswith("uda: ") and self.err.count("\n") == 1


@dataclass(frozen=True)
class Sent:
    """A signal that a child gets.

    Attributes:
        number: which.
        after: seconds after its beginning.
        group: whether its own children, such as readers of images, get it, too; Ctrl-C in a terminal goes to all.
    """

    number: signal.Signals
    after: float
    group: bool = True

    def to(self, child: int) -> None:
        (os.killpg if self.group else os.kill)(child, self.number)


def listed(path: Path) -> list[dict[str, Any]]:
    """The rows of a list (JSON lines) that is gone on with; none where there is no such file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def forked(task: Callable[[], object], folder: Path, seconds: float = 20, sent: Sent | None = None) -> Outcome:
    """Runs `task` in a forked child, which has all modules at hand, in `folder`."""
    began, logs = time.monotonic(), [folder.parent / f"{folder.name}.{name}" for name in ("out", "err")]
    for log in logs:
        log.write_text("")  # a signal may end the child before it has opened them
    sys.stdout.flush()
    sys.stderr.flush()
    if (child := os.fork()) == 0:
        _in_child(task, folder, logs)
    with suppress(OSError):  # where the child has been quicker
        os.setpgid(child, child)
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if sent is not None and time.monotonic() - began > sent.after:
            sent.to(child)
            sent = None
        if time.monotonic() - began > seconds:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    out, err = (log.read_text(encoding="utf-8", errors="backslashreplace") for log in logs)
    return Outcome(os.waitstatus_to_exitcode(ended[1]), out, err, time.monotonic() - began)


def _in_child(task: Callable[[], object], folder: Path, logs: Sequence[Path]) -> None:
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)  # so that its reader processes end with it
        os.chdir(folder)
        for log, number in zip(logs, (1, 2), strict=True):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # not pytest's
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA, used + EXTRA))
        task()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def attack(words: Sequence[str], folder: Path, seconds: float = 20, sent: Sent | None = None) -> Outcome:
    """The command line with these words, in `folder`."""

    def task() -> None:
        sys.argv = ["uda", *words]
        main()

    return forked(task, folder, seconds, sent)
