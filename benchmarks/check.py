"""Which interval holds where a few images are labelled: simulated on finished runs and on drawn populations.

    python benchmarks/check.py RUN RUN ... [--times 1000]

Of each run's target test images, whose labels are known, 50 and 100 are drawn, 1,000 times; each method makes a 90 % interval of
the accuracy of the adapted classifier and of the source classifier. Printed as Markdown: how many intervals cover the true
accuracy, and their width, measured by that of Wilson's interval on a plain sample. Drawn populations stand for what runs may do
worse: a classifier that is sure and wrong, or surer where it is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uda.evaluation.sampling import Z, accuracy_of, difference_of, doubt, order, stratify
from uda.runs.run import Run

LABELS = (50, 100)
PLAIN, OURS = "Wilson, plain sample", "Wilson at the effective size, stratified (`uda check`)"
DIFFERENCE = "adapted less source (`uda check`)"
DRAWS = 400  # from each stratum's posterior


class Population(NamedTuple):
    """Images of which everything is known: how doubtful they are and, of each classifier, whether it is right and how sure it is.

    Shapes: all (M,).
    """

    name: str
    doubts: Tensor
    right: dict[str, Tensor]
    confidence: dict[str, np.ndarray]


def of_run(path: Path) -> Population:
    """The target test images of a finished run."""
    run = Run(path)
    before, after = (run.outputs(which) for which in ("source_only", "last"))
    assert before.test is not None
    assert after.test is not None
    labels, logits = after.test[1], {"adapted": after.test[0], "source": before.test[0]}
    right = {who: said.argmax(1) == labels for who, said in logits.items()}
    confidence = {who: said.softmax(1).amax(1).numpy() for who, said in logits.items()}
    name = f"{run.result['source']['name']} -> {run.result['target']['name']}, {run.result['method']}"
    return Population(name, doubt(logits["source"], logits["adapted"]), right, confidence)


def drawn(count: int = 2000) -> Iterator[Population]:
    """Populations whose confidence is drawn from a beta distribution, and whose correctness follows it, or does not."""
    kinds: dict[str, tuple[float, float, Callable[[np.ndarray], np.ndarray]]] = {
        "calibrated": (5, 1.5, lambda c: c),
        "sure, and one in four wrong": (60, 1, lambda c: 0 * c + 0.75),
        "surer where it is wrong": (8, 2, lambda c: np.clip(1.3 - c, 0, 1)),
        "nearly all right": (20, 1, lambda c: 0.97 + 0.03 * c),
        "nearly all wrong": (2, 2, lambda c: 0.15 * c),
    }
    for name, (a, b, share) in kinds.items():
        random = np.random.default_rng(0)
        confidence = random.beta(a, b, count)
        shares = {"adapted": share(confidence), "source": 0.85 * share(confidence)}
        right = {who: torch.from_numpy(random.random(count) < part) for who, part in shares.items()}
        yield Population(name, -torch.from_numpy(confidence), right, dict.fromkeys(right, confidence))


Interval = tuple[float, float]


def wilson(share: float, size: float) -> Interval:
    """Wilson's 90 % interval."""
    middle, scale = share + Z * Z / (2 * size), 1 + Z * Z / size
    half = Z * np.sqrt(share * (1 - share) / size + Z * Z / (4 * size * size))
    return (middle - half) / scale, (middle + half) / scale


def prediction_powered(confidence: np.ndarray, right: np.ndarray, of: np.ndarray) -> Interval:
    """A plain sample with confidence as prediction, and the weight of least variance (Angelopoulos et al. 2023, PPI++)."""
    predicted, seen = confidence[of], right[of].astype(float)
    spread = predicted.var()
    weight = np.cov(predicted, seen)[0, 1] / spread if spread else 0.0
    rest = seen - weight * predicted
    middle, half = weight * confidence.mean() + rest.mean(), Z * rest.std(ddof=1) / np.sqrt(len(of))
    return middle - half, middle + half


