"""Images in .npz files, and the one frame that all images of a run are brought to."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uda.data.frame import Interpolation
from uda.errors import UserError
from uda.paths import regular

LARGE = 2**28  # bytes: an array below this is read whatever it was packed to
MOST_COMPRESSED = 200  # times: images hardly come to ten


def fit_frame(
    images: Tensor, size: int, channels: int, resize: int | None = None, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """uint8 (N, 1 or 3, H, W) to uint8 (N, channels, size, size), as `uda.data.frame.Frame` describes it.

    With antialiasing; grey by luminance (ITU-R 601), colour by copies.
    """
    height, width = images.shape[-2:]
    side = round(min(height, width) * size / (resize or size))
    top, left = (height - side) // 2, (width - side) // 2
    images = images[..., top : top + side, left : left + side]
    if images.shape[1] == 3 and channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        images = torch.cat([(part.float() * weights).sum(1, keepdim=True).round().byte() for part in images.split(4096)])
    if side != size:
        smooth = interpolation != "nearest"
        scaled = [F.interpolate(part.float(), (size, size), mode=interpolation, antialias=smooth) for part in images.split(4096)]
        images = torch.cat([part.round().clamp(0, 255).byte() for part in scaled])
    return images.expand(-1, channels, -1, -1).contiguous()


def as_pixels(images: np.ndarray, name: str) -> Tensor:
    """uint8 (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W) to uint8 (N, 1 or 3, H, W).

    Raises:
        UserError: for any other kind or shape.
    """
    channels_first = images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3)
    if 0 in images.shape[1:]:
        raise UserError(f"{name}: 'images' is {images.shape}, without pixels; no side may be 0")
    if images.dtype != np.uint8 or not (images.ndim == 3 or channels_first or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise UserError(
            f"{name}: 'images' is {images.dtype} {images.shape}; it must be uint8 (N, H, W), (N, H, W, 3) or (N, 3, H, W)"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim == 3:
        return pixels[:, None]
    return pixels if channels_first else pixels.permute(0, 3, 1, 2)


class Arrays:
    """The arrays of an open .npz file. Each is read when it is asked for, after its header was found to be true."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self._file = path, file

    def images(self) -> Tensor:
        """uint8 (N, 1 or 3, H, W)."""
        return as_pixels(self._read("images"), str(self.path))

    def labels(self) -> np.ndarray:
        """(N,), whole numbers or strings."""
        labels = self._read("labels")
        with np.errstate(invalid="ignore"):  # what is no number is no whole one
            whole = labels.astype(np.int64) if labels.dtype.kind in "fb" else labels
        if labels.ndim != 1 or whole.dtype.kind not in "iuUS" or (labels.dtype.kind == "f" and not np.array_equal(labels, whole)):
            raise UserError(f"{self.path}: 'labels' is {labels.dtype} {labels.shape}; it must be (N,), whole numbers or strings")
        return whole

    def count(self) -> int:
        """How many labels there are."""
        return len(self.labels())

    def note(self) -> str:
        """What the file says of itself; empty where it says nothing."""
        return str(self._read("note")) if "note" in self._file.files else ""

    def _read(self, name: str) -> np.ndarray:
        if name not in self._file.files:
            raise KeyError(name)
        try:
            return self._checked(name)
        except (tokenize.TokenError, SyntaxError, TypeError, lzma.LZMAError) as error:
            raise ValueError(f"{name!r} is damaged") from error

    def _checked(self, name: str) -> np.ndarray:
        member = self._file.zip.getinfo(f"{name}.npy")
        if member.flag_bits & 1:
            raise ValueError("it is encrypted")
        with self._file.zip.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read_header(stream)
            claimed = math.prod(shape) * dtype.itemsize
            if claimed != member.file_size - stream.tell():
                raise ValueError(f"{name!r} claims {claimed:,} bytes and has others")
        if claimed > LARGE and claimed > MOST_COMPRESSED * member.compress_size:
            raise ValueError(f"{name!r} unpacks to {claimed:,} bytes, more than {MOST_COMPRESSED} times what it takes")
        array: np.ndarray = self._file[name]
        return array


def read_note(path: Path) -> str:
    """What an array file says of itself, without reading its images."""
    with open_arrays(path) as file:
        return file.note() or f"{path.name}, which has no note of its own"


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """The arrays of an .npz file; objects in it, which could execute code, are not loaded.

    Raises:
        UserError: where it is no .npz file, or one of its arrays is missing, encrypted, damaged or not what it claims to be.
    """
    try:
        regular(path)
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as file:
            yield Arrays(path, file)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = f"it has no array {error}" if isinstance(error, KeyError) else f"it cannot be read ({error})"
        raise UserError(f"{path}: {reason}; the file needs arrays 'images' (uint8), 'labels' and 'note', or delete it") from error
