"""Images in .npz files, and the one frame that all images of a run are brought to."""

from __future__ import annotations

import zipfile
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
    if images.dtype != np.uint8 or not (images.ndim == 3 or channels_first or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise UserError(
            f"{name}: 'images' is {images.dtype} {images.shape}; it must be uint8 (N, H, W), (N, H, W, 3) or (N, 3, H, W)"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    if images.ndim == 3:
        return pixels[:, None]
    return pixels if channels_first else pixels.permute(0, 3, 1, 2)


def read_note(path: Path) -> str:
    """What an array file says of itself, without reading its images."""
    with open_arrays(path) as file:
        return str(file["note"]) if "note" in file else f"{path.name}, which has no note of its own"


@contextmanager
def open_arrays(path: Path) -> Iterator[Any]:
    """The arrays of an .npz file; objects in it, which could execute code, are not loaded."""
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except UserError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = f"it has no array {error}" if isinstance(error, KeyError) else "it cannot be read"
        raise UserError(f"{path}: {reason}; the file needs arrays 'images' (uint8), 'labels' and 'note', or delete it") from error
