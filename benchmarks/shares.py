"""How near estimated class shares come to a target's true ones, on the shifts of `trust.py`, whose runs must lie there.

    python benchmarks/trust.py run --backbone-weights tf_efficientnet_lite0.safetensors --out runs/trust
    python benchmarks/shares.py --backbone-weights tf_efficientnet_lite0.safetensors --out runs/trust

Of each shift's source classifier: its predictions, counted; expectation maximisation on its calibrated probabilities (Saerens,
Latinne, Decaestecker 2002; Alexandari et al. 2020); and what a run estimates (`uda.evaluation.shares`). A distance is half the
sum of absolute differences: the share of images that would have to change their class. Labels are read for the truth alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from trust import Shift, all_shifts, methods_of, recipe_and_pair

from uda.data.domain import LabelledDomain
from uda.evaluation.calibration import fit_temperature
from uda.evaluation.outputs import Outputs
from uda.evaluation.shares import distance, estimate_shares, histogram
from uda.evaluation.witnesses import contradiction
from uda.runs.folder import RunFolder

ROUNDS = 100


class Found(NamedTuple):
    """Of a shift: how good its source classifier is, how far each estimate is from the truth, and what a run takes it for."""

    shift: Shift
    images: int
    accuracy: float
    away: dict[str, float]
    uneven: bool


def expectation_maximization(likely: Tensor, before: Tensor) -> Tensor:
    """The shares (K,) under which the probabilities (M, K) of M images are most likely, which went out from `before` (K,)."""
    shares = before
    for _ in range(ROUNDS):
        posterior = likely * (shares / before)
        shares = (posterior / posterior.sum(1, keepdim=True)).mean(0)
    return shares


def by_expectation_maximization(before: Outputs) -> Tensor:
    temperature = fit_temperature(*before.source)
    source, target = ((logits.double() / temperature).softmax(1) for logits in (before.source[0], before.target_logits))
    return expectation_maximization(target, source.mean(0))


def look(shift: Shift, out: Path, weights: Path, seed: int) -> Found | None:
    """What the shift's first finished run tells; None where there is none."""
    finished = [method for method in methods_of(shift) if (out / f"{shift.name}-{method}-{seed}/result.json").exists()]
    if not finished:
        return None
    folder = out / f"{shift.name}-{finished[0]}-{seed}"
    before = RunFolder.open(folder).read_outputs("source_only")
    target = recipe_and_pair(shift, finished[0], seed, weights)[1].target
    assert isinstance(target, LabelledDomain)
    classes = before.target_logits.shape[1]
    true, found = histogram(target.labels, classes), estimate_shares(before, contradiction(before))
    estimates = {
        "even": torch.full((classes,), 1 / classes, dtype=torch.float64),
        "counted": histogram(before.target_logits.argmax(1), classes),
        "expectation maximisation": by_expectation_maximization(before),
        "estimated": found.estimated,
        "expected": found.expected.double(),
    }
    away = {name: distance(estimate, true) for name, estimate in estimates.items()}
    accuracy = json.loads((folder / "result.json").read_text())["accuracy"]["source_only"]
    return Found(shift, found.images, accuracy, away, found.uneven)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/trust"))
    parser.add_argument("--backbone-weights", type=Path, default=Path("tf_efficientnet_lite0.safetensors"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    looked = [look(shift, given.out, given.backbone_weights, given.seed) for shift in all_shifts()]
    found = [each for each in looked if each is not None]
    if not found:
        raise SystemExit(f"no finished run at {given.out}; make them with benchmarks/trust.py run")
    kinds: dict[str, Callable[[Found], bool]] = {
        "all": lambda each: True,
        "accuracy above 0.6": lambda each: each.accuracy > 0.6,
        "of these, photographs": lambda each: each.accuracy > 0.6 and "/" in each.shift.source,
        "of these, digits": lambda each: each.accuracy > 0.6 and "/" not in each.shift.source,
        "of these, uneven or without classes": lambda each: each.accuracy > 0.6 and each.shift.change in ("uneven", "lacks"),
        "of these, of fewer than 100 images": lambda each: each.accuracy > 0.6 and each.images < 100,
        "of these, of 100 to 1,000 images": lambda each: each.accuracy > 0.6 and 100 <= each.images <= 1000,
        "taken for uneven": lambda each: each.uneven,
    }
    names = list(found[0].away)
    print(f"| mean distance from the true shares | shifts | {' | '.join(names)} | expected nearer than even |")
    print("|---|---|" + "---|" * (len(names) + 1))
    for kind, belongs in kinds.items():
        of = [each for each in found if belongs(each)]
        if not of:
            continue
        nearer = sum(each.away["expected"] < each.away["even"] for each in of)
        means = [f"{np.mean([each.away[name] for each in of]):.3f}" for name in names]
        print(f"| {kind} | {len(of)} | {' | '.join(means)} | {nearer} |")


if __name__ == "__main__":
    main()
