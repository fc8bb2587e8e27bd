"""The embedded default: drawn street-number-like digits as source, scikit-learn's handwritten digits as target. No download."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from uda.data.arrays import fit_frame
from uda.data.datasets.digits import DIGITS, Split
from uda.data.domain import LabelledDomain

# Fonts that matplotlib ships, so they are the same everywhere.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmss10", "cmtt10", "cmr10",
)  # fmt: skip
GLYPH = 64
COUNTS = {"train": 8000, "test": 2000}
STREET_NOTE = f"street-number-like digits drawn at run time ({COUNTS['train']:,} train, {COUNTS['test']:,} test)"
HANDWRITTEN_NOTE = "scikit-learn load_digits, real handwriting, 8x8 grey (1,197 train, 600 test)"


@cache
def glyphs() -> Tensor:
    """Every digit in every font: coverage 0..1, float (fonts, 10, 64, 64), each digit as tall as three quarters of its tile."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    tiles = np.zeros((len(FONTS), 10, GLYPH, GLYPH), np.uint8)
    for row, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), GLYPH)
        for digit in DIGITS:
            left, top, right, bottom = font.getbbox(digit)
            # Fonts differ in how large they draw; bring all to one height.
            scaled = ImageFont.truetype(str(folder / f"{name}.ttf"), round(GLYPH * 0.75 * GLYPH / (bottom - top)))
            tile = Image.new("L", (GLYPH, GLYPH))
            left, top, right, bottom = scaled.getbbox(digit)
            ImageDraw.Draw(tile).text(((GLYPH - right - left) / 2, (GLYPH - bottom - top) / 2), digit, 255, scaled)
            tiles[row, int(digit)] = np.asarray(tile)
    return torch.from_numpy(tiles).float() / 255


def draw_street_digits(count: int, seed: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """Digits as on house walls: uint8 (count, 3, size, size) and labels (count,); the same for the same seed.

    Each image shows one digit in the middle, in one of `FONTS`, turned, sheared and scaled a little, with neighbours cut
    off by the frame, colours of either polarity, an uneven ground with bars across it, blur and noise.
    """
    draws = Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=draws)
    parts = [_draw(part, size, draws) for part in labels.split(2000)]
    return torch.cat(parts), labels


def _draw(labels: Tensor, size: int, draws: Generator) -> Tensor:
    count = len(labels)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=draws) * (high - low) + low

    def chance(share: float) -> Tensor:
        return (uniform(0, 1, 1, 1, 1) < share).float()

    fonts = torch.randint(len(FONTS), (count,), generator=draws)
    angle, shear = uniform(-12, 12) * math.pi / 180, uniform(-0.25, 0.25)
    zoom, narrow = uniform(0.8, 1.3), uniform(0.85, 1.2)
    x, y = uniform(-0.12, 0.12), uniform(-0.12, 0.12)

    def place(digits: Tensor, shift: Tensor) -> Tensor:
        cos, sin = torch.cos(angle), torch.sin(angle)
        rows = [narrow * cos * zoom, (shear - sin) * zoom, (x + shift) * zoom], [narrow * sin * zoom, cos * zoom, y * zoom]
        matrix = torch.stack([torch.stack(row, 1) for row in rows], 1)
        grid = F.affine_grid(matrix, [count, 1, size, size], align_corners=False)
        return F.grid_sample(glyphs()[fonts, digits][:, None], grid, align_corners=False)

    ink = place(labels, torch.zeros(count))
    for side in (-1, 1):
        other = torch.randint(10, (count,), generator=draws)
        ink = torch.maximum(ink, chance(0.45) * place(other, side * uniform(0.9, 1.2)))

    axis = torch.linspace(-1, 1, size)
    ground = uniform(0, 1, 1, 1, 1) + uniform(-0.2, 0.2, 3, 1, 1)
    slope = uniform(-0.2, 0.2, 1, 1, 1) * axis.view(1, 1, 1, size) + uniform(-0.2, 0.2, 1, 1, 1) * axis.view(1, 1, size, 1)
    # A colour that can be told from the ground: at least 0.35 away in lightness, on whichever side there is room.
    lightness = ground.mean(1, keepdim=True)
    away = torch.where(lightness > uniform(0.35, 0.65, 1, 1, 1), -uniform(0.35, 0.9, 1, 1, 1), uniform(0.35, 0.9, 1, 1, 1))
    paint = (lightness + away + uniform(-0.15, 0.15, 3, 1, 1)).clamp(0, 1)
    turn, offset, width = uniform(0, math.pi, 1, 1, 1), uniform(-1.2, 1.2, 1, 1, 1), uniform(0.02, 0.15, 1, 1, 1)
    bar = (
        (torch.cos(turn) * axis.view(1, 1, 1, size) + torch.sin(turn) * axis.view(1, 1, size, 1) - offset).abs() < width
    ).float()
    wall = ground + slope + chance(0.5) * bar * uniform(-0.25, 0.25, 3, 1, 1)
    picture = wall * (1 - ink) + paint * ink

    taps = torch.exp(-torch.arange(-3, 4).float().square() / (2 * 1.3**2))
    taps = (taps / taps.sum()).view(1, 1, 7, 1).expand(3, 1, 7, 1)
    padded = F.pad(picture, (3, 3, 3, 3), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, taps, groups=3), taps.transpose(2, 3), groups=3)
    picture = torch.lerp(picture, blurred, uniform(0, 1, 1, 1, 1))
    picture = picture + uniform(0, 0.06, 1, 1, 1) * torch.randn(picture.shape, generator=draws)
    return (picture.clamp(0, 1) * 255).round().byte()


def load_street_digits(split: Split, size: int, channels: int) -> LabelledDomain:
    """The drawn digits: 8,000 for training and 2,000, drawn with another seed, for testing."""
    images, labels = draw_street_digits(COUNTS[split], seed=0 if split == "train" else 1, size=size)
    return LabelledDomain(f"synth {split}", fit_frame(images, size, channels), DIGITS, STREET_NOTE, labels)


def load_handwritten_digits(split: Split, size: int, channels: int) -> LabelledDomain:
    """scikit-learn's `load_digits` (8x8 scans, the UCI optical digits' test set), split once, by class: 1,197 and 600."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    picked = train_test_split(np.arange(len(digits.target)), test_size=600, random_state=0, stratify=digits.target)
    index = np.sort(picked[0 if split == "train" else 1])
    pixels = np.round(digits.images[index] * (255 / 16)).astype(np.uint8)
    images = fit_frame(torch.from_numpy(pixels)[:, None], size, channels)
    return LabelledDomain(
        f"digits {split}", images, DIGITS, HANDWRITTEN_NOTE, torch.from_numpy(digits.target[index].astype(np.int64))
    )
