"""Strips of pictures by a run that translates: between two images, and between the styles of two images."""

from __future__ import annotations

from pathlib import Path

import torch

from uda.console import Display
from uda.data.augment import to_float, to_pixels
from uda.data.folders import find
from uda.errors import UserError
from uda.inference.translate import SHOWN, domain_number, one_image, open_translator, other_domain
from uda.methods.translating import Codes, Drawing, Styled
from uda.report.grids import write_grid
from uda.runs.run import Run
from uda.text import counted

STOPS = 10  # pictures in a strip


def write_strip(run: Run, first: Path, second: Path, out: Path, to: str = "target", stops: int = STOPS) -> None:
    """A strip from one image to another: codes on the line between theirs, drawn in both domains.

    Args:
        run: of a method that translates.
        first, second: images of the domain translated from.
        out: the PNG to write.
        to: ``"target"`` or ``"source"``, the domain of the lower row; the upper row is of the other.
        stops: how many pictures, both ends included.

    Raises:
        UserError: where the run's method does not translate, or an image cannot be read.
    """
    method, destination = open_translator(run), domain_number(to)
    ends = torch.cat([one_image(path, run.recipe.drawn_frame) for path in (first, second)]).to(run.runtime.device)
    codes, origin = method.encode(ends, 1 - destination), 1 - destination
    share = torch.linspace(0, 1, stops, device=ends.device).view(-1, *[1] * (codes.values.ndim - 1))
    between = Codes(torch.lerp(codes.values[:1].float(), codes.values[1:].float(), share).to(codes.values.dtype), origin)
    rows = []
    for domain in (origin, destination):
        style = None  # or one for all of a row, so that only the code moves
        if isinstance(method, Styled) and domain == origin:
            style = method.styles(ends[:1], origin)
        elif isinstance(method, Drawing):
            style = method.draw_styles(1)
        rows.append(to_pixels(method.decode(between, domain, style if style is None else style.expand(stops, -1))))
    write_grid(list(zip((other_domain(to), f"as {to}"), rows, strict=True)), out)


def write_style_strips(
    run: Run, images: Path, first: Path, second: Path, out: Path, display: Display, to: str = "target", stops: int = STOPS
) -> int:
    """Each image at a path, up to `SHOWN` of them, translated in styles on the line between those of two images.

    A row for each: the image, then its translations. Above them, at both ends, the two images whose styles these are.

    Args:
        run: of a method that reads styles off images.
        images: what to translate.
        first, second: images of the domain translated to.
        out: the PNG to write.
        display: where to say which images cannot be read.
        to: ``"target"`` or ``"source"``, the domain translated to.
        stops: how many styles, both ends included.

    Returns:
        How many rows there are.

    Raises:
        UserError: where the run's method reads no styles, or an image cannot be read.
    """
    method, destination, frame = open_translator(run), domain_number(to), run.recipe.drawn_frame
    if not isinstance(method, Styled):
        raise UserError(f"{run.recipe.method.name} reads no styles off images; --interpolate-style is for runs of drit")
    ends = torch.cat([one_image(path, frame) for path in (first, second)])
    blank = torch.ones_like(ends[:1])
    unreadable: list[str] = []
    rows = [("styles of", torch.cat([blank, ends[:1], blank.expand(stops - 2, -1, -1, -1), ends[1:]]))]
    with run.runtime.computing():
        read = method.styles(ends.to(run.runtime.device), destination).float()
        styles = torch.lerp(read[:1], read[1:], torch.linspace(0, 1, stops, device=read.device)[:, None])
        for _, block, failed in find(images, labelled=False).decoded(frame):
            unreadable += failed
            for image in to_float(block[: SHOWN + 1 - len(rows)]):
                codes = method.encode(image[None].to(run.runtime.device), 1 - destination)
                repeated = Codes(codes.values.expand(stops, *codes.values.shape[1:]), codes.domain)
                made = method.decode(repeated, destination, styles).cpu()
                rows.append((f"{other_domain(to)} {len(rows)}", torch.cat([image[None], made])))
            if len(rows) > SHOWN:
                break
    if unreadable:
        display.say(f"  no strip for {counted(len(unreadable), 'image')} that cannot be read: {', '.join(unreadable[:3])}")
    if len(rows) == 1:
        raise UserError(f"none of the images at {images} can be read; give others")
    write_grid([(name, to_pixels(row)) for name, row in rows], out)
    return len(rows) - 1
