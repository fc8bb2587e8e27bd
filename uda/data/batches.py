"""Endless shuffled batches from images in memory, or from files that are decoded ahead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from uda import ranks
from uda.data.augment import Augment, to_float
from uda.data.domain import Domain, LabelledDomain
from uda.data.files import ImageFiles, Inputs, read_and_replace
from uda.data.kept import Kept, Kind
from uda.data.shards import Members, ShardShuffle
from uda.runtime import Runtime, own_generator


@dataclass(frozen=True)
class Batch:
    """What a method's step is given: float images (B, C, H, W) in -1..1; of a domain that it does not read, none (B = 0).

    Where a body is frozen, what it has made of images stands for them: maps (B, C, H, W) or features (B, D), of one view each.

    Attributes:
        source: augmented source images.
        source_labels: their labels, int64 (B,).
        source_positions: which images of the domain they are, int64 (B,).
        target: augmented target images; as many as of the source, or more.
        target_weak: the same target images as they are.
        target_positions: which images of the target domain they are, int64 (B,).
        augment: what made `target` of `target_weak`, for a method that has more images to be seen so.
        augment_source: what made `source`.
        small: source and target images, (B, C, s, s) each, where a body is frozen and the method draws images.
        source_weak: the same source images as they are; left out, they were not augmented.
    """

    source: Tensor
    source_labels: Tensor
    source_positions: Tensor
    target: Tensor
    target_weak: Tensor
    target_positions: Tensor
    augment: Augment = field(default_factory=Augment)
    augment_source: Augment = field(default_factory=Augment)
    small: tuple[Tensor, Tensor] | None = None
    source_weak: Tensor | None = None

    def pixels(self, count: int | None = None, source_weak: bool = False) -> tuple[Tensor, Tensor]:
        """Source images, with `source_weak` as they are, and target images as they are: what a method draws images from.

        The first `count` of both, of all processes together; left out, all.
        """
        weak = self.source_weak if source_weak and self.source_weak is not None else self.source
        source, target = self.small or (weak, self.target_weak)
        if count is None:
            return source, target
        own = ranks.share(count, "method.drawn_batch")
        return source[:own], target[:own]

    def drawn_labels(self, count: int | None = None) -> Tensor:
        """The labels of the source images that `pixels` returns."""
        return self.source_labels[: len(self.pixels(count)[0])]


class Shuffle:
    """Endless indices 0..count-1, each once per epoch, in an order drawn from a generator of its own.

    So it makes no difference how far ahead files are read, and by how many processes; and several processes of one run draw one
    order, though their global generators part.

    With `labels` (count,) and `shares` (K,), an epoch holds the classes in proportion to their shares: of a class that is to come
    more often than it has images, they come several times.
    """

    def __init__(self, count: int, labels: Tensor | None = None, shares: Tensor | None = None) -> None:
        self.count = count
        self.parts: list[tuple[Tensor, int]] = []  # each class's images, and how many of them make an epoch
        if labels is not None and shares is not None:
            members = [(labels.cpu() == k).nonzero().squeeze(1) for k in range(len(shares))]
            there = [(own, float(share)) for own, share in zip(members, shares, strict=True) if len(own)]
            total = sum(share for _, share in there)
            self.parts = [(own, math.ceil(count * share / total)) for own, share in there]
        self.generator = own_generator()
        self.order, self.position = self._epoch(), 0

    def _epoch(self) -> Tensor:
        if not self.parts:
            return self._shuffled(self.count)
        drawn = []
        for members, wanted in self.parts:
            rounds = [members[self._shuffled(len(members))] for _ in range(-(-wanted // len(members)))]
            drawn.append(torch.cat([members[:0], *rounds])[:wanted])
        order = torch.cat(drawn)
        return order[self._shuffled(len(order))]

    def _shuffled(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self.generator)

    def take(self, size: int) -> Tensor:
        """The next `size` indices; an epoch's rest that is too short for a batch is filled up from the next epoch."""
        taken = self.order[self.position : self.position + size]
        self.position += size
        while len(taken) < size:
            self.order, self.position = self._epoch(), size - len(taken)
            taken = torch.cat([taken, self.order[: self.position]])
        return taken

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "position": self.position, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.position = state["order"], state["position"]
        self.generator.set_state(state["generator"])


