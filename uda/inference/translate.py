"""Using a run that translates: images of one domain as images of the other, and grids of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from uda.atomic import atomic_write
from uda.console import Display
from uda.data.augment import to_float, to_pixels
from uda.data.folders import Found, find
from uda.data.frame import Frame
from uda.errors import UserError
from uda.methods.translating import Codes, Drawing, Styled, Translating
from uda.models.layers import SOURCE, TARGET
from uda.paths import distinct
from uda.report.grids import picture, write_grid
from uda.runs.run import Run
from uda.text import counted

DOMAINS = {"source": SOURCE, "target": TARGET}
PART = 64  # images that are translated at once
SHOWN = 12  # images in a grid
LONGEST_NAME = 255  # bytes, on nearly every file system


def open_translator(run: Run) -> Translating:
    """The run's method, which translates.

    Raises:
        UserError: where it does not.
    """
    method = run.method()
    if not isinstance(method, Translating):
        raise UserError(f"{run.recipe.method.name} does not translate images; fit with --method unit or drit")
    return method


def write_translations(
    run: Run,
    images: Path,
    out: Path,
    display: Display,
    to: str = "target",
    samples: int = 0,
    reference: Path | None = None,
    whole: bool = False,
) -> int:
    """Translates the images at a path (folder, .csv, .npz, one file) into PNGs of the same names below `out`.

    Beside the folder, ``OUT-grid.png``: some of the images, and their translations. Images are decoded and translated part by
    part, so memory does not grow with their number.

    Args:
        run: of a method that translates.
        images: what to translate.
        out: the folder to write to.
        display: where to say how it goes.
        to: ``"target"`` or ``"source"``.
        samples: so many translations of each image, drawn at random: ``NAME-1.png``, ``NAME-2.png``, ...
        reference: an image of the domain translated to, whose style all translations take.
        whole: images in their own shape, the short side as long as the run's images, and not their central squares.

    Returns:
        How many images were translated.

    Raises:
        UserError: where the run's method does not translate, or not in several ways, by a style or in any shape where that is
            asked for.
    """
    method, found = open_translator(run), find(images, labelled=False)
    display.say(f"  {counted(len(found), 'image')}, {found.note}")
    destination, places, frame = domain_number(to), _places(found, samples), run.recipe.drawn_frame
    given = None
    _check(method, run.recipe.method.name, samples, reference, whole)
    if reference is not None and isinstance(method, Styled):
        given = method.styles(one_image(reference, frame).to(run.runtime.device), destination)
    unreadable, shown, done = list[str](), _Shown(len(found)), 0
    with run.runtime.computing(), display.stage("images", 0, len(found)) as bar:
        for positions, block, failed in found.whole(frame) if whole else found.decoded(frame):
            for start in range(0, len(positions), PART):
                part, whose = block[start : start + PART], positions[start : start + PART]
                codes = method.encode(to_float(part.to(run.runtime.device)), 1 - destination)
                shown.add(other_domain(to), whose, part)
                for number, made in _made(method, codes, destination, samples, given):
                    shown.add(f"as {to} {number}" if samples else f"as {to}", whose, made)
                    for position, image in zip(whose, made, strict=True):
                        with atomic_write(_file(out / places[position], number)) as path:
                            picture(image).save(path, "PNG")
            unreadable += failed
            done += len(positions) + len(failed)
            bar.update(done, f"{done:,} images")
    if len(unreadable) == len(found):
        raise UserError(f"none of the images at {images} can be read, for example {unreadable[0]}; mend them or give others")
    if unreadable:
        display.say(f"  no translation of {counted(len(unreadable), 'image')} that cannot be read: {', '.join(unreadable[:3])}")
    if shown.columns:
        write_grid([(name, torch.stack(column)) for name, column in shown.columns.items()], grid_path(out))
    return len(found) - len(unreadable)


def _made(
    method: Translating, codes: Codes, destination: int, samples: int, given: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """Translations of a batch with their number (0, or 1 .. samples), one after another: memory does not grow with them."""
    count = len(codes.values)
    for number in range(min(1, samples), samples + 1):
        style = None if given is None else given.expand(count, -1)
        if samples and isinstance(method, Drawing):
            style = method.draw_styles(count)
        yield number, to_pixels(method.decode(codes, destination, style)).cpu()


class _Shown:
    """What the grid shows, squares (C, S, S) by name: images spread over all there are, of which a folder's first ones are of one
    class, and the first of their translations."""

    def __init__(self, count: int) -> None:
        self.chosen = set(torch.linspace(0, count - 1, SHOWN).long().tolist())
        self.columns: dict[str, list[Tensor]] = {}

    def add(self, name: str, positions: Iterable[int], images: Tensor) -> None:
        if name in self.columns or len(self.columns) <= SHOWN:
            taken = [_square(image) for position, image in zip(positions, images, strict=True) if position in self.chosen]
            if taken:
                self.columns.setdefault(name, []).extend(taken)


def _check(method: Translating, name: str, samples: int, reference: Path | None, whole: bool) -> None:
    """Whether a method of this name can do what is asked of it."""
    if samples and reference is not None:
        raise UserError("give --samples or --reference: the one draws styles, the other takes an image's")
    if samples and not isinstance(method, Drawing):
        raise UserError(f"{name} makes one translation of an image; --samples is for runs of drit and latent_mapping")
    if whole and not method.any_shape:
        raise UserError(
            f"{name} translates squares of one size; --whole is for runs of unit_translation, and of drit with "
            'method.encoder = "map"'
        )
    if reference is not None and not isinstance(method, Styled):
        raise UserError(f"{name} reads no styles off images; --reference is for runs of drit")


def grid_path(out: Path) -> Path:
    """Where the grid of a folder of translations is: beside it, so that it has no image's name."""
    out = Path(os.path.abspath(out))  # of ".", too, which has no name
    return out.parent / f"{out.name}-grid.png"


