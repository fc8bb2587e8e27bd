"""What a frozen body makes of images, for some views of each: computed once, and to every method what an image was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["weak", "strong", "any"]


class Parts:
    """Maps in several files that are read as one tensor (N, V, ...), N over all parts; each part's are memory-mapped.

    Attributes:
        shape: (N, V, ...).
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = parts
        self.ends = torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(0)
        self.shape = torch.Size((int(self.ends[-1]), *parts[0].shape[1:])) if parts else torch.Size((0,))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: tuple[Tensor, Tensor]) -> Tensor:
        """A view of each of some images, (B, ...); both int64 (B,)."""
        positions, views = at
        found = self.parts[0].new_empty((len(positions), *self.shape[2:]))
        of = torch.searchsorted(self.ends, positions.contiguous(), right=True)
        for number in of.unique().tolist():
            rows, part = of == number, self.parts[number]
            found[rows] = part[positions[rows] - (self.ends[number] - len(part)), views[rows]]
        return found


class Other(NamedTuple):
    """What a second body makes of the same images, and how that is brought to the first one's mean and deviation.

    Attributes:
        kept: its maps, which become maps x scale + shift.
        scale, shift: (1, D) or (1, C', 1, 1), on the device where maps are read.
    """

    kept: Kept
    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Kept:
    """Pooled features or maps of all images of a domain.

    Attributes:
        maps: (N, V, ...), float32 or bfloat16, in memory or memory-mapped: V views of each image.
        weak: how many of the views, the first ones, are of images as they are; the rest are augmented. Where there is no rest,
            any view stands for an augmented one.
        device: where they are put when they are read.
        other: another body's, where what is read is the mean of both.
        rows: which rows of the maps these images' are, where they are not all, int64 (n,).
    """

    maps: Tensor | Parts
    weak: int
    device: torch.device
    other: Other | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.maps if self.rows is None else self.rows)

    def only(self, positions: Tensor) -> Kept:
        """Some of the images, without a copy of their maps; `positions` int64 (n,), on the CPU."""
        other = self.other and self.other._replace(kept=self.other.kept.only(positions))
        return replace(self, rows=positions if self.rows is None else self.rows[positions], other=other)

    @property
    def shape(self) -> torch.Size:
        """(N, ...): of what is read."""
        return torch.Size((len(self), *self.maps.shape[2:]))

    def to(self, device: torch.device) -> Kept:
        return replace(self, device=device, other=self.other and self.other._replace(kept=self.other.kept.to(device)))

    def tested(self, positions: Tensor) -> Tensor:
        """The view that is tested on, float32 (B, ...); `positions` int64 (B,)."""
        return self._read(positions.cpu(), torch.zeros(len(positions), dtype=torch.int64))

    def drawn(self, positions: Tensor, kind: Kind) -> Tensor:
        """A view of each image, drawn at random from those of a kind: float32 (B, ...)."""
        last = self.maps.shape[1]
        first, last = {"weak": (0, self.weak), "strong": (self.weak % last, last), "any": (0, last)}[kind]
        views = torch.randint(first, last, (len(positions),))
        return self._read(positions.cpu(), views)

    def _read(self, positions: Tensor, views: Tensor) -> Tensor:
        rows = positions if self.rows is None else self.rows[positions]
        maps = self.maps[rows, views].to(self.device, torch.float32)
        if self.other is None:
            return maps
        others = self.other.kept._read(positions, views)
        return (maps + others * self.other.scale + self.other.shift) / 2
