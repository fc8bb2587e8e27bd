"""Draws the two pictures of docs/how-it-is-built.md: python docs/pictures/draw.py [FOLDER]

The floors of `rooms.svg` are read from the import contract in pyproject.toml, so that picture and contract are one.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
INK, GREY, BLUE, PALE, ORANGE = "#1b2733", "#5b6b7b", "#1f6fb2", "#eaf2fa", "#b4570b"

HOLDS = {
    "cli": "the command line",
    "adapter": "scikit-learn's manners",
    "cluster": "many runs, many shards: Ray",
    "inference": "predict, translate, check, export",
    "training": "fit, stages, loop, seeds, inspect",
    "report": "pages, plots, grids, tables, comparisons",
    "runs": "the run folder, and networks built from a recipe",
    "recipe": "all settings of a run: read, extended, checked",
    "evaluation": "evaluator, label-free scores, estimates, diagnostics",
    "methods": "one file for each paper, and what they share",
    "data": "domains, batches, augmentation, data sets",
    "models": "backbones, layers, users' networks, translators",
    "collectives": "gather, average",
    "ranks": "several processes",
    "signals": "Ctrl-C, SIGTERM",
    "players": "optimisers, schedules, averaged weights",
    "runtime": "device, precision, seeds",
    "plugins": "users' own Python files",
    "losses": "formulas",
    "neighbours": "which images are near",
    "console": "progress",
    "atomic": "file writes",
    "paths": "outputs",
    "types": "setting types",
    "errors": "the one error that users read",
    "text": "what others wrote, made printable",
}


class Drawing:
    """An SVG on a white ground, put together shape by shape; all lengths in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height = width, height
        self.shapes = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0,0 L10,5 L0,10 z" fill="{BLUE}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, name: str, lines: list[str], colour: str = BLUE) -> None:
        """A rounded box with a bold name and lines of text below it, all centred."""
        fill = PALE if colour == BLUE else "#fdf1e6"
        self.shapes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{colour}" stroke-width="1.3"/>'
        )
        top = y + height / 2 - 8 * len(lines) + 5
        self.text(x + width / 2, top, name, INK, 14, weight="bold")
        for number, line in enumerate(lines, 1):
            self.text(x + width / 2, top + 16 * number, line, GREY, 12)

    def text(
        self, x: float, y: float, words: str, colour: str = GREY, size: int = 12, anchor: str = "middle", weight: str = "normal"
    ) -> None:
        self.shapes.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
            f"{escape(words)}</text>"
        )

    def arrow(self, *points: tuple[float, float], dashed: bool = False) -> None:
        """A line through the points, with a tip at its end."""
        path = " L".join(f"{x},{y}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.shapes.append(f'<path d="M{path}" fill="none" stroke="{BLUE}" stroke-width="1.6"{dash} marker-end="url(#tip)"/>')

    def write(self, path: Path) -> None:
        path.write_text("\n".join([*self.shapes, "</svg>", ""]), encoding="utf-8")


def rooms() -> Drawing:
    """The rooms of uda/ by floor, from the roof down."""
    project = tomllib.loads((HERE.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [[room.strip().removeprefix("uda.") for room in layer.split("|")] for layer in layers]
    left, width, height, gap = 110, 760, 44, 9
    drawing = Drawing(left + width + 20, 40 + len(floors) * (height + gap), "The rooms of uda, each above what it imports")
    drawing.text(left + width / 2, 20, "Each floor imports only from those below it; rooms side by side do not know each other.")
    for number, floor in enumerate(floors):
        y, share = 34 + number * (height + gap), (width + gap) / len(floor)
        for place, room in enumerate(floor):
            drawing.box(left + place * share, y, share - gap, height, room, [HOLDS[room]])
    bottom = 34 + len(floors) * (height + gap) - gap
    drawing.arrow((84, 40), (84, bottom - 4))
    drawing.text(72, 54, "doors", anchor="end")
    drawing.text(72, (34 + bottom) / 2, "imports", BLUE, anchor="end", weight="bold")
    drawing.text(72, bottom - 4, "ground", anchor="end")
    return drawing


def batch() -> Drawing:
    """A batch's way from image files to result.json."""
    drawing = Drawing(900, 470, "A batch's way from file to result.json")
    drawing.box(20, 30, 170, 62, "image files", ["folder, .csv, .npz,", "data set by name"])
    drawing.box(250, 30, 180, 62, "data", ["two domains, uint8;", "target without labels"])
    drawing.box(490, 30, 180, 62, "data.batches", ["a batch, augmented,", "float in -1..1"])
    drawing.box(490, 150, 180, 62, "methods", ["step(batch): features,", "logits, losses"])
    drawing.box(730, 150, 150, 62, "players", ["gradients, optimisers,", "averaged weights"])
    drawing.box(250, 150, 180, 62, "training", ["stages, and the loop", "that calls step()"])
    drawing.box(250, 270, 180, 62, "evaluation", ["outputs on samples,", "label-free scores"])
    drawing.box(20, 270, 170, 62, "target test labels", ["read here and here only", "while a run trains"], ORANGE)
    drawing.box(490, 270, 180, 62, "evaluation.results", ["accuracies, estimate,", "diagnostics"])
    drawing.box(490, 390, 180, 62, "runs", ["result.json, weights,", "outputs, recipe.toml"])
    drawing.box(250, 390, 180, 62, "report", ["report.html,", "the printed table"])
    for start, end in [((190, 61), (249, 61)), ((430, 61), (489, 61)), ((580, 92), (580, 149)), ((670, 170), (729, 170))]:
        drawing.arrow(start, end)
    drawing.arrow((729, 196), (671, 196))
    drawing.text(700, 163, "losses")
    drawing.text(700, 211, "weights")
    drawing.text(590, 125, "the same for every method", anchor="start")
    drawing.arrow((430, 181), (489, 181))
    drawing.arrow((340, 212), (340, 269))
    drawing.text(350, 245, "every evaluate_every steps, and at the end", anchor="start")
    drawing.arrow((190, 301), (249, 301), dashed=True)
    drawing.text(105, 351, "to print accuracies,", ORANGE)
    drawing.text(105, 367, "which steer nothing", ORANGE)
    drawing.arrow((430, 301), (489, 301))
    drawing.arrow((580, 332), (580, 389))
    drawing.arrow((490, 421), (431, 421))
    return drawing


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    rooms().write(folder / "rooms.svg")
    batch().write(folder / "batch.svg")


if __name__ == "__main__":
    main()