def domain_number(to: str) -> int:
    """SOURCE or TARGET."""
    if to not in DOMAINS:
        raise UserError.unknown("domain", to, DOMAINS)
    return DOMAINS[to]


def other_domain(to: str) -> str:
    """The name of the domain translated from."""
    return "source" if to == "target" else "target"


def one_image(path: Path, frame: Frame) -> Tensor:
    """One image file as floats (1, C, S, S) in -1..1."""
    if not path.exists():
        raise UserError(f"no image at {path}; give an image file")
    if path.is_dir() or path.suffix in (".csv", ".npz"):
        raise UserError(f"{path} is not one image; give an image file")
    _, images, failed = next(find(path, labelled=False).decoded(frame))
    if failed:
        raise UserError(f"cannot read {failed[0]}; give another image")
    return to_float(images)


def _places(found: Found, samples: int) -> list[Path]:
    """Where each image's translation goes: its own name, told apart, and never outside of the folder that is written to.

    Raises:
        UserError: for a name that leaves no room for the ending, or is a folder's among these names. No image is made before.
    """
    names = [Path(os.path.normpath(found.name(position))) for position in range(len(found))]
    places = distinct(Path(name.name) if name.is_absolute() or name.parts[0] == ".." else name for name in names)
    folders = {folder for place in places for folder in place.parents}
    for name, place in zip(names, places, strict=True):
        files = [_file(place, number) for number in range(min(1, samples), samples + 1)]
        if len(os.fsencode(files[-1].name)) > LONGEST_NAME:
            raise UserError(f"the name {name.name[:40]}... leaves no room for {files[-1].name[-12:]}; shorten it")
        if taken := folders.intersection(files):
            raise UserError(f"the translation of {name} would be named as the folder {taken.pop()}; rename one of them")
    return places


def _file(stem: Path, number: int) -> Path:
    """Where a translation goes: the only one of an image (`number` 0), or one of several."""
    return stem.with_name(f"{stem.name}-{number}.png" if number else f"{stem.name}.png")


def _square(image: Tensor) -> Tensor:
    """The central square of an image (C, H, W)."""
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]
