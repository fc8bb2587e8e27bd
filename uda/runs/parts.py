"""What a frozen body makes of the images in tar shards: one part for each shard, made side by side, and read as one.

All parts of one body and one set of views lie in one folder. A part is ``NAME.bin``, its maps, and ``NAME.json``, which is
written last: without it, the part is not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uda.atomic import atomic_write
from uda.data.kept import Parts
from uda.data.shards import Done, Members, state_of
from uda.runs.cache import ABOUT, digest, map_file, write_maps


class Gathered(NamedTuple):
    """What all parts together hold of some images.

    Attributes:
        maps: (M, V, ...), of all readable images of the shards.
        readable: which of the images that were asked for can be read, int64 (n,).
        rows: whose maps these are, int64 (n,).
        unreadable: a line for each of the others.
        computed: on what, in words; more than one where parts differ.
    """

    maps: Parts
    readable: Tensor
    rows: Tensor
    unreadable: tuple[str, ...]
    computed: tuple[str, ...]


class PartsFolder:
    """A folder of parts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(self, shard: str) -> str:
        """A shard's part: another one where the shard has changed."""
        return digest(state_of(shard))

    def found(self, name: str) -> Done | None:
        """What a part was made of; None where it is not there."""
        about = self._about(name)
        return None if about is None else Done(about["shape"][0] + len(about["lost"]), about["unreadable"])

    def write(self, name: str, blocks: Iterable[Tensor], lost: dict[int, str], computed: str) -> None:
        """Writes a part.

        Args:
            name: the part's.
            blocks: maps (B, V, ...) of the shard's readable images, in order.
            lost: a line for each of its other images, by position; filled while `blocks` are taken.
            computed: on what, in words.
        """
        with atomic_write(self.path / f"{name}.bin") as path:
            shape, dtype = write_maps(path, blocks)
        about = {
            "shape": shape, "dtype": dtype, "lost": list(lost), "unreadable": list(lost.values()), "computed": computed,
        }  # fmt: skip
        with atomic_write(self.path / f"{name}.json") as path:
            path.write_text(json.dumps(about), encoding="utf-8")
        with suppress(FileNotFoundError):
            os.utime(self.path / ABOUT)  # what is being written is not what was not read for longest

    def gather(self, members: Members) -> Gathered | None:
        """What the parts hold of these images; None where that of one of their shards is not there."""
        starts, within = members.starts, members.within(np.arange(len(members)))
        rows, readable = np.empty(len(members), dtype=np.int64), np.ones(len(members), dtype=bool)
        maps: list[Tensor] = []
        unreadable: list[str] = []
        computed: dict[str, None] = {}
        before = 0
        for shard, first, end in zip(members.shards, starts, starts[1:], strict=False):
            if first == end:
                continue
            if (about := self._about(name := self.name(shard))) is None:
                return None
            own, lost = within[first:end], np.array(about["lost"], dtype=np.int64)
            if own[-1] >= about["shape"][0] + len(lost):  # of a URL's shard that has changed since
                return None
            readable[first:end] = ~np.isin(own, lost)
            rows[first:end] = before + own - np.searchsorted(lost, own)
            unreadable += [line for at, line in zip(about["lost"], about["unreadable"], strict=True) if at in own]
            if count := about["shape"][0]:
                maps.append(map_file(self.path / f"{name}.bin", about["shape"], about["dtype"]))
            before, computed[about["computed"]] = before + count, None
        found = np.flatnonzero(readable)
        return Gathered(Parts(maps), torch.from_numpy(found), torch.from_numpy(rows[found]), tuple(unreadable), tuple(computed))

    def _about(self, name: str) -> dict[str, Any] | None:
        try:
            about: dict[str, Any] = json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return about