def posterior(right: np.ndarray, strata: np.ndarray, of: np.ndarray, random: np.random.Generator) -> Interval:
    """The stratified sample with Jeffreys' prior in each stratum."""
    shares = np.bincount(strata) / len(strata)
    seen = np.bincount(strata[of], minlength=len(shares))
    hits = np.bincount(strata[of], weights=right[of], minlength=len(shares))
    low, high = np.quantile(random.beta(hits + 0.5, seen - hits + 0.5, (DRAWS, len(shares))) @ shares, (0.05, 0.95))
    return float(low), float(high)


class Row(NamedTuple):
    """What many intervals of one kind came to; `ratio`: their mean width over that of Wilson's on a plain sample."""

    labels: int
    population: str
    method: str
    who: str
    covered: float
    ratio: float


def simulate(population: Population, times: int) -> Iterator[Row]:
    """All methods on one population, for both classifiers."""
    strata, random = stratify(population.doubts), np.random.default_rng(0)
    truth = {who: float(right.double().mean()) for who, right in population.right.items()}
    found: dict[tuple[int, str, str], list[Interval]] = {}
    for time in range(times):
        ordered, shuffled = order(strata, time), random.permutation(len(strata))
        for labels in LABELS:
            of, anywhere = ordered[:labels], shuffled[:labels]
            for who, right in population.right.items():
                flags = right.numpy()
                for method, interval in {
                    PLAIN: wilson(flags[anywhere].mean(), labels),
                    "prediction-powered, plain sample": prediction_powered(population.confidence[who], flags, anywhere),
                    "Jeffreys' prior, stratified": posterior(flags, strata.numpy(), of.numpy(), random),
                    OURS: accuracy_of(right[of], strata, of).interval,
                }.items():
                    found.setdefault((labels, method, who), []).append(interval)
            source, adapted = (population.right[who][of] for who in ("source", "adapted"))
            found.setdefault((labels, DIFFERENCE, "both"), []).append(difference_of(source, adapted, strata, of).interval)
    truth["both"] = truth["adapted"] - truth["source"]
    for (labels, method, who), spans in found.items():
        covered = float(np.mean([low <= truth[who] <= high for low, high in spans]))
        base = np.diff(found[labels, DIFFERENCE if who == "both" else PLAIN, who]).mean()
        yield Row(labels, population.name, method, who, covered, float(np.diff(spans).mean() / base))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--times", type=int, default=1000)
    asked = parser.parse_args()
    populations = [*map(of_run, asked.runs), *drawn()]
    rows = [row for population in populations for row in simulate(population, asked.times)]
    print("| labels | method | covered, mean | least | width, of Wilson's: mean | most |\n|---|---|---|---|---|---|")
    for labels in LABELS:
        for method in dict.fromkeys(row.method for row in rows):
            measured = [row for row in rows if (row.labels, row.method) == (labels, method)]
            covered, ratios = [row.covered for row in measured], [row.ratio for row in measured]
            width = f"{np.mean(ratios):.2f} | {max(ratios):.2f}" if method != DIFFERENCE else " | "
            print(f"| {labels} | {method} | {np.mean(covered):.3f} | {min(covered):.3f} | {width} |")
    print("\n| images | source | adapted | of the source, 50: covered, width | 100 | of the adapted, 50 | 100 |")
    print("|---|---|---|---|---|---|---|")
    for population in populations:
        truth = " | ".join(f"{float(population.right[who].double().mean()):.3f}" for who in ("source", "adapted"))
        ours = {(row.who, row.labels): row for row in rows if (row.population, row.method) == (population.name, OURS)}
        cells = [ours[who, labels] for who in ("source", "adapted") for labels in LABELS]
        print(f"| {population.name} | {truth} | " + " | ".join(f"{row.covered:.3f}, {row.ratio:.2f}" for row in cells) + " |")


if __name__ == "__main__":
    main()
