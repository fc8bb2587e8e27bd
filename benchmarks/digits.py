"""The digits table: methods x pairs x seeds, one process at a time.

    python benchmarks/digits.py svhn2mnist mnist2usps usps2mnist --methods unit shot --seeds 0 1 2

Each cell is a run folder under --out, so an interrupted bench goes on where it stopped. All cells of a pair and seed start from
one source classifier, which the first of them trains; a method for which the recipe names another network has its own. Tables are
printed as Markdown: every run, and mean (lowest .. highest) of the seeds.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from cells import run_cell, where

from uda.evaluation.results import Result
from uda.methods import METHODS
from uda.recipe.load import load_recipe

ACCURACIES = ("source", "source_only", "last", "selected", "oracle")
COLUMNS = (*ACCURACIES, "class consistency", "evaluation classifier", "seconds")


def run(out: Path, pair: str, method: str, seed: int, keep: bool) -> Result:
    """One cell's result; its source classifier is that of the first finished cell of the pair and seed with the same network."""
    overrides: dict[str, Any] = {"seed": seed, "selection.keep": keep}
    if method != "unit":
        overrides["method.name"] = method
    network = load_recipe(pair, overrides).classifier
    trained = [
        weights
        for weights in sorted(out.glob(f"{pair}-*-{seed}/weights/source.safetensors"), key=lambda path: path.stat().st_mtime)
        if load_recipe(weights.parents[1] / "recipe.toml").classifier.model_copy(update={"weights": None}) == network
    ]
    if trained:
        overrides["classifier.weights"] = str(trained[0].absolute())
    return run_cell(out / f"{pair}-{method}-{seed}", pair, overrides)


def columns_of(result: Result) -> list[float | None]:
    translation = result.get("translation", {})
    shares = [result["accuracy"][name] for name in ACCURACIES]
    return [*shares, translation.get("class_consistency"), translation.get("judge_accuracy"), result["seconds"]["total"]]


def show(value: float | None, column: str) -> str:
    return "" if value is None else f"{value:.0f}" if column == "seconds" else f"{value:.4f}"


def summary(values: list[Any], column: str) -> str:
    if None in values:
        return ""
    return f"{show(statistics.mean(values), column)} ({show(min(values), column)} .. {show(max(values), column)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", help="recipes of pairs of digit sets")
    parser.add_argument("--methods", nargs="+", default=["unit"], choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    parser.add_argument("--keep", action="store_true", help="keep each evaluation's outputs, for benchmarks/selection.py")
    given = parser.parse_args()

    rows: dict[tuple[str, str], list[list[float | None]]] = {}
    notes = {}
    for pair in given.pairs:
        for method in given.methods:
            for seed in given.seeds:
                result = run(given.out, pair, method, seed, given.keep)
                rows.setdefault((pair, method), []).append(columns_of(result))
                notes[pair] = f"{result['source']['note']} -> {result['target']['note']}"

    print(f"\n| pair | method | seed | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 3)}")
    for (pair, method), runs in rows.items():
        for seed, values in zip(given.seeds, runs, strict=True):
            shown = (show(value, column) for value, column in zip(values, COLUMNS, strict=True))
            print(f"| {pair} | {method} | {seed} | {' | '.join(shown)} |")
    print(f"\n| pair | method | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 2)}")
    for (pair, method), runs in rows.items():
        columns = zip(COLUMNS, zip(*runs, strict=True), strict=True)
        print(f"| {pair} | {method} | {' | '.join(summary(list(values), column) for column, values in columns)} |")
    print("\nSeconds are of a whole run; the source classifier is trained in the first of a pair and seed.\n")
    for pair, note in notes.items():
        print(f"- {pair}: {note}")
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
