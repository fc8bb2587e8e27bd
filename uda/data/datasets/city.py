"""Aerial photographs and street maps: the real pairs where they are at hand, else cities drawn twice.

Real: the maps data of Isola et al. 2017, ``maps/train/*.jpg`` and ``maps/val/*.jpg`` under a data root, each file a photograph
(left half) beside its map (right half). Drawn: a random city plan as a flat map, and as a textured, shadowed, noisy view from
above. For training, the two domains show different cities: no pair can be learned from. Test images are pairs, in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from uda.data.arrays import fit_frame
from uda.data.datasets.digits import Split
from uda.data.domain import LabelledDomain
from uda.errors import UserError
from uda.paths import regular

View = Literal["aerial", "map"]
COUNTS = {"train": 2000, "test": 400}
DRAWN_NOTE = f"cities drawn at run time ({COUNTS['train']:,} train, {COUNTS['test']:,} test, in pairs), NOT aerial photographs"
REAL_NOTE = "maps of Isola et al. 2017: aerial photographs beside street maps"
UNLABELLED = ("image",)  # the one class of images that nobody classifies

GROUND, PARK, WATER, BUILDING, ROAD = range(5)
# Streets are the lightest in both, and views are rough by a few grey levels only: what the cycle is to bring back has to be in
# the map, so rough views make speckled maps, and small networks have some hundred steps to learn better.
MAP_COLOURS = ((236, 226, 200), (130, 195, 110), (100, 160, 225), (205, 140, 110), (255, 255, 255))
AERIAL_COLOURS = ((118, 108, 84), (58, 92, 44), (34, 58, 84), (140, 104, 92), (176, 174, 168))
STREETS = 9  # lines each way; some lie outside of the picture
SPAN = 0.5  # half a picture's side, where streets are some 0.4 apart: two or three blocks each way, as in the real ones


def draw_cities(count: int, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Views from above and maps of the same cities: uint8 (count, 3, size, size) each; the same for the same seed."""
    draws = Generator().manual_seed(seed)
    drawn = [_draw(len(part), size, draws) for part in torch.arange(count).split(500)]
    aerial, maps = zip(*drawn, strict=True)
    return torch.cat(aerial), torch.cat(maps)


def _draw(count: int, size: int, draws: Generator) -> tuple[Tensor, Tensor]:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=draws) * (high - low) + low

    def paint(kinds: Tensor, colours: Sequence[Sequence[int]]) -> Tensor:
        return (torch.tensor(colours).float() / 255)[kinds].permute(0, 3, 1, 2)

    axis = torch.linspace(-SPAN, SPAN, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turn = uniform(-math.pi / 4, math.pi / 4, 1, 1)
    along, across = torch.cos(turn) * x + torch.sin(turn) * y, torch.cos(turn) * y - torch.sin(turn) * x

    # Two families of streets, at uneven distances; one in three is wide.
    to_street, cells = torch.full((count, size, size), math.inf), []
    for where in (along, across):
        lines = torch.sort((torch.arange(STREETS) - STREETS / 2) * 0.42 + uniform(-0.16, 0.16, STREETS), 1).values
        wide = torch.where(torch.rand(count, STREETS, generator=draws) < 0.34, 0.075, 0.04)
        apart = (where[..., None] - lines[:, None, None]).abs() - wide[:, None, None]
        to_street = torch.minimum(to_street, apart.amin(-1))
        cells.append((where[..., None] > lines[:, None, None]).sum(-1))
    block = cells[0] * (STREETS + 1) + cells[1]
    city = torch.arange(count)[:, None, None]

    # Blocks are parks or built up; a lot of a block has a building, or a yard.
    per_block = torch.rand(count, (STREETS + 1) ** 2, generator=draws)
    kinds = torch.where(per_block[city, block] < 0.2, PARK, GROUND)
    lots = [torch.floor(where / 0.2).long() for where in (along, across)]
    inside = [(where / 0.2 - lot - 0.5).abs() < 0.33 for where, lot in zip((along, across), lots, strict=True)]
    lot = (lots[0] % 32) * 32 + lots[1] % 32
    per_lot = torch.rand(count, 32 * 32, generator=draws)[city, lot]
    building = inside[0] & inside[1] & (per_lot < 0.7) & (kinds == GROUND) & (to_street > 0.02)
    kinds = torch.where(building, BUILDING, kinds)
    river = (along * 0.3 + across - 0.3 * torch.sin(2.5 * along + uniform(0, 6, 1, 1)) - uniform(-SPAN, SPAN, 1, 1)).abs()
    kinds = torch.where((river < uniform(0.06, 0.14, 1, 1)) & (uniform(0, 1, 1, 1) < 0.5), WATER, kinds)
    kinds = torch.where(to_street < 0, ROAD, kinds)

    # From above: roofs differ, buildings throw shadows to one side, ground and trees are rough, the light is uneven.
    view = paint(kinds, AERIAL_COLOURS)
    roof = torch.rand(count, 32 * 32, 1, generator=draws) + 0.4 * torch.rand(count, 32 * 32, 3, generator=draws)
    is_building = (kinds == BUILDING)[:, None]
    view = torch.where(is_building, view + 0.15 * (roof[city, lot].permute(0, 3, 1, 2) - 0.7), view)
    step = max(1, size // 24)
    shadow = is_building.roll((step, step), (2, 3)) & ~is_building & (kinds != WATER)[:, None]
    view = torch.where(shadow, view * 0.45, view)
    rough = torch.tensor([0.02, 0.04, 0.01, 0.01, 0.01])[kinds][:, None]
    view = view + rough * torch.randn(count, 1, size, size, generator=draws)
    light = F.interpolate(uniform(0.92, 1.08, 1, 5, 5), (size, size), mode="bicubic", align_corners=True)
    view = view * light + 0.01 * torch.randn(count, 3, size, size, generator=draws)
    return tuple((part.clamp(0, 1) * 255).round().byte() for part in (view, paint(kinds, MAP_COLOURS)))  # type: ignore[return-value]


def real_files(split: Split, roots: Sequence[Path]) -> list[Path]:
    """The real pairs of one split, of the first root that has any."""
    folders = (root / "maps" / ("train" if split == "train" else "val") for root in roots)
    return next((files for folder in folders if (files := sorted(folder.glob("*.jpg")))), [])


def load_city(view: View, split: Split, roots: Sequence[Path], size: int, channels: int) -> LabelledDomain:
    """One split of one domain; its one class is `UNLABELLED`.

    Of real training files, the first half gives photographs and the second half maps.
    """
    files = real_files(split, roots)
    if files:
        half = len(files) // 2
        files = files if split == "test" else files[:half] if view == "aerial" else files[half:]
        halves = torch.cat([_read_half(path, view, size) for path in files])
        images, note = halves, f"{REAL_NOTE}, {len(files):,} images"
    else:
        seed = 2 if split == "test" else 0 if view == "aerial" else 1
        images, note = draw_cities(COUNTS[split], seed, size)[view == "map"], DRAWN_NOTE
    labels = torch.zeros(len(images), dtype=torch.int64)
    return LabelledDomain(f"{view} {split}", fit_frame(images, size, channels), UNLABELLED, note, labels)


def _read_half(path: Path, view: View, size: int) -> Tensor:
    try:
        regular(path)
        with Image.open(path) as file:
            both = file.convert("RGB")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); put it back, or remove it") from error
    width = both.width // 2
    left = 0 if view == "aerial" else width
    part = both.crop((left, 0, left + width, both.height))
    return fit_frame(torch.from_numpy(np.array(part)).permute(2, 0, 1)[None], size, 3)
