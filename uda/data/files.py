"""Image files: decoded to one uint8 tensor where that is small enough, else whenever they are asked for, in worker processes.

Every file is decoded once before training, so a broken one is known at the start. Memory while files are decoded ahead is
bounded by workers x 2 waiting batches (batch x C x S x S bytes each), whatever the number of files; a file's name costs as
many bytes as the longest one has.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from uda.data.frame import Frame, View, decode, draw_views, open_image
from uda.data.kept import Kept
from uda.data.shards import Members
from uda.errors import ReaderKilled, UserError
from uda.runtime import cores, free_memory

GREY_MODES = frozenset(("1", "L", "LA", "I", "I;16", "I;16B"))
FEW_FILES = 256  # may be open at a time: then none is left for what worker processes are spoken to by
AHEAD = 2  # batches that each worker process decodes ahead
READERS = min(8, cores())  # worker processes
Made = TypeVar("Made")
MOST, MOST_VALUES = 256, 2**26  # images, and values in them, that are read together where no batch size is asked for


def bound_readers(most: int) -> None:
    """Has this process read images by at most so many others from now on. What they read is the same, however many they are."""
    global READERS
    READERS = min(READERS, most)


class ImageFiles:
    """Files that stand for a uint8 tensor (N, C, S, S) and are decoded when its rows are asked for.

    Attributes:
        root: the folder that `names` are relative to.
        names: bytes array (N,), one file name each; or the members of shards.
        frame: what is cut out of them.
        device: where decoded batches are put.
        looked_at: whether every one of them has been decoded before training; else those that turn out to be damaged are
            replaced by others.
    """

    def __init__(
        self,
        root: Path,
        names: np.ndarray | Members,
        frame: Frame,
        device: torch.device | None = None,
        looked_at: bool = True,
    ) -> None:
        self.root, self.names, self.frame, self.looked_at = root, names, frame, looked_at
        self.device = device or torch.device("cpu")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.frame.channels, self.frame.size, self.frame.size))

    @property
    def nbytes(self) -> int:
        return self.shape.numel()

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[index]))

    def source(self, index: int) -> Path | BytesIO:
        """What the file is read from: its path, or, in a shard, its content."""
        return source(self.root, self.names, index)

    def __getitem__(self, index: Tensor) -> ImageFiles:
        """The files at these positions, undecoded."""
        return ImageFiles(self.root, self.names[index.numpy()], self.frame, self.device, self.looked_at)

    def to(self, device: torch.device) -> ImageFiles:
        return ImageFiles(self.root, self.names, self.frame, device, self.looked_at)

    def decoded(self, blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, list[tuple[int, str]]]]:
        """For each block of positions: its images, uint8 (B, C, S, S), and (position, reason) of those that are unreadable.

        `blocks` may be endless; a few are taken from it ahead of the one that is handed out.
        """
        return _in_workers(_Decoder(self), blocks)


def source(root: Path, names: np.ndarray | Members, index: int) -> Path | BytesIO:
    """Where a file's content is to be had: its path, or, in a shard, the content itself."""
    return names.read(index) if isinstance(names, Members) else root / os.fsdecode(bytes(names[index]))


