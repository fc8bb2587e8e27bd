"""Grids: every image in its place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from uda.methods.base import Method
from uda.methods.translating import PairDrawing, Styled, Translating
from uda.report.grids import GAP, SMALL, draw_translations, write_grid


class Mirror(Translating):
    """Turns source images to white and target images to black; it has no networks and takes no settings."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def translate(self, images: torch.Tensor, origin: int, destination: int, style: torch.Tensor | None = None) -> torch.Tensor:
        return images if origin == destination else torch.full_like(images, 1.0 if origin == 0 else -1.0)


class Many(Mirror, Styled):
    pass


class Pairs(PairDrawing):
    def __init__(self) -> None:
        nn.Module.__init__(self)

    def draw_pairs(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((count, 1, 16, 16), -1.0), torch.full((count, 1, 16, 16), 1.0)


def middles(path: Path) -> list[int]:
    """The grey level in the middle of each row's last image."""
    pixels = np.asarray(Image.open(path).convert("L"))
    side = SMALL + GAP
    return [int(pixels[row * side + SMALL // 2, -side // 2]) for row in range((len(pixels) + GAP) // side)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("method", "rows"),
    [
        (Mirror(), [191, 191, 255, 64, 64, 0]),
        (Many(), [191, 191, 255, 255, 255, 64, 64, 0, 0, 0]),
        (Pairs(), [0, 255, 64]),
    ],
    ids=["one", "many", "pairs"],
)
def test_a_method_has_its_rows_in_order(method: Method, rows: list[int], channels: int, tmp_path: Path) -> None:
    images = torch.full((5, channels, 16, 16), 0.5), torch.full((5, channels, 16, 16), -0.5)
    draw_translations(method, *images, tmp_path / "grid.png")
    assert middles(tmp_path / "grid.png") == rows


def test_large_images_keep_their_size(tmp_path: Path) -> None:
    write_grid([("a name", torch.full((2, 3, 100, 100), 9, dtype=torch.uint8))], tmp_path / "grid.png")
    picture = Image.open(tmp_path / "grid.png")
    assert picture.height == 100
    assert (np.asarray(picture)[:, -100 - GAP : -GAP] == 9).all()
