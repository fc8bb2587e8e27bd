"""Targets that hold unknown classes: seven digits known, three not.

    python benchmarks/open.py --seeds 0 1 2
    python benchmarks/open.py --known 3 4 5 6 7 8 9

USPS's --known digits (0 to 6), labelled, to all ten of MNIST, unlabelled; tested on MNIST's test images with
`data.unknown = "class"`. One rule holds for the source classifier and for each adapted one: an image whose entropy is above
ln(7) / 2 is of no known class. That threshold is DANCE's, and no label of the target has set it. Each run is a folder under
--out, so an interrupted bench goes on where it stopped; the table is printed as Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cells import run_cell, where

from uda.data.datasets.digits import Split, load_digits
from uda.data.names import data_roots

RECIPE = "usps2mnist"


def write_digits(folder: Path, name: str, split: Split, digits: Sequence[int], images: int | None = None) -> str:
    """The first `images` of a split as an .npz, of these digits alone; its path, by whose name another choice is another run."""
    domain = load_digits(name, split, data_roots(None), channels=1)
    pixels, labels = np.asarray(domain.images)[:images, 0], domain.labels.numpy()[:images]
    rows = np.isin(labels, digits)
    path = folder / f"{name}-{split}-{''.join(map(str, digits))}{'' if images is None else f'-first-{images}'}.npz"
    np.savez(path, images=pixels[rows], labels=labels[rows], note=f"{name} {split}, {rows.sum():,} images")
    return str(path.absolute())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["label_propagation", "dance"])
    parser.add_argument("--known", nargs=7, type=int, choices=range(10), default=list(range(7)), help="seven different digits")
    parser.add_argument("--images", type=int, default=6000, help="target images that are adapted to")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/open"))
    given = parser.parse_args()
    if len(set(given.known)) < len(given.known):
        parser.error("--known takes seven different digits")
    given.out.mkdir(parents=True, exist_ok=True)
    data = {
        "data.source": write_digits(given.out, "usps", "train", given.known),
        "data.source_test": write_digits(given.out, "usps", "test", given.known),
        "data.target": write_digits(given.out, "mnist", "train", range(10), given.images),
        "data.target_test": write_digits(given.out, "mnist", "test", range(10)),
        "data.unknown": "class",
    }

    known, rows = "".join(map(str, given.known)), []
    for seed in given.seeds:
        for method in given.methods:
            overrides = data | {"seed": seed, "method.name": method, "training.steps": given.steps}
            overrides |= {"training.batch": 64, "training.target_batch": 64, "training.evaluate_every": given.steps}
            trained = sorted(given.out.glob(f"*-{known}-{seed}/weights/source.safetensors"))  # by the first run of the seed
            overrides |= {"classifier.weights": str(trained[0].absolute())} if trained else {}
            result = run_cell(given.out / f"{method}-{known}-{seed}", RECIPE, overrides)
            for name in ("source_only", "last"):
                told, who = result["open_set"][name], "source classifier" if name == "source_only" else method
                closed = result["accuracy"][name]
                rows.append([who, seed, closed, told["known"], told["unknown"], told["harmonic_mean"]])
    columns = ("classifier", "seed", "accuracy on known, nothing left out", "known", "unknown", "harmonic mean")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for who, seed, *figures in rows:
        print(f"| {who} | {seed} | {' | '.join(f'{figure:.4f}' for figure in figures)} |")
    print(f"\nUSPS, digits {known} -> MNIST, all digits, {given.images:,} images; {given.steps} steps\n{where()}")


if __name__ == "__main__":
    main()
