"""Work on many shards, each a task of its own, in this process or on Ray. What is done lies on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from uda.atomic import atomic_write
from uda.cluster.engine import each
from uda.console import Display
from uda.data.shards import Done
from uda.errors import UserError
from uda.plugins import named

UNREADABLE = "unreadable.txt"
Task = Callable[..., Done]
"""what is done with a shard, its second argument"""


def over_shards(
    task: Task,
    left: Sequence[tuple[Any, ...]],
    count: int,
    listing: Path,
    display: Display,
    engine: str,
    address: str | None,
    cpus: int = 1,
) -> int:
    """Does what is left of `count` shards; returns how many images that were.

    Args:
        task: a module's own function.
        left: its arguments, for each shard that is not done, which is the second of them.
        count: of all shards.
        listing: a file with a line for each image that cannot be read.
        display: shows how it goes on.
        engine, address, cpus: as in `uda.cluster.engine`.

    Raises:
        UserError: for shards of which nothing came, after all others are done.
    """
    if len(left) < count:
        display.say(f"  {count - len(left)} of {count} shards are done already")
    images, unreadable, failed, done = 0, list[str](), list[str](), count - len(left)
    with display.stage("shards", done, count) as bar:
        for number, ended in each(_attempt, [(task, *given) for given in left], str, engine, address, cpus):
            done += 1
            if isinstance(ended, str):
                shard = left[number][1]
                failed.append(ended if shard in ended else f"{shard}: {ended}")
                continue
            images += ended.images
            unreadable += ended.unreadable
            if ended.unreadable:
                _list(ended.unreadable, listing)  # at once: a shard that is done is not looked at again
            bar.update(done, f"{images:,} images")
    if unreadable:
        display.say(f"  {len(unreadable)} images cannot be read; {listing} lists them")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(left)} shards failed, for example: {failed[0]}; the same command does these alone"
        )
    return images


def _attempt(task: Task, *given: Any) -> Done | str:
    """What came of a shard, or in one line why nothing did: whatever it was, the other shards are done."""
    try:
        return task(*given)
    except UserError as error:
        return str(error)
    except (OSError, MemoryError, torch.OutOfMemoryError) as error:
        return named(error)
    except Exception as error:
        return f"an error of ours ({named(error)})"


def _list(unreadable: list[str], path: Path) -> None:
    """Adds to the list of images that cannot be read; it is written whole."""
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    with atomic_write(path) as part:
        lines = "".join(f"{line}\n" for line in sorted({*known, *unreadable}))
        part.write_text(lines, encoding="utf-8", errors="backslashreplace")
