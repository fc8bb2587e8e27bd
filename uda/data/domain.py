"""Domains: where images come from, and what may be known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from uda.data.files import ImageFiles, Images, Inputs, read, read_and_replace, together
from uda.data.kept import Kept
from uda.data.shards import BUFFER, Members
from uda.errors import UserError

FEWEST_ASIDE, MOST_ASIDE = 200, 2000


HELD_OUT = "every tenth, held out"
TRAINED_ON = "tested on what it was trained on"
"""what the note of source test images ends with, where these are a part of the source, or all of it"""


@dataclass(frozen=True)
class Domain:
    """Unlabelled images of one kind. It has no attribute that could hold labels: this is what a method gets of the target.

    Attributes:
        name: the data set and split, e.g. ``"mnist train"``.
        images: uint8 tensor (N, C, H, W), values 0..255, all on one device; or files that are decoded to such when needed.
        classes: the class names, in label order.
        note: what the data is, in a reader's words; shown in every table and report.
        unreadable: a line for each file that was left out because it cannot be decoded.
        kept: what a frozen body makes of the images; None where no part of the network is frozen.
        small: the images at the side that a method draws at, uint8 (N, C, s, s); None where it reads `images` or draws none.
    """

    name: str
    images: Images
    classes: tuple[str, ...]
    note: str
    unreadable: tuple[str, ...] = field(default=(), kw_only=True)
    kept: Kept | None = field(default=None, kw_only=True)
    small: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.images, Tensor) and (self.images.dtype != torch.uint8 or self.images.ndim != 4):
            raise TypeError(f"{self.name}: images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        if len(self.images) == 0:
            raise UserError(f"{self.name} holds no images; point to a data set that has some")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def inputs(self) -> Inputs:
        """What methods and evaluations read: the images, or what a frozen body has made of them."""
        return self.images if self.kept is None else self.kept

    @property
    def pixels(self) -> Images:
        """The images as a method that draws some reads them."""
        return self.images if self.small is None else self.small

    def only(self, positions: Tensor) -> Domain:
        """Some of the images; `positions` int64 (n,), on the CPU."""
        return replace(self, **self._some(positions))

    def _some(self, positions: Tensor) -> dict[str, Any]:
        small = None if self.small is None else self.small[positions]
        return {"images": self.images[positions], "kept": self.kept and self.kept.only(positions), "small": small}

    def with_inverted_copies(self) -> Domain:
        """Twice the images: each, and its negative. Needs them in memory."""
        if isinstance(self.images, ImageFiles):
            raise UserError("data.target_inverted_copies needs the target's images in memory; raise data.memory")
        return replace(self, images=torch.cat([self.images, 255 - self.images]))

    def to(self, device: torch.device) -> Domain:
        """The same domain with its images on `device`."""
        return replace(self, images=self.images.to(device), kept=self.kept and self.kept.to(device))

    def sample(self, count: int = 2000) -> Tensor:
        """The same inputs at each call, in an order without meaning: of images, uint8 (n, C, H, W), of at most 128 MiB."""
        return torch.cat(list(read(self.inputs, self.sampled(count).split(together(self.inputs.shape[1:])))))

    def sampled(self, count: int = 2000) -> Tensor:
        """Which images `sample` returns, int64 (n,)."""
        return self.shuffled()[: min(count, 2**27 // self.inputs.shape[1:].numel())]

    def kept_aside(self, share: float) -> tuple[Tensor, Tensor]:
        """Which images are kept aside, and which are not, int64: about a `share` of them, as `count_kept_aside` says.

        Those kept aside are the beginning of what is `shuffled`.
        """
        count = count_kept_aside(len(self), share)
        if self._in_shards:
            return self.shuffled()[:count], torch.arange(len(self) - count)
        order = self.shuffled()
        return order[:count], order[count:].sort().values

    def shuffled(self) -> Tensor:
        """The order without meaning that samples are the beginning of, int64 (N,).

        Of shards, which are packed in an order without meaning, the last `BUFFER` images: they are read one after another.
        """
        if self._in_shards:
            return len(self) - 1 - torch.arange(min(len(self), BUFFER))
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(0))

    @property
    def _in_shards(self) -> bool:
        return isinstance(self.images, ImageFiles) and isinstance(self.images.names, Members)

    def without_labels(self) -> Domain:
        """The images alone; labels, where there were some, are not reachable from what is returned."""
        return Domain(
            self.name, self.images, self.classes, self.note, unreadable=self.unreadable, kept=self.kept, small=self.small
        )


def count_kept_aside(images: int, share: float) -> int:
    """How many of so many target images no method trains on, so that what is said of the others without labels is no echo.

    A share (0..0.5) of them, no fewer than 200, since fewer say little, and no more than 2,000. Of fewer than 2,000 images, none:
    there, training needs them more.
    """
    return 0 if share == 0 or images < 10 * FEWEST_ASIDE else min(max(round(share * images), FEWEST_ASIDE), MOST_ASIDE)


@dataclass(frozen=True)
class LabelledDomain(Domain):
    """A domain whose labels are known: int64 tensor (N,), 0 <= label < len(classes)."""

    labels: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels.shape != (len(self.images),):
            raise UserError(
                f"{self.name}: {len(self.images)} images but labels of shape {tuple(self.labels.shape)}; give one label per image"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise UserError(f"{self.name}: labels run from {low} to {high}, but the classes are 0..{len(self.classes) - 1}")

    def only(self, positions: Tensor) -> LabelledDomain:
        return replace(self, **self._some(positions), labels=self.labels[positions.to(self.labels.device)])

    def read(self, blocks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each block of positions: what is read of these images, and their labels, int64 (B,).

        Where one stands for another that is damaged, it brings its own label.
        """
        for block, (part, replaced) in zip(blocks, read_and_replace(self.inputs, blocks), strict=True):
            there = torch.tensor([replaced.get(position, position) for position in block.tolist()]) if replaced else block
            yield part, self.labels[there.to(self.labels.device)]

    def sample_labels(self, count: int = 2000) -> Tensor:
        """The labels of the images that `sampled` names, int64 (n,)."""
        return self.labels[self.sampled(count).to(self.labels.device)]

    def labelled_sample(self, count: int = 2000) -> tuple[Tensor, Tensor]:
        """What `sample` returns, and its labels, int64 (n,)."""
        inputs, labels = zip(*self.read(self.sampled(count).split(together(self.inputs.shape[1:]))), strict=True)
        return torch.cat(inputs), torch.cat(labels)

    def to(self, device: torch.device) -> LabelledDomain:
        kept = self.kept and self.kept.to(device)
        return replace(self, images=self.images.to(device), kept=kept, labels=self.labels.to(device))


@dataclass(frozen=True)
class Pair:
    """The splits of one adaptation problem.

    A method is given `target.without_labels()`, and nothing of `target_test`. Target labels are read in two places, both in
    `uda.evaluation`: those of `target_test` by the evaluator, for accuracies, and those of `target` after the last step by the
    classifier that evaluates translations. (The upper bound `target_only` trains on them, and says so.) The user's own target has
    no labels (`target` is a plain `Domain`), and perhaps no labelled test images either.
    """

    source: LabelledDomain
    source_test: LabelledDomain
    target: Domain
    target_test: LabelledDomain | None
    target_unknown: Domain | None = None
    """test images of classes that the source does not have, where there are some and `data.unknown` takes them"""

    def to(self, device: torch.device) -> Pair:
        test, unknown = self.target_test and self.target_test.to(device), self.target_unknown and self.target_unknown.to(device)
        return Pair(self.source.to(device), self.source_test.to(device), self.target.to(device), test, unknown)
