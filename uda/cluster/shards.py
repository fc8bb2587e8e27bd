"""Work on many shards, each a task of its own, in this process or on Ray. What is done lies on the disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from uda.atomic import atomic_write, sweep
from uda.cluster.engine import each
from uda.console import Display
from uda.data.shards import Done
from uda.errors import UserError
from uda.plugins import blamed, named

UNREADABLE = "unreadable.txt"
Found = Callable[..., Done | None]
"""what was made of a shard before, None where nothing was; the shard is its second argument"""
Make = Callable[..., Done]
"""makes it; of the same arguments"""


def over_shards(
    found: Found,
    make: Make,
    tasks: Sequence[tuple[Any, ...]],
    listing: Path,
    display: Display,
    engine: str,
    address: str | None,
    cpus: int = 1,
) -> int:
    """Does what is left of many shards; returns how many images could be read.

    Args:
        found, make: a module's own functions.
        tasks: their arguments, for each shard.
        listing: a file with a line for each image that cannot be read.
        display: shows how it goes on.
        engine, address, cpus: as in `uda.cluster.engine`.

    Raises:
        UserError: for shards of which nothing came, after all others are done.
    """
    sweep(listing.parent)
    before = {given[1]: one for given in tasks if (one := found(*given)) is not None}
    left = [given for given in tasks if given[1] not in before]
    if before:
        display.say(f"  {len(before)} of {len(tasks)} shards are done already")
    listed = _Listing(listing, {given[1] for given in tasks})
    listed.write(before)  # whoever made these may have died before it listed them
    images, failed, done = 0, list[str](), len(before)
    with display.stage("shards", done, len(tasks)) as bar:
        for number, ended in each(_attempt, [(found, make, *given) for given in left], str, engine, address, cpus):
            done += 1
            shard = left[number][1]
            if isinstance(ended, str):
                failed.append(ended if shard in ended else f"{shard}: {ended}")
                continue
            images += ended.images - len(ended.unreadable)
            listed.write({shard: ended})  # at once: a shard that is done is not looked at again
            bar.update(done, f"{images:,} images")
    if listed.count:
        display.say(f"  {listed.count} images cannot be read; {listing} lists them")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(left)} shards failed, for example: {failed[0]}; the same command does these alone"
        )
    if left and not images and not any(one.images > len(one.unreadable) for one in before.values()):
        raise UserError(f"none of the images in {left[0][1]}{' and the others' if len(left) > 1 else ''} can be read; mend them")
    return images


def _attempt(found: Found, make: Make, *given: Any) -> Done | str:
    """What came of a shard, or in one line why nothing did: whatever it was, the other shards are done."""
    try:
        return found(*given) or make(*given)  # a task that is run again, since its node died, may have been done
    except UserError as error:
        return str(error)
    except (OSError, MemoryError, torch.OutOfMemoryError) as error:
        return named(error)
    except Exception as error:
        return blamed(error)


class _Listing:
    """The images that cannot be read, a line for each; what is said of a shard takes the place of what was said of it before."""

    def __init__(self, path: Path, shards: set[str]) -> None:
        self.path, self.lines = path, {_plain(shard): set[str]() for shard in shards}
        self.others: set[str] = set()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            places = (line[:at] for at, letter in enumerate(line) if letter == "/")
            self.lines.get(next((place for place in places if place in self.lines), ""), self.others).add(line)

    @property
    def count(self) -> int:
        """How many images of these shards that are."""
        return sum(map(len, self.lines.values()))

    def write(self, ended: Mapping[str, Done]) -> None:
        """Lists what came of some shards. The file is written whole, where anything is new."""
        said = {_plain(shard): {_plain(line) for line in one.unreadable} for shard, one in ended.items()}
        if all(self.lines[shard] == lines for shard, lines in said.items()):
            return
        self.lines |= said
        with atomic_write(self.path) as part:
            lines = sorted(self.others.union(*self.lines.values()))
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _plain(text: str) -> str:
    """Text whose every letter can be written in one line of a file."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