def reason(error: Exception) -> str:
    """Why a file could not be decoded, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Decoder(Dataset[tuple[Tensor | np.ndarray, list[tuple[int, str]]] | UserError]):
    """What a worker process holds: names in one array, which it shares with its parent instead of copying."""

    def __init__(self, files: ImageFiles) -> None:
        self.files, self.shape = files, files.shape[1:]

    def make(self, position: int) -> Tensor:
        return decode(self.files.source(position), self.files.frame)

    def __getitem__(self, block: np.ndarray) -> tuple[Tensor | np.ndarray, list[tuple[int, str]]] | UserError:
        """A block; in its place what is wrong with its shard, which would arrive as a traceback if it were raised here."""
        failed = []
        made = torch.zeros((len(block), *self.shape), dtype=torch.uint8)
        for row, position in enumerate(block.tolist()):
            try:
                made[row] = self.make(position)
            except UserError as error:
                return error
            except Exception as error:  # a damaged file makes a decoder raise almost anything
                failed.append((position, reason(error)))
        return _handed_over(made), failed


def _handed_over(made: Tensor) -> Tensor | np.ndarray:
    """Images as a reader process hands them to the main one: in shared memory or, where that is full, through a pipe.

    An array goes through the pipe. A tensor would be put into shared memory after this, where an error is lost, and waited for.
    """
    if get_worker_info() is None:
        return made
    try:
        made.share_memory_()
    except RuntimeError:
        return made.numpy()
    return made


def _as_it_is(made: Made) -> Made:
    return made


class _Viewer(_Decoder):
    """Draws all views of an image; of one in memory, from its square."""

    def __init__(self, images: Images, frame: Frame, views: tuple[View, ...]) -> None:
        self.images, self.frame, self.views = images, frame, views
        self.shape = torch.Size((len(views), frame.channels, frame.size, frame.size))

    def make(self, position: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # where the main process decodes, its random state is not the views' business
            return self._drawn(position)

    def _drawn(self, position: int) -> Tensor:
        if isinstance(self.images, ImageFiles):
            image = open_image(self.images.source(position), self.frame.channels, 2 * (self.frame.resize or self.frame.size))
            names = self.images.names  # views of an image in a shard are the same, whichever shards are read beside it
            number = int(names.within(np.asarray(position))) if isinstance(names, Members) else position
            return draw_views(image, self.frame, self.views, number)
        pixels = self.images[position]
        image = Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())
        return draw_views(
            image, Frame(self.frame.size, self.frame.channels, None, self.frame.interpolation), self.views, position
        )


def _in_workers(
    decoder: _Decoder, blocks: Iterable[Tensor], readers: int = READERS
) -> Iterator[tuple[Tensor, list[tuple[int, str]]]]:
    waiting = iter(blocks)
    first = next(waiting, None)
    if first is None:
        return
    workers = min(readers, workers_for(len(first) * decoder.shape.numel()))
    loader = DataLoader(
        decoder,
        batch_size=None,
        sampler=(block.numpy() for block in itertools.chain((first,), waiting)),  # a tensor would go by shared memory, too
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        generator=torch.Generator(),  # it draws a seed for its workers; the global random state is not its business
        worker_init_fn=_leave_signals_to_the_main_process,
        collate_fn=_as_it_is,
    )
    try:
        for block in loader:
            if isinstance(block, UserError):
                raise block
            made, failed = block
            yield torch.as_tensor(made), failed
    except RuntimeError as error:
        raise (ReaderKilled.of(error) or error) from None


def workers_for(block: int) -> int:
    """How many processes decode blocks of so many bytes; 0: the main process does.

    Blocks pass through shared memory, which a container may have little of: half of what is free is enough for all of them. They
    are handed over at sockets in a temporary folder; where none can be made, a process would wait for them for ever.
    """
    try:
        with tempfile.TemporaryDirectory():
            pass
    except OSError:
        return 0
    if sys.platform != "win32":
        import resource

        if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] < FEW_FILES:
            return 0
    try:
        free = os.statvfs("/dev/shm")
    except OSError:  # a system that has it elsewhere
        return READERS
    return min(READERS, free.f_bavail * free.f_frsize // 2 // max(1, block * (AHEAD + 1)))


def _leave_signals_to_the_main_process(_: int) -> None:
    """Goes on reading where a whole group of processes is asked to stop: the main one takes its last step, and ends the others.

    A second SIGTERM is its own, for a reader that does not end by itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, signal.SIG_DFL))


Images = Tensor | ImageFiles
Inputs = Images | Kept
"""what a network reads: images, or what a frozen body has made of them"""


def read_views(
    images: Images, frame: Frame, views: tuple[View, ...], blocks: Iterable[Tensor], readers: int = READERS
) -> Iterator[tuple[Tensor, list[tuple[int, str]]]]:
    """For each block of positions: all views of its images, uint8 (B, V, C, S, S), and (position, reason) of unreadable ones.

    The same views at each call: what is random in them hangs on the image's position alone, in a shard on that in the shard.
    `readers`: processes that draw them, at most; 0: this one does.
    """
    return _in_workers(_Viewer(images, frame, views), blocks, readers)


def read(images: Inputs, blocks: Iterable[Tensor]) -> Generator[Tensor, None, None]:
    """For each block of positions, a CPU tensor (B,) int64: those images, uint8 (B, C, S, S), on the images' device.

    Of what a frozen body made of images, the view that is tested on, float32 (B, ...).

    Raises:
        UserError: for a file that could be read at the start, and no longer can.
    """
    yield from (part for part, _ in read_and_replace(images, blocks))


