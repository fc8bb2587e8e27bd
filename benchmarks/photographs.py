"""The photographs table: methods x pairs x seeds on a frozen pretrained body, one process at a time.

    export UDA_DATA=...   # a folder with office31/ and pacs/
    python benchmarks/photographs.py office31 --backbone-weights tf_efficientnet_lite0.safetensors --methods im mcc --seeds 0

Each cell is a run folder under --out, so an interrupted bench goes on where it stopped. What the body makes of images is kept
(`uda cache`), and so are source classifiers: only the first run of a domain pays for features. Printed as Markdown: of each
method, `last` on every pair (mean of the seeds), their mean, and the seconds of a run whose features are kept.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any

from cells import accuracy_of, run_cell, where

from uda.data.names import PHOTOGRAPH_SETS
from uda.evaluation.results import Result
from uda.recipe.load import parse_override

PACS = [("photo", target) for target in ("art_painting", "cartoon", "sketch")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["office31", "pacs"], help="all pairs of Office-31; PACS from photo")
    parser.add_argument("--methods", nargs="+", default=["im"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pairs", nargs="+", help="DOMAIN-DOMAIN, where not all are wanted")
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE", help="other settings, for all")
    given = parser.parse_args()
    pairs = PACS if given.set == "pacs" else list(itertools.permutations(PHOTOGRAPH_SETS["office31"].domains, 2))
    if given.pairs:
        pairs = [pair for pair in pairs if "-".join(pair) in given.pairs]
    print(f"\n| method | {' | '.join(f'{source} -> {target}' for source, target in pairs)} | mean | seconds |")
    print("|---|" + "---|" * (len(pairs) + 2))
    only: dict[tuple[str, str], float] = {}
    for method in given.methods:
        cells, seconds = [], []
        for source, target in pairs:
            results = [cell(given, source, target, method, seed) for seed in given.seeds]
            cells.append(statistics.mean(accuracy_of(result, "last") for result in results))
            only[source, target] = statistics.mean(accuracy_of(result, "source_only") for result in results)
            seconds += [result["seconds"]["total"] - result["seconds"]["features"] for result in results]
        print(row(method, cells, f"{statistics.median(seconds):.0f}"), flush=True)
    print(row("source_only", list(only.values()), ""))
    print(f"\nSeeds {' '.join(map(str, given.seeds))}. {where()}")


def row(name: str, shares: list[float], seconds: str) -> str:
    """A line of the table, the mean behind the pairs."""
    return f"| {name} | {' | '.join(f'{share:.4f}' for share in (*shares, statistics.mean(shares)))} | {seconds} |"


def cell(given: argparse.Namespace, source: str, target: str, method: str, seed: int) -> Result:
    """The result of one run."""
    overrides: dict[str, Any] = {"seed": seed, "data.source": f"{given.set}/{source}", "data.target": f"{given.set}/{target}"}
    if given.backbone_weights is not None:
        overrides["classifier.backbone_weights"] = str(given.backbone_weights.absolute())
    overrides |= {"method.name": method} | dict(parse_override(text) for text in given.settings)
    return run_cell(given.out / f"{given.set}-{source}-{target}-{method}-{seed}", given.set, overrides)


if __name__ == "__main__":
    main()
