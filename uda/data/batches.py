"""Endless shuffled batches from images that lie in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uda.data.augment import Augment, to_float
from uda.data.domain import Domain, LabelledDomain
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
        self.source, self.target, self.runtime = source, target, runtime
        self.size, self.target_size = size, target_size
        self.source_augment, self.target_augment = source_augment, target_augment
        self.source_shuffle, self.target_shuffle = Shuffle(len(source)), Shuffle(len(target) if target else 1)

    def next(self) -> Batch:
        device = self.source.images.device
        picked = self.source_shuffle.take(self.size).to(device)
        source = self.source_augment(to_float(self.source.images[picked]))
        if self.target is None:
            target = target_plain = source[:0]
        else:
            target_plain = to_float(self.target.images[self.target_shuffle.take(self.target_size).to(device)])
            target = self.target_augment(target_plain)
        arrange = self.runtime.arrange
        return Batch(arrange(source), self.source.labels[picked], arrange(target), arrange(target_plain))

    def state_dict(self) -> dict[str, Tensor | int]:
        source, target = self.source_shuffle, self.target_shuffle
        return {"source": source.order, "source_at": source.position, "target": target.order, "target_at": target.position}

    def load_state_dict(self, state: dict) -> None:
        self.source_shuffle.order, self.source_shuffle.position = state["source"], state["source_at"]
        self.target_shuffle.order, self.target_shuffle.position = state["target"], state["target_at"]
