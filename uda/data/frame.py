"""What is cut out of an image file: the square that is tested on, and the views that training draws."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from uda.paths import regular
from uda.types import Section

Interpolation = Literal["bilinear", "bicubic", "nearest"]
RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # other readers call other programs, or are hardly tested
STEP, LONGEST = 4, 8  # of whole images: what divides their sides, and the longest side of all, in short ones
TWELVE_BITS = 4096  # cameras that write 12 bits into 16 leave them at the dark end
SIXTEEN_BITS = ("PNG", "PPM")  # in whose files 32-bit pixels are 16-bit ones in a larger box
Source = str | os.PathLike[str] | io.BytesIO
"""where an image is: a file, or its content"""
View = Literal["centre", "flip", "crop", "strong", "masked", "lines"]


class Frame(NamedTuple):
    """How an image becomes (channels, size, size).

    Attributes:
        size: side of the square, pixels.
        channels: 1 (grey) or 3.
        resize: what the short side is brought to before the central square is cut out; left out, `size`.
        interpolation: how pixels between pixels are found; always with antialiasing.
    """

    size: int
    channels: int
    resize: int | None = None
    interpolation: Interpolation = "bilinear"


class ViewSettings(Section):
    """Which views of each image are computed by a frozen body, once. A kind that comes twice is drawn twice."""

    weak: tuple[View, ...] = ("centre", "flip")
    """of target images as they are; the first is the one that is tested on. centre: the central square; flip: its mirror image"""
    strong: tuple[View, ...] = ("crop", "strong")
    """of target images as they are augmented. crop: a random part of at least half of the image, perhaps mirrored, in somewhat
    other colours; strong: of at least a third, and two operations of RandAugment (Cubuk et al. 2020) on top; masked: as crop,
    with half of its patches, 8 along a side, painted over in grey (Hoyer et al. 2023); lines: as crop, its outlines alone, dark
    on white, for photographs that are to be known in drawings"""

    @property
    def all(self) -> tuple[View, ...]:
        """Every view, weak ones first; source images are trained on in all of them."""
        return self.weak + self.strong


@contextmanager
def opened(path: Source) -> Iterator[Image.Image]:
    """An image file, its header read and its pixels not.

    Raises:
        OSError, ValueError, SyntaxError: where it is no file, no image of a kind that is read, or has too many pixels.
    """
    if not isinstance(path, io.BytesIO):
        regular(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            file = Image.open(path, formats=FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ValueError("it has more than 89 million pixels; make it smaller") from None
    with file:
        yield file


def open_image(path: Source, channels: int, side: int) -> Image.Image:
    """An image file in its whole shape, turned upright as its EXIF data says, grey or in colour.

    Grey by luminance, colour by copies; transparency is dropped, 16 bits are cut to 8. Large JPEGs are decoded at the nearest of
    the reduced sizes that the format offers and whose short side is at least `side`.

    Raises:
        OSError, ValueError, SyntaxError: as `opened`, and for numbers of no known range.
    """
    mode = "L" if channels == 1 else "RGB"
    with opened(path) as file:
        file.draft(mode, (side, side))
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16") or (image.mode == "I" and file.format in SIXTEEN_BITS):
            values = np.asarray(image)
            if 0 < values.max() < TWELVE_BITS:
                raise ValueError("its 16-bit values are all below 4096, and would be black; bring them to 0..65535")
            return Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)
        if image.mode in ("I", "F"):
            kind = "32-bit" if image.mode == "I" else "floating-point"
            raise ValueError(f"what is black and white in {kind} pixels is not known; save it with 8 or 16 bits")
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # from which it is dropped without a warning
        return image.convert(mode)


def centre(image: Image.Image, frame: Frame) -> Image.Image:
    """The central square, as the frame says."""
    side = min(image.size) * frame.size / (frame.resize or frame.size)
    left, top = ((length - side) / 2 for length in image.size)
    box = (left, top, left + side, top + side)
    return image.resize((frame.size, frame.size), RESAMPLING[frame.interpolation], box=box)


def flip(image: Image.Image, frame: Frame) -> Image.Image:
    """The central square, mirrored."""
    return centre(image, frame).transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def crop(image: Image.Image, frame: Frame) -> Image.Image:
    """A random part of at least half of the image's area, half of the time mirrored, in somewhat other colours."""
    from torchvision.transforms import v2

    made: Image.Image = v2.Compose([_part(frame, 0.5), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.2)])(image)
    return made


def strong(image: Image.Image, frame: Frame) -> Image.Image:
    """A random part of at least a third of the image's area, half of the time mirrored, changed by RandAugment."""
    from torchvision.transforms import v2

    made: Image.Image = v2.Compose([_part(frame, 1 / 3), v2.RandomHorizontalFlip(), v2.RandAugment()])(image)
    return made


def masked(image: Image.Image, frame: Frame) -> Image.Image:
    """As `crop`, with half of its patches, 8 along a side, painted over in grey."""
    pixels = np.array(crop(image, frame))
    hidden = (torch.rand(8, 8) < 0.5).numpy()
    rows = np.arange(frame.size) * 8 // frame.size
    pixels[hidden[rows[:, None], rows[None, :]]] = 127
    return Image.fromarray(pixels)


def lines(image: Image.Image, frame: Frame) -> Image.Image:
    """As `crop`, its outlines alone: dark on white where an image is darker than around it (Winnemoeller et al. 2012)."""
    grey, fine = ImageOps.grayscale(crop(image, frame)), max(1.0, frame.size / 180)
    narrow, wide = (np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), np.float32) for radius in (fine, 1.6 * fine))
    darker = np.minimum(narrow - wide + 3, 0)
    return Image.fromarray(np.uint8(255 * (1 + np.tanh(darker / 4)))).convert(image.mode)


def _part(frame: Frame, least: float) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import InterpolationMode, v2

    part: Callable[[Image.Image], Image.Image] = v2.RandomResizedCrop(
        frame.size, (least, 1.0), interpolation=InterpolationMode(frame.interpolation)
    )
    return part


VIEWS: dict[str, Callable[[Image.Image, Frame], Image.Image]] = {
    "centre": centre,
    "flip": flip,
    "crop": crop,
    "strong": strong,
    "masked": masked,
    "lines": lines,
}


def as_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 (C, H, W)."""
    pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def draw_views(image: Image.Image, frame: Frame, views: tuple[View, ...], number: int) -> Tensor:
    """Views of one image, uint8 (V, C, S, S): always the same ones for the same `number`. Seeds torch's global generator."""
    drawn = []
    for place, view in enumerate(views):
        torch.manual_seed(number * 1009 + place)
        drawn.append(as_tensor(VIEWS[view](image, frame)))
    return torch.stack(drawn)


def decode(path: Source, frame: Frame) -> Tensor:
    """An image file's central square, uint8 (C, S, S)."""
    side = frame.resize or frame.size
    return as_tensor(centre(open_image(path, frame.channels, side), frame))


def decode_whole(path: Source, frame: Frame) -> Tensor:
    """An image file in its own shape, uint8 (C, H, W): its short side is `frame.size`, its long one a multiple of `STEP`.

    Raises:
        ValueError: where it is more than `LONGEST` times as long as it is wide, or the other way round.
    """
    image = open_image(path, frame.channels, frame.size)
    short = min(image.size)
    if max(image.size) > LONGEST * short:
        raise ValueError(f"more than {LONGEST} times as long as wide")
    width, height = (max(frame.size, round(side * frame.size / short / STEP) * STEP) for side in image.size)
    return as_tensor(image.resize((width, height), RESAMPLING[frame.interpolation]))
