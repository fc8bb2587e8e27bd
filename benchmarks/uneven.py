"""Targets that are uneven or lack classes: what it costs a method to expect even ones, and what estimated shares give back.

    python benchmarks/uneven.py --methods unit shot mean_teacher --shares auto even

USPS to MNIST, with three targets of --images training images each: `even`, all classes alike; `partial`, without the classes 7, 8
and 9, in training as in testing; `geometric`, whose classes run from 36 % to 1 %, the digit 0 the most frequent. All are MNIST's
images, and the methods begin from one source classifier.

Two accuracies of each run, on MNIST's test images: `balanced` is the mean over the classes that the target has; `weighted` weighs
each class as it comes in the geometric target, for the even target, too, so that the two can be compared. Each run is a folder
under --out, so an interrupted bench goes on where it stopped; the table is printed as Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cells import run_cell, where

from uda.data.datasets.digits import load_digits
from uda.data.names import data_roots

RECIPE, CLASSES = "usps2mnist", 10
PARTIAL = np.where(np.arange(CLASSES) < 7, 1 / 7, 0)
GEOMETRIC = np.geomspace(0.36, 0.01, CLASSES) / np.geomspace(0.36, 0.01, CLASSES).sum()
TARGETS = {"even": np.full(CLASSES, 1 / CLASSES), "partial": PARTIAL, "geometric": GEOMETRIC}


def make_target(folder: Path, name: str, images: int) -> tuple[str, str]:
    """Paths of a target's training images, whose classes have the shares of `TARGETS`, and of test images of these classes."""
    shares = TARGETS[name]
    paths = []
    for split, file in (("train", f"{name}-{images}.npz"), ("test", f"{name}-test.npz")):
        domain = load_digits("mnist", "train" if split == "train" else "test", data_roots(None), channels=1)
        pixels, labels = np.asarray(domain.images)[:, 0], domain.labels.numpy()
        members = [(labels == k).nonzero()[0] for k in range(CLASSES)]
        wanted = [round(images * share) if split == "train" else len(labels) * (share > 0) for share in shares]
        rows = np.concatenate([own[:count] for own, count in zip(members, wanted, strict=True)])
        note = f"MNIST {split}, {len(rows):,} images, {name} classes"
        np.savez(folder / file, images=pixels[rows], labels=labels[rows], note=note)
        paths.append(str((folder / file).absolute()))
    return paths[0], paths[1]


def mean_accuracy(per_class: Sequence[float | None], shares: np.ndarray) -> float:
    """The mean of the classes' accuracies, weighted by their shares; a class without images has none."""
    weights: list[float] = shares.tolist()
    return sum(share * accuracy for share, accuracy in zip(weights, per_class, strict=True) if accuracy is not None and share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["unit", "shot", "mean_teacher"])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--shares", nargs="+", default=["auto", "even"], help="what training.target_shares is set to")
    parser.add_argument("--images", type=int, default=6000, help="training images of each target")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/uneven"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    rows = []
    for target in given.targets:
        train, test = make_target(given.out, target, given.images)
        for shares in given.shares:
            for method in given.methods:
                overrides = {
                    "seed": given.seed, "data.target": train, "data.target_test": test, "training.target_shares": shares,
                    "training.steps": given.steps, "training.evaluate_every": given.steps, "training.batch": 64,
                    "training.target_batch": 128, "method.name": method,
                }  # fmt: skip
                trained = sorted(given.out.glob(f"*-{given.seed}/weights/source.safetensors"))  # by the first run
                overrides |= {"classifier.weights": str(trained[0].absolute())} if trained else {}
                result = run_cell(given.out / f"{target}-{shares}-{method}-{given.seed}", RECIPE, overrides)
                even, uneven = TARGETS["partial" if target == "partial" else "even"], GEOMETRIC
                figures = [
                    f"{mean_accuracy(result['per_class'][step], weights):.4f}" if target != "partial" or weights is even else ""
                    for weights in (even, uneven)
                    for step in ("source_only", "last")
                ]
                expected = f"{shares}: {result['class_shares']['expected']}"
                rows.append([target, method, expected, *figures, f"{result['seconds']['adaptation']:.0f}"])
    columns = (
        "target", "method", "class shares", "source_only, balanced", "last, balanced", "source_only, weighted", "last, weighted",
        "seconds",
    )  # fmt: skip
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(f"\nUSPS -> MNIST, {given.images:,} target images, {given.steps} steps, seed {given.seed}\n{where()}")


if __name__ == "__main__":
    main()
