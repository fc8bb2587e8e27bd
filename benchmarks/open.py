"""Targets that hold unknown classes: of digits, seven known and three not; of photographs, ten and eleven.

    python benchmarks/open.py --seeds 0 1 2
    python benchmarks/open.py --known 3 4 5 6 7 8 9
    python benchmarks/open.py --office31 amazon-webcam dslr-amazon --backbone-weights tf_efficientnet_lite0.safetensors

USPS's --known digits (0 to 6), labelled, to all ten of MNIST, unlabelled; tested on MNIST's test images. With --office31, pairs
DOMAIN-DOMAIN of it (in $UDA_DATA): the ten classes that it shares with Caltech-256, labelled, to these and the last eleven of the
others, by a frozen body; tested on the images that are adapted to. `data.unknown = "class"`.

One rule holds for the source classifier and for each adapted one: an image whose entropy is above ln(K) / 2 is of no known class.
That threshold is DANCE's, and no label of the target has set it. Each run is a folder under --out, so an interrupted bench goes
on where it stopped; the table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import run_cell, where

from uda.data.datasets.digits import Split, load_digits
from uda.data.datasets.photographs import require
from uda.data.names import data_roots

SHARED = ["back_pack", "bike", "calculator", "headphones", "keyboard", "laptop_computer", "monitor", "mouse", "mug", "projector"]
"""Office-31's classes that Caltech-256 has, too"""
UNSHARED = [
    "pen", "phone", "printer", "punchers", "ring_binder", "ruler",
    "scissors", "speaker", "stapler", "tape_dispenser", "trash_can",
]  # fmt: skip
"""the last eleven of the others"""


class Shift(NamedTuple):
    """A source, and a target with further classes."""

    name: str
    recipe: str
    overrides: dict[str, Any]


def digits(folder: Path, known: Sequence[int], images: int, steps: int) -> Shift:
    """USPS's known digits to all of MNIST."""
    name = "".join(map(str, known))
    data = {
        "data.source": write_digits(folder, "usps", "train", known),
        "data.source_test": write_digits(folder, "usps", "test", known),
        "data.target": write_digits(folder, "mnist", "train", range(10), images),
        "data.target_test": write_digits(folder, "mnist", "test", range(10)),
    }
    training = {"training.steps": steps, "training.evaluate_every": steps, "training.batch": 64, "training.target_batch": 64}
    return Shift(name, "usps2mnist", data | training)


def write_digits(folder: Path, name: str, split: Split, wanted: Sequence[int], images: int | None = None) -> str:
    """The first `images` of a split as an .npz, of these digits alone; its path, by whose name another choice is another run."""
    domain = load_digits(name, split, data_roots(None), channels=1)
    pixels, labels = np.asarray(domain.images)[:images, 0], domain.labels.numpy()[:images]
    rows = np.isin(labels, wanted)
    path = folder / f"{name}-{split}-{''.join(map(str, wanted))}{'' if images is None else f'-first-{images}'}.npz"
    np.savez(path, images=pixels[rows], labels=labels[rows], note=f"{name} {split}, {rows.sum():,} images")
    return str(path.absolute())


def photographs(folder: Path, pair: str, body: Path | None) -> Shift:
    """Office-31's ten shared classes to these and eleven that only the target has."""
    source, _, target = pair.partition("-")
    known, all_classes = write_photographs(folder, source, SHARED), write_photographs(folder, target, SHARED + UNSHARED)
    overrides = {"data.source": known, "data.target": all_classes, "data.target_test": all_classes, "data.held_out": False}
    overrides |= {"data.target_held_out": 0.0} | ({"classifier.backbone_weights": str(body.absolute())} if body else {})
    return Shift(pair, "photos", overrides)


def write_photographs(folder: Path, domain: str, classes: Sequence[str]) -> str:
    """A table of the photographs of these classes of an Office-31 domain; its path."""
    found = require(f"office31/{domain}", data_roots(None)).find("train")
    assert found.labels is not None
    path = folder / f"office31-{domain}-{len(classes)}-classes.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        table.writerows((found.root / found.name(row), label) for row, label in enumerate(found.labels) if label in classes)
    return str(path.absolute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["label_propagation", "dance"])
    parser.add_argument("--known", nargs=7, type=int, choices=range(10), default=list(range(7)), help="seven different digits")
    parser.add_argument("--images", type=int, default=6000, help="target digits that are adapted to")
    parser.add_argument("--office31", nargs="+", metavar="PAIR", default=[], help="photographs instead of digits: amazon-webcam")
    parser.add_argument("--backbone-weights", type=Path, help="of the frozen body, where it is not to be downloaded")
    parser.add_argument("--steps", type=int, default=400, help="on digits; photographs: as the recipe says")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/open"))
    given = parser.parse_args()
    if len(set(given.known)) < len(given.known):
        parser.error("--known takes seven different digits")
    of_digits_alone = [name for name in ("known", "images", "steps") if getattr(given, name) != parser.get_default(name)]
    if given.office31 and of_digits_alone:
        parser.error(f"--{of_digits_alone[0]} is of digits; leave it out with --office31")
    given.out.mkdir(parents=True, exist_ok=True)
    shifts = [photographs(given.out, pair, given.backbone_weights) for pair in given.office31]
    rows = []
    for shift in shifts or [digits(given.out, given.known, given.images, given.steps)]:
        for seed in given.seeds:
            for method in given.methods:
                overrides = shift.overrides | {"data.unknown": "class", "seed": seed, "method.name": method}
                result = run_cell(given.out / f"{method}-{shift.name}-{seed}", shift.recipe, overrides)
                for name in ("source_only", "last"):
                    told, who = result["open_set"][name], "source classifier" if name == "source_only" else method
                    closed = result["accuracy"][name]
                    rows.append([shift.name, who, seed, closed, told["known"], told["unknown"], told["harmonic_mean"]])
    columns = ("shift", "classifier", "seed", "accuracy on known, nothing left out", "known", "unknown", "harmonic mean")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for shift_name, who, seed, *figures in rows:
        print(f"| {shift_name} | {who} | {seed} | {' | '.join(f'{figure:.4f}' for figure in figures)} |")
    of_digits = f"USPS, seven digits -> MNIST, all, {given.images:,} images; {given.steps} steps"
    print(f"\n{'Office-31, 10 classes -> 21' if given.office31 else of_digits}\n{where()}")


if __name__ == "__main__":
    main()
