"""The digit recipes: every recipe with every seed, one process at a time.

    python benchmarks/digits.py svhn2mnist mnist2usps usps2mnist synth2digits --seeds 0 1 2

Each run is a folder under --out, so an interrupted bench goes on where it stopped. Two tables are printed as Markdown: every
run, and the mean with the lowest and highest of the seeds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from cells import run_cell, where

ACCURACIES = ("source", "source_only", "last", "selected", "oracle")
COLUMNS = (*ACCURACIES, "class consistency", "judge", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    given = parser.parse_args()

    figures: dict[str, list[list[float]]] = {}
    notes = {}
    for recipe in given.recipes:
        for seed in given.seeds:
            result = run_cell(given.out / f"{recipe}-{seed}", recipe, {"seed": seed})
            translation = result["translation"]
            figures.setdefault(recipe, []).append(
                [
                    *(result["accuracy"][name] for name in ACCURACIES),
                    translation["class_consistency"],
                    translation["judge_accuracy"],
                    result["seconds"]["total"],
                ]
            )
            notes[recipe] = f"{result['source']['note']} -> {result['target']['note']}"

    print(f"\n| recipe | seed | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    for recipe, rows in figures.items():
        for seed, (*shares, seconds) in zip(given.seeds, rows, strict=True):
            print(f"| {recipe} | {seed} | {' | '.join(f'{share:.4f}' for share in shares)} | {seconds:.0f} |")
    print(f"\n| recipe | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for recipe, rows in figures.items():
        *shares, seconds = zip(*rows, strict=True)
        cells = [f"{statistics.mean(column):.4f} ({min(column):.4f} .. {max(column):.4f})" for column in shares]
        print(f"| {recipe} | {' | '.join(cells)} | {statistics.mean(seconds):.0f} ({min(seconds):.0f} .. {max(seconds):.0f}) |")
    print()
    for recipe, note in notes.items():
        print(f"- {recipe}: {note}")
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