class Stream:
    """Endless shuffled batches of one set of inputs; files are decoded ahead, and what is ahead belongs to the state.

    Where a run has several processes, each is handed its own rows of a batch of `size`.
    """

    def __init__(self, images: Inputs, size: int, labels: Tensor | None = None, shares: Tensor | None = None) -> None:
        self.images, self.size = images, size
        self.augmented: Kind = "strong" if labels is None else "any"
        self.shuffle: Shuffle | ShardShuffle
        if isinstance(images, ImageFiles) and isinstance(images.names, Members) and shares is None:
            self.shuffle = ShardShuffle(images.names.starts)
        else:
            self.shuffle = Shuffle(len(images), labels, shares)
        self.ahead: deque[Tensor] = deque()  # positions that were asked for and not yet handed out
        self.decoded: Generator[tuple[Tensor, dict[int, int]], None, None] | None = None

    def next(self, augment: Augment) -> tuple[Tensor, Tensor, Tensor]:
        """A batch (N, ...) as it is and augmented, float32, and its positions (N,). Of what a frozen body keeps, two views."""
        if isinstance(self.images, Kept):
            positions = ranks.own(self.shuffle.take(self.size))
            weak, augmented = self.images.drawn(positions, "weak"), self.images.drawn(positions, self.augmented)
            return weak, augmented, positions.to(weak.device)
        if self.decoded is None:
            self.decoded = read_and_replace(self.images, self._blocks())
        read, replaced = next(self.decoded)
        images, positions = to_float(read), ranks.own(self.ahead.popleft())
        if replaced:  # whoever stands for a damaged image brings its own label
            positions = torch.tensor([replaced.get(position, position) for position in positions.tolist()])
        return images, augment(images), positions.to(images.device)

    def _blocks(self) -> Iterator[Tensor]:
        yield from [ranks.own(block) for block in self.ahead]
        while True:
            block = self.shuffle.take(self.size)
            self.ahead.append(block)
            yield ranks.own(block)

    def close(self) -> None:
        """Ends the processes that decode ahead."""
        if self.decoded is not None:
            self.decoded.close()
            self.decoded = None

    def state_dict(self) -> dict[str, Any]:
        return {**self.shuffle.state_dict(), "ahead": list(self.ahead)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shuffle.load_state_dict(state)
        self.ahead, self.decoded = deque(state["ahead"]), None


class Batches:
    """Draws batches from both domains; its state makes an interrupted run continue with the very next batch.

    With `class_shares` (K,), the source's classes come in proportion to these.
    """

    def __init__(
        self,
        source: LabelledDomain | None,
        target: Domain | None,
        size: int,
        target_size: int,
        source_augment: Augment,
        target_augment: Augment,
        runtime: Runtime,
        class_shares: Tensor | None = None,
    ) -> None:
        self.labels, self.runtime = source.labels if source else None, runtime
        self.source_augment, self.target_augment = source_augment, target_augment
        self.source = Stream(source.inputs, size, source.labels, class_shares) if source else None
        self.target = Stream(target.inputs, target_size) if target else None
        self.small: tuple[Tensor, Tensor] | None = None
        if source is not None and target is not None and source.small is not None and target.small is not None:
            self.small = source.small, target.small

    def next(self) -> Batch:
        source = target = plain_source = plain = None
        labels = picked = target_picked = torch.zeros(0, dtype=torch.int64, device=self.runtime.device)
        if self.source is not None and self.labels is not None:
            plain_source, source, picked = self.source.next(self.source_augment)
            labels = self.labels[picked]
        if self.target is not None:
            plain, target, target_picked = self.target.next(self.target_augment)
        none = next(images[:0] for images in (source, target) if images is not None)
        plain_source = None if plain_source is None or plain_source is source else self.runtime.arrange(plain_source)
        source, target, plain = (none if part is None else self.runtime.arrange(part) for part in (source, target, plain))
        small = self.small and (self._drawn_from(self.small[0], picked), self._drawn_from(self.small[1], target_picked))
        augments = self.target_augment, self.source_augment
        return Batch(source, labels, picked, target, plain, target_picked, *augments, small, plain_source)

    def _drawn_from(self, images: Tensor, positions: Tensor) -> Tensor:
        return self.runtime.arrange(to_float(images[positions.cpu()].to(self.runtime.device)))

    def close(self) -> None:
        """Ends the processes that decode files ahead, if there are any."""
        for stream in (self.source, self.target):
            if stream:
                stream.close()

    def state_dict(self) -> dict[str, Any]:
        streams = {"source": self.source, "target": self.target}
        return {name: stream.state_dict() for name, stream in streams.items() if stream}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for stream, name in ((self.source, "source"), (self.target, "target")):
            if stream:
                stream.load_state_dict(state[name])
