"""Grids of images with a name to each row, as PNGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from uda.atomic import atomic_write
from uda.data.augment import to_pixels
from uda.methods.base import Method
from uda.methods.translating import Drawing, PairDrawing, Translating
from uda.models.layers import SOURCE, TARGET

INK, GAP, SMALL = "#1f2430", 3, 64  # GAP and SMALL in pixels: images are enlarged, by a whole number, until they are not small
DRAWS = 3  # translations that are shown of an image that has many


def picture(image: Tensor) -> Image.Image:
    """uint8 (C, H, W) as an image."""
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).squeeze(-1).cpu().numpy()))


def write_grid(rows: list[tuple[str, Tensor]], out: Path) -> None:
    """Writes a PNG: for each row its name, then its images, uint8 (n, C, S, S)."""
    font = ImageFont.load_default(14)
    side = rows[0][1].shape[-1]
    side *= max(1, -(-SMALL // side))
    left = round(max(font.getlength(name) for name, _ in rows)) + 16
    sheet = Image.new("RGB", (left + (side + GAP) * len(rows[0][1]), (side + GAP) * len(rows) - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for down, (name, images) in enumerate(rows):
        top = (side + GAP) * down
        pen.text((left - 8, top + side // 2), name, fill=INK, anchor="rm", font=font)
        for along, image in enumerate(images):
            shown = picture(image).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(shown, (left + (side + GAP) * along, top))
    ours = PngInfo()
    ours.add_text("Software", "uda")  # by which a command knows its own picture, and may replace it (uda/paths.py)
    with atomic_write(out) as path:
        sheet.save(path, "PNG", optimize=True, pnginfo=ours)


def draw_translations(method: Method, source: Tensor, target: Tensor, out: Path) -> None:
    """Rows: source, its reconstruction, source to target, target, its reconstruction, target to source.

    Where a method makes many translations of an image, three of them. A method that draws pairs without an image to go by
    (CoGAN) shows such pairs.

    `source` and `target`: float images (n, C, S, S) in -1..1 on the method's device.
    """
    if isinstance(method, PairDrawing):
        pairs = method.draw_pairs(len(source))
        rows = [("drawn, as source", pairs[SOURCE]), ("the same, as target", pairs[TARGET]), ("real target", target)]
    else:
        assert isinstance(method, Translating)
        times = DRAWS if isinstance(method, Drawing) else 1
        rows = []
        for name, other, images, origin in (("source", "target", source, SOURCE), ("target", "source", target, TARGET)):
            rows += [(name, images), ("reconstruction", method.translate(images, origin, origin))]
            rows += [(f"{name} to {other}", method.translate(images, origin, 1 - origin)) for _ in range(times)]
    write_grid([(name, to_pixels(images)) for name, images in rows], out)
