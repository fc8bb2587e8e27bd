"""What each part of UNIT buys: one part changed at a time, everything else as in the pair's recipe.

    python benchmarks/unit_ablation.py svhn2mnist mnist2usps --steps 400 --seeds 0

All variants of a pair and seed start from one source classifier (but for those that change how it is trained). Each variant
is a run folder under --out, so an interrupted bench goes on where it stopped. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from uda.display import Display
from uda.fitting import fit, resume
from uda.recipe import load_recipe
from uda.runs import Run, versions
from uda.runtime import choose_runtime, machine

NO_ANCHORS = {"method.information_weight": 0.0, "method.pseudo_label_weight": 0.0, "method.translated_class_weight": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "as in the recipe": {},
    "feature matching off": {"method.feature_weight": 0.0},
    "feature matching l2": {"method.feature_norm": "l2"},
    "xy: none": {"method.coordinates": "none"},
    "xy: discriminator": {"method.coordinates": "discriminator"},
    "xy: both": {"method.coordinates": "both"},
    "trunk not tied": {"method.tied_trunk": False},
    "cycle on": {"method.cycle_weight": 0.01, "method.cycle_kl_weight": 1e-4},
    "source inversion the other way": {"augment.source.invert": None},  # filled in: 0.5 where it is off, 0 where it is on
    "no warm start": {"method.warm_start": False},
    "convolutional encoders": {"method.encoder": "convolutional"},
    "anchor (a) off: information": {"method.information_weight": 0.0},
    "anchor (a) off: pseudo-labels": {"method.pseudo_label_weight": 0.0},
    "anchor (a) off: both": {"method.information_weight": 0.0, "method.pseudo_label_weight": 0.0},
    "anchor (b) off": {"method.translated_class_weight": 0.0},
    "no anchor": NO_ANCHORS,
}


def run_variant(pair: str, variant: str, seed: int, steps: int, out: Path, display: Display) -> Run:
    """One run, or what is there of it already."""
    folder = out / pair / str(seed) / "".join(c if c.isalnum() else "-" for c in variant).strip("-")
    if (folder / "recipe.toml").exists():
        return resume(folder, display)
    overrides = dict(VARIANTS[variant]) | {"seed": seed, "training.steps": steps, "training.evaluate_every": steps}
    if "augment.source.invert" in overrides:
        overrides["augment.source.invert"] = 0.0 if load_recipe(pair).augment.source.invert else 0.5
    else:
        trained = out / pair / str(seed) / "as-in-the-recipe" / "weights" / "source.safetensors"
        if trained.exists():
            overrides["classifier.weights"] = str(trained.absolute())
    return fit(pair, out=folder, overrides=overrides, display=display)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/unit_ablation"))
    given = parser.parse_args()
    display = Display()
    for pair in given.pairs:
        rows = []
        for variant in VARIANTS:
            runs = [run_variant(pair, variant, seed, given.steps, given.out, display) for seed in given.seeds]
            figures = [
                statistics.mean(value(run.result) for run in runs)
                for value in (
                    lambda result: result["accuracy"]["source_only"],
                    lambda result: result["accuracy"]["last"],
                    lambda result: result["translation"]["class_consistency"],
                    lambda result: result["seconds"]["adaptation"],
                )
            ]
            rows.append((variant, *figures))
        target = runs[0].result["target"]
        print(f"\n### {pair}, {given.steps} steps, seeds {', '.join(map(str, given.seeds))}\n")
        print(f"Source: {runs[0].result['source']['note']}. Target: {target['note']}.\n")
        print("| variant | source_only | last | class consistency | seconds |\n|---|---|---|---|---|")
        for variant, *values, seconds in rows:
            print(f"| {variant} | {' | '.join(f'{value:.4f}' for value in values)} | {seconds:.0f} |")
    print(f"\n{machine()}; {choose_runtime()}; {torch.get_num_threads()} threads; {versions()}")


if __name__ == "__main__":
    main()
