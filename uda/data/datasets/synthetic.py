"""The embedded default: drawn street-number-like digits as source, scikit-learn's handwritten digits as target. No download."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from uda.data.arrays import fit_frame
from uda.data.datasets.digits import DIGITS, Split
from uda.data.domain import LabelledDomain

# Fonts that matplotlib ships, so they are the same everywhere.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmss10", "cmtt10", "cmr10",
)  # fmt: skip
HANDS = 7  # as which digits are painted, beside those that are printed
GLYPH = 64
COUNTS = {"train": 8000, "test": 2000}
STREET_NOTE = f"street-number-like digits drawn at run time ({COUNTS['train']:,} train, {COUNTS['test']:,} test)"
HANDWRITTEN_NOTE = "scikit-learn load_digits, real handwriting, 8x8 grey (1,197 train, 600 test)"


@cache
def glyphs() -> Tensor:
    """Every digit in every font and hand: coverage 0..1, float (F, 10, 64, 64), as tall as three quarters of its tile."""
    return torch.from_numpy(np.concatenate([_printed(), _painted()])).float() / 255


def _printed() -> NDArray[np.uint8]:
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
    return tiles


def _painted() -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    random = np.random.default_rng(0)
    tiles = np.zeros((HANDS, 10, GLYPH, GLYPH), np.uint8)
    for hand, digit in np.ndindex(HANDS, 10):
        tile = Image.new("L", (4 * GLYPH, 4 * GLYPH))
        brush, radius = ImageDraw.Draw(tile), random.uniform(10, 22)
        size = np.array([random.uniform(0.4, 0.55), 0.75]) * 4 * GLYPH - 2 * radius
        for stroke in _strokes(digit, random):
            shaky = np.array(stroke) + random.normal(0, 0.02, (len(stroke), 2))
            points = [(x, y) for x, y in (shaky - 0.5) * size + 2 * GLYPH]
            brush.line(points, 255, round(2 * radius))
            for x, y in points:
                brush.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
        tiles[hand, digit] = np.asarray(tile.resize((GLYPH, GLYPH), Image.Resampling.BOX))
    return tiles


def _strokes(digit: int, random: np.random.Generator) -> list[list[tuple[float, float]]]:
    """How a hand paints a digit: strokes through points (x, y) of the unit square, y downwards; what is optional by chance."""

    def arc(x: float, y: float, wide: float, high: float, start: int, end: int) -> list[tuple[float, float]]:
        turns = np.radians(np.linspace(start, end, 13))
        return [(x + wide * np.cos(turn), y + high * np.sin(turn)) for turn in turns]

    perhaps, flag = random.random() < 0.5, random.uniform(0.0, 0.5)
    return {
        0: [arc(0.5, 0.5, 0.4, 0.5, 0, 360)],
        1: [[(0.6 - flag, 0.1 + 0.8 * flag), (0.6, 0.0), (0.6, 1.0)], *([[(0.3, 1.0), (0.9, 1.0)]] if perhaps else [])],
        2: [[*arc(0.48, 0.28, 0.38, 0.28, -170, 45), (0.1, 1.0), (0.95, 1.0)]],
        3: [arc(0.42, 0.25, 0.4, 0.25, -150, 90), arc(0.42, 0.75, 0.45, 0.25, -90, 150)],
        4: [
            [(0.25, 0.0), (0.15, 0.6), (0.95, 0.6)] if perhaps else [(0.65, 0.0), (0.05, 0.65), (0.95, 0.65)],
            [(0.75, 0.1 + 0.3 * flag), (0.7, 1.0)],
        ],
        5: [[(0.9, 0.0), (0.25, 0.0), (0.2, 0.42), *arc(0.45, 0.7, 0.42, 0.3, -110, 140)]],
        6: [[(0.75, 0.0), (0.3, 0.3), (0.1, 0.7)], arc(0.5, 0.72, 0.4, 0.28, 0, 360)],
        7: [[(0.05, 0.0), (0.95, 0.0), (0.4, 1.0)], *([[(0.3, 0.5), (0.85, 0.5)]] if perhaps else [])],
        8: [arc(0.5, 0.25, 0.34, 0.25, 0, 360), arc(0.5, 0.75, 0.42, 0.25, 0, 360)],
        9: [arc(0.5, 0.28, 0.4, 0.28, 0, 360), [(0.9, 0.28), (0.8, 0.7), (0.45, 1.0)]],
    }[digit]


def draw_street_digits(count: int, seed: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """Digits as on house walls: uint8 (count, 3, size, size) and labels (count,); the same for the same seed.

    Each image shows one digit in the middle, in one of `FONTS` or painted by one of `HANDS`, turned, sheared and scaled a little,
    with neighbours cut off by the frame, colours of either polarity, an uneven ground with bars across it, blur and noise.
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

    fonts = torch.randint(len(glyphs()), (count,), generator=draws)
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
