"""Endless shuffled batches from images that lie in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uda.data.augment import Augment, to_float
from uda.data.domain import Domain, LabelledDomain
from uda.data.files import Images, read
from uda.runtime import Runtime


@dataclass(frozen=True)
class Batch:
    """What a method's step is given: float images (B, C, H, W) in -1..1; of the target as many as of the source, or more.

    Attributes:
        source: augmented source images.
        source_labels: their labels, int64 (B,).
        target: augmented target images; none (B = 0) where a method reads the source alone.
        target_plain: the same target images as they are.
    """

    source: Tensor
    source_labels: Tensor
    target: Tensor
    target_plain: Tensor


class Shuffle:
    """Endless indices 0..count-1, each once per epoch, in an order drawn from torch's global generator."""

    def __init__(self, count: int) -> None:
        self.order, self.position = torch.randperm(count), 0

    def take(self, size: int) -> Tensor:
        """The next `size` indices; an epoch's rest that is too short for a batch is filled up from the next epoch."""
        taken = self.order[self.position : self.position + size]
        self.position += size
        while len(taken) < size:
            self.order, self.position = torch.randperm(len(self.order)), size - len(taken)
            taken = torch.cat([taken, self.order[: self.position]])
        return taken


class Stream:
    """Endless shuffled batches of one set of images; files are decoded ahead, and what is ahead belongs to the state."""

    def __init__(self, images: Images, size: int) -> None:
        self.images, self.size = images, size
        self.shuffle = Shuffle(len(images))
        self.ahead: deque[Tensor] = deque()  # positions that were asked for and not yet handed out
        self.decoded: Iterator[Tensor] | None = None

    def next(self) -> tuple[Tensor, Tensor]:
        """A batch, uint8 (size, C, H, W), and its positions."""
        if self.decoded is None:
            self.decoded = read(self.images, self._blocks())
        images = next(self.decoded)
        return images, self.ahead.popleft().to(images.device)

    def _blocks(self) -> Iterator[Tensor]:
        yield from list(self.ahead)
        while True:
            block = self.shuffle.take(self.size)
            self.ahead.append(block)
            yield block

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.shuffle.order, "position": self.shuffle.position, "ahead": list(self.ahead)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shuffle.order, self.shuffle.position = state["order"], state["position"]
        self.ahead, self.decoded = deque(state["ahead"]), None


class Batches:
    """Draws batches from both domains; its state makes an interrupted run continue with the very next batch."""

    def __init__(
        self,
        source: LabelledDomain,
        target: Domain | None,
        size: int,
        target_size: int,
        source_augment: Augment,
        target_augment: Augment,
        runtime: Runtime,
    ) -> None:
        self.labels, self.runtime = source.labels, runtime
        self.source_augment, self.target_augment = source_augment, target_augment
        self.source = Stream(source.images, size)
        self.target = Stream(target.images, target_size) if target else None

    def next(self) -> Batch:
        images, picked = self.source.next()
        source = self.source_augment(to_float(images))
        if self.target is None:
            target = target_plain = source[:0]
        else:
            target_plain = to_float(self.target.next()[0])
            target = self.target_augment(target_plain)
        arrange = self.runtime.arrange
        return Batch(arrange(source), self.labels[picked], arrange(target), arrange(target_plain))

    def state_dict(self) -> dict[str, Any]:
        return {"source": self.source.state_dict()} | ({"target": self.target.state_dict()} if self.target else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state["source"])
        if self.target:
            self.target.load_state_dict(state["target"])
