"""What each part of UNIT buys: one part changed at a time, everything else as in the pair's recipe.

    python benchmarks/unit_ablation.py svhn2mnist mnist2usps --steps 400 --seeds 0

All variants of a pair and seed start from one source classifier (but for those that change how it is trained). Each variant
is a run folder under --out, so an interrupted bench goes on where it stopped. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import accuracy_of, run_cell, where

from uda.evaluation.results import Result
from uda.recipe.load import load_recipe

ALONE = "self-training alone"  # beside labelled source images; for recipes that have self-training
VARIANTS: dict[str, dict[str, Any]] = {
    "as in the recipe": {},
    "feature matching off": {"method.feature_weight": 0.0},
    "feature matching l2": {"method.feature_norm": "l2"},
    "xy: none": {"method.coordinates": "none"},
    "xy: discriminator": {"method.coordinates": "discriminator"},
    "xy: both": {"method.coordinates": "both"},
    "trunk not tied": {"method.tied_trunk": False},
    "augmented source images translated": {"method.source_weak": False},
    "statistics off": {"method.statistics_weight": 0.0},
    "cycle on": {"method.cycle_weight": 0.01, "method.cycle_kl_weight": 1e-4},
    "source inversion the other way": {"augment.source.invert": None},  # filled in: 0.5 where it is off, 0 where it is on
    "no warm start": {"method.warm_start": False},
    "self-training off": (A_OFF := {"method.information_weight": 0.0, "method.pseudo_label_weight": 0.0}),
    "translated class off": (
        B_OFF := {
            f"method.translated_{term}": 0.0 for term in ("class_weight", "class_weight_discriminator", "pseudo_label_weight")
        }
    ),
    "neither": A_OFF | B_OFF,
    ALONE: {
        **{
            f"method.{term}_weight": 0.0
            for term in ("adversarial", "feature", "reconstruction", "kl", "cycle", "cycle_kl", "statistics")
        },
        **B_OFF,
        "method.self_training_from": 0.0,
        "method.width": 1,  # generators that learn nothing need not be wide
    },
}


def run_variant(pair: str, variant: str, seed: int, steps: int | None, out: Path) -> Result:
    """One variant's result; all but the first start from the first one's source classifier, if they may."""
    steps = steps or load_recipe(pair).training.steps
    overrides = VARIANTS[variant] | {"seed": seed, "training.steps": steps, "training.evaluate_every": steps}
    trained = out / pair / str(seed) / f"{slug('as in the recipe')}-{steps}" / "weights" / "source.safetensors"
    if "augment.source.invert" in overrides:
        overrides["augment.source.invert"] = 0.0 if load_recipe(pair).augment.source.invert else 0.5
    elif trained.exists():
        overrides["classifier.weights"] = str(trained.absolute())
    return run_cell(out / pair / str(seed) / f"{slug(variant)}-{steps}", pair, overrides)


def slug(variant: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in variant).split())


COLUMNS: dict[str, Callable[[Result], float]] = {
    "source_only": lambda result: accuracy_of(result, "source_only"),
    "last": lambda result: accuracy_of(result, "last"),
    "class consistency": lambda result: result["translation"]["class_consistency"],
    "seconds": lambda result: result["seconds"]["adaptation"],
}


def mean(results: list[Result], column: str) -> str:
    value = statistics.mean(COLUMNS[column](result) for result in results)
    return f"{value:.0f}" if column == "seconds" else f"{value:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="where not all are wanted")
    parser.add_argument("--steps", type=int, help="left out, the recipe's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/unit_ablation"))
    given = parser.parse_args()
    for pair in given.pairs:
        print(f"\n### {pair}, {given.steps or 'all'} steps, seeds {', '.join(map(str, given.seeds))}\n")
        rows = []
        for variant in given.variants:
            results = [run_variant(pair, variant, seed, given.steps, given.out) for seed in given.seeds]
            figures = {name: mean(results, name) for name in COLUMNS}
            figures |= {"class consistency": ""} if variant == ALONE else {}
            rows.append(f"| {variant} | {' | '.join(figures.values())} |")
        print(f"\nSource: {results[0]['source']['note']}. Target: {results[0]['target']['note']}.\n")
        print(f"| variant | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
        print("\n".join(rows))
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
