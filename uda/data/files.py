"""Image files: decoded to one uint8 tensor where that is small enough, else whenever they are asked for, in worker processes.

Every file is decoded once before training, so a broken one is known at the start. Memory while files are decoded ahead is
bounded by workers x 2 waiting batches (batch x C x S x S bytes each), whatever the number of files; a file's name costs as
many bytes as the longest one has.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from uda.errors import UserError

EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
GREY_MODES = frozenset(("1", "L", "LA", "I", "I;16", "I;16B", "F"))
AHEAD = 2  # batches that each worker process decodes ahead
BLOCK = 256  # files that are decoded together where no batch size is asked for


def decode(path: str | os.PathLike[str], size: int, channels: int) -> np.ndarray:
    """An image file as uint8 (channels, size, size): its central square, bilinear with antialiasing.

    Grey by luminance, colour by copies; transparency is dropped, 16 bits are cut to 8. Large JPEGs are decoded at the nearest
    of the reduced sizes that the format offers.
    """
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as file:
        file.draft(mode, (size, size))
        image: Image.Image = file
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ImageFiles:
    """Files that stand for a uint8 tensor (N, C, S, S) and are decoded when its rows are asked for.

    Attributes:
        root: the folder that `names` are relative to.
        names: bytes array (N,), one file name each.
        device: where decoded batches are put.
    """

    def __init__(self, root: Path, names: np.ndarray, size: int, channels: int, device: torch.device | None = None) -> None:
        self.root, self.names, self.size, self.channels = root, names, size, channels
        self.device = device or torch.device("cpu")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), self.channels, self.size, self.size))

    @property
    def nbytes(self) -> int:
        return self.shape.numel()

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[index]))

    def __getitem__(self, index: Tensor) -> ImageFiles:
        """The files at these positions, undecoded."""
        return ImageFiles(self.root, self.names[index.numpy()], self.size, self.channels, self.device)

    def to(self, device: torch.device) -> ImageFiles:
        return ImageFiles(self.root, self.names, self.size, self.channels, device)

    def decoded(self, blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, list[tuple[int, str]]]]:
        """For each block of positions: its images, uint8 (B, C, S, S), and (position, reason) of those that are unreadable.

        `blocks` may be endless; a few are taken from it ahead of the one that is handed out.
        """
        workers = min(8, os.cpu_count() or 1)
        generator = torch.Generator()  # the loader draws a seed for its workers; the global random state is not its business
        loader = DataLoader(
            _Decoder(self),
            batch_size=None,
            sampler=blocks,
            num_workers=workers,
            prefetch_factor=AHEAD,
            generator=generator,
            worker_init_fn=_leave_signals_to_the_main_process,
        )
        yield from loader


class _Decoder(Dataset[tuple[Tensor, list[tuple[int, str]]]]):
    """What a worker process holds: names in one array, which it shares with its parent instead of copying."""

    def __init__(self, files: ImageFiles) -> None:
        self.files = files

    def __getitem__(self, block: Tensor) -> tuple[Tensor, list[tuple[int, str]]]:
        files, failed = self.files, []
        images = np.zeros((len(block), files.channels, files.size, files.size), np.uint8)
        for row, position in enumerate(block.tolist()):
            try:
                images[row] = decode(files.path(position), files.size, files.channels)
            except Exception as error:  # a damaged file makes a decoder raise almost anything
                failed.append((position, (str(error).splitlines() or [type(error).__name__])[0]))
        return torch.from_numpy(images), failed


def _leave_signals_to_the_main_process(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


Images = Tensor | ImageFiles


def read(images: Images, blocks: Iterable[Tensor]) -> Generator[Tensor, None, None]:
    """For each block of positions, a CPU tensor (B,) int64: those images, uint8 (B, C, S, S), on the images' device.

    Raises:
        UserError: for a file that could be read at the start, and no longer can.
    """
    if isinstance(images, Tensor):
        for block in blocks:
            yield images[block.to(images.device)]
        return
    for part, failed in images.decoded(blocks):
        if failed:
            position, reason = failed[0]
            raise UserError(f"{images.path(position)} cannot be read any more ({reason}); put it back, then resume")
        yield part.to(images.device)


def in_order(count: int, size: int = BLOCK) -> tuple[Tensor, ...]:
    """Blocks 0..count-1 of at most `size` positions."""
    return tuple(torch.arange(count).split(size))


def check(files: ImageFiles, memory: int, watch: Callable[[int], None] = lambda done: None) -> tuple[Images, Tensor, list[str]]:
    """Decodes every file once. Those that are readable: as one tensor where that is at most `memory` bytes, else as files.

    Args:
        files: what to look at.
        memory: bytes that one set of images may take.
        watch: told after each block how many files are done.

    Returns:
        The readable images, their positions in `files`, int64 (M,), and a line for each that is unreadable.

    Raises:
        UserError: where more than one in twenty (and more than three) are unreadable, or all.
    """
    kept = torch.empty(files.shape, dtype=torch.uint8) if files.nbytes <= memory else None
    good = torch.ones(len(files), dtype=torch.bool)
    unreadable: list[str] = []
    done = 0
    for part, failed in files.decoded(in_order(len(files))):
        if kept is not None:
            kept[done : done + len(part)] = part
        done += len(part)
        for position, reason in failed:
            good[position] = False
            unreadable.append(f"{files.path(position)}: {reason}")
        if len(unreadable) > max(3, len(files) // 20):
            break
        watch(done)
    if len(unreadable) > max(3, len(files) // 20) or len(unreadable) == len(files):
        raise UserError(
            f"{len(unreadable)} of the first {done} images under {files.root} cannot be read, for example "
            f"{unreadable[0]}; mend or remove them"
        )
    positions = good.nonzero().squeeze(1)
    whole = kept if kept is not None else files
    return (whole[positions] if unreadable else whole), positions, unreadable
