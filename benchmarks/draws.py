"""What diversity buys: DRIT's adaptation with 1, 3 and 5 translations of each source image, MNIST -> MNIST-M.

    python benchmarks/draws.py --seeds 0 1 2

All runs of a seed start from one source classifier. Each is a run folder under --out, so an interrupted bench goes on where it
stopped; the table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from cells import run_cell, where

RECIPE = "mnist2mnistm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/draws"))
    given = parser.parse_args()

    rows: dict[int, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        for draws in given.draws:
            overrides: dict[str, Any] = {"seed": seed, "method.draws": draws}
            trained = given.out / f"{given.draws[0]}-{seed}" / "weights" / "source.safetensors"
            if trained.exists():
                overrides["classifier.weights"] = str(trained.absolute())
            rows.setdefault(draws, []).append(run_cell(given.out / f"{draws}-{seed}", RECIPE, overrides))
    columns = ("source_only", "last", "selected", "oracle")
    print(f"\n| draws | {' | '.join(columns)} | class consistency | seconds |\n|{'---|' * (len(columns) + 3)}")
    for draws, results in rows.items():
        figures = [[result["accuracy"][name] for result in results] for name in columns]
        figures.append([result["translation"]["class_consistency"] for result in results])
        shown = (f"{statistics.mean(values):.4f} ({min(values):.4f} .. {max(values):.4f})" for values in figures)
        seconds = statistics.mean(result["seconds"]["adaptation"] for result in results)
        print(f"| {draws} | {' | '.join(shown)} | {seconds:.0f} |")
    print(f"\n{results[0]['source']['note']} -> {results[0]['target']['note']}; seeds {given.seeds}\n{where()}")


if __name__ == "__main__":
    main()
