"""Tasks for tests, in a module that workers import."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import torch

from uda.data.shards import Done
from uda.errors import UserError


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


def over(folder: Path, shard: str) -> Done:
    """What becomes of a shard by its name; any other is done, and holds one image."""
    match shard:
        case "kills.tar":
            os._exit(1)
        case "full.tar":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        case "large.tar":
            raise torch.OutOfMemoryError("no memory\nat all")
        case "ours.tar":
            raise KeyError(1)
        case "wrong.tar":
            raise UserError("wrong.tar is no tar")
    (folder / shard).touch()
    return Done(1, [])


def found(folder: Path, shard: str) -> Done | None:
    """Of a shard that `over` is done with, an image that cannot be read."""
    return Done(1, [f"{shard}/1.png: damaged"]) if (folder / shard).exists() else None