def read_and_replace(images: Inputs, blocks: Iterable[Tensor]) -> Generator[tuple[Tensor, dict[int, int]], None, None]:
    """As `read`, with what stands in whose place: of files not all of which were looked at, the damaged ones are replaced.

    By another of the block; the dict says by which, by position.

    Raises:
        UserError: for a file that could be read at the start, and no longer can; where more than one in twenty (and more than
            three) of those not looked at are damaged, or a whole block.
    """
    if isinstance(images, Kept):
        yield from ((images.tested(block), {}) for block in blocks)
        return
    if isinstance(images, Tensor):
        for block in blocks:
            yield images[block.to(images.device)], {}
        return
    done, lost = 0, 0
    waiting: deque[Tensor] = deque()

    def asked() -> Iterator[Tensor]:
        for block in blocks:
            waiting.append(block)
            yield block

    for part, failed in images.decoded(asked()):
        block = waiting.popleft()
        done, lost, reasons = done + len(block), lost + len(failed), dict(failed)
        replaced: dict[int, int] = {}
        if failed:
            position, reason = failed[0]
            if images.looked_at:
                raise UserError(f"{images.path(position)} cannot be read any more ({reason}); put it back, then resume")
            good = [row for row, other in enumerate(block.tolist()) if other not in reasons]
            if not good or lost > max(3, done // 20):
                raise UserError(
                    f"{lost} of {done} images cannot be read, for example {images.path(position)} ({reason}); mend them"
                )
            for row, other in enumerate(block.tolist()):
                if other in reasons:
                    part[row], replaced[other] = part[good[0]], int(block[good[0]])
        yield part.to(images.device), replaced


def read_in(frame: Frame, images: Images) -> Iterator[Tensor]:
    """All images, block by block, in a smaller frame than their own, uint8 (B, C, S, S), on the CPU."""
    if isinstance(images, ImageFiles):
        yield from read(ImageFiles(images.root, images.names, frame), in_order(images))
        return
    from torchvision.transforms.v2 import InterpolationMode, functional

    for part in images.split(together(images.shape[1:])):
        yield functional.resize(part.cpu(), [frame.size, frame.size], InterpolationMode(frame.interpolation), antialias=True)


def together(shape: Sequence[int]) -> int:
    """How many images of a shape (C, H, W), or kept maps, are read together: few large ones, so that memory is bounded."""
    return max(1, min(MOST, MOST_VALUES // math.prod(shape)))


def in_order(images: Inputs, size: int | None = None) -> tuple[Tensor, ...]:
    """The positions of all images in blocks of at most `size`; left out: as many as are read `together`."""
    return tuple(torch.arange(len(images)).split(size or together(images.shape[1:])))


def check(files: ImageFiles, memory: int, watch: Callable[[int], None] = lambda done: None) -> tuple[Images, Tensor, list[str]]:
    """Decodes every file once. Those that are readable: as one tensor where that is at most `memory` bytes, else as files.

    As files, too, where they would take more than half of what is free.

    Args:
        files: what to look at.
        memory: bytes that one set of images may take.
        watch: told after each block how many files are done.

    Returns:
        The readable images (those in shards are left as files), their positions in `files`, int64 (M,), and a line for each that
        is unreadable.

    Raises:
        UserError: where more than one in twenty (and more than three) are unreadable, or all.
    """
    free = free_memory()
    in_memory = files.nbytes <= min(memory, free // 2 if free else memory) and not isinstance(files.names, Members)
    kept = torch.empty(files.shape, dtype=torch.uint8) if in_memory else None
    good = torch.ones(len(files), dtype=torch.bool)
    unreadable: list[str] = []
    done = 0
    for part, failed in files.decoded(in_order(files)):
        if kept is not None:
            kept[done : done + len(part)] = part
        done += len(part)
        for position, reason in failed:
            good[position] = False
            unreadable.append(f"{files.path(position)}: {reason}")
        refuse_too_many(unreadable, done, len(files))
        watch(done)
    positions = good.nonzero().squeeze(1)
    whole = kept if kept is not None else files
    return (whole[positions] if unreadable else whole), positions, unreadable


def check_some(files: ImageFiles, most: int, watch: Callable[[int], None]) -> tuple[ImageFiles, list[str]]:
    """Decodes `most` of the files, evenly spaced. All stay; those that training finds damaged are replaced then.

    The other arguments, and what is raised, as in `check`; returned are all files, and a line for each unreadable one.
    """
    positions = torch.arange(most) * len(files) // most
    unreadable: list[str] = []
    done = 0
    blocks = positions.split(together(files.shape[1:]))
    for block, (_, failed) in zip(blocks, files.decoded(blocks), strict=True):
        unreadable += [f"{files.path(position)}: {reason}" for position, reason in failed]
        done += len(block)
        refuse_too_many(unreadable, done, most)
        watch(done)
    return ImageFiles(files.root, files.names, files.frame, files.device, looked_at=False), unreadable


def refuse_too_many(unreadable: list[str], done: int, count: int) -> None:
    """Raises a `UserError` where more than one in twenty of `count` files (and more than three) are unreadable, or all."""
    if len(unreadable) > max(3, count // 20) or len(unreadable) == count:
        raise UserError(
            f"{len(unreadable)} of the first {done} images cannot be read, for example {unreadable[0]}; mend or remove them"
        )
