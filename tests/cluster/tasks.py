"""Tasks for tests, in a module that a worker imports at once: each death costs a worker's start."""

from __future__ import annotations

import os
from pathlib import Path


def die_once(folder: Path) -> str:
    """Ends its process, as a node that dies does, unless it has done so before."""
    mark = folder / "died"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return "done"


def die(folder: Path, name: str) -> str:
    """What becomes of a task by its name: one kills its process each time, one raises, any other is done."""
    if name == "kills":
        with (folder / "deaths").open("a") as file:
            file.write("x")
        os._exit(1)
    if name == "raises":
        raise LookupError("of two\nlines")
    return "done"
