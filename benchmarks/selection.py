"""The study of label-free scores and of accuracy estimates, on the evaluations of finished runs.

    python benchmarks/digits.py svhn2mnist mnist2usps usps2mnist --methods shot dann --seeds 0 1 2 --keep
    python benchmarks/selection.py runs/digits

Each evaluation of each run (a checkpoint) has features and logits of 2,000 target images, and its true accuracy on the target's
test images. Printed as Markdown: for each score, its rank correlation with the true accuracy within a run and over all
checkpoints of a pair, and the regret of choosing by it (the best checkpoint's accuracy less the chosen one's) within a run and
among all methods of a pair and seed; for each estimate, how far it is off at the end of the runs; and how often warnings were
given.
Scores once computed are kept beside the outputs. ``selection.png`` shows the regrets.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cells import where
from scipy.stats import spearmanr
from torch import Tensor

from uda.atomic import atomic_write
from uda.evaluation.calibration import expected_calibration_error, fit_temperature, match_confidence
from uda.evaluation.estimation import ESTIMATES, agreement, average_thresholded_confidence
from uda.evaluation.results import evaluations
from uda.evaluation.selection import SCORES, mean_ranks
from uda.runs.run import Run

TOGETHER: dict[str, tuple[str, ...]] = {
    "information_maximization + soft_neighbourhood_density": ("information_maximization", "soft_neighbourhood_density"),
    "information_maximization + class_cluster_agreement": ("information_maximization", "class_cluster_agreement"),
    "batch_nuclear_norm + neighbour_precision": ("batch_nuclear_norm", "neighbour_precision"),
    "all scores": tuple(SCORES),
}
"""mean ranks of several scores"""


def pair_of(run: Run) -> str:
    """The recipe of a run's pair: a recipe for one method is called PAIR-METHOD."""
    return str(run.result["recipe"]).removesuffix(f"-{run.result['method']}")


def checkpoints(run: Run) -> list[dict[str, Any]]:
    """The run's evaluations: pair, method, seed, step, true accuracy, and every score; computed where they are not kept yet."""
    kept = run.path / "outputs" / "scores.json"
    scores: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    found = []
    for row in evaluations(run.metrics):
        step = str(row["step"])
        if scores.get(step, {}).keys() != SCORES.keys():
            outputs = run.outputs(f"evaluation-{step}")
            scores[step] = {name: score(outputs) for name, score in SCORES.items()}
            with atomic_write(kept) as path:
                path.write_text(json.dumps(scores))
        about = {"pair": pair_of(run), "method": run.result["method"], "seed": run.result["seed"]}
        found.append(about | {"step": row["step"], "true": row["target_test_accuracy"], "scores": scores[step]})
    return found


def values(rows: list[dict[str, Any]], score: str) -> list[float]:
    """One score of some checkpoints; of several scores, their mean ranks among these."""
    if score in TOGETHER:
        return mean_ranks([{name: row["scores"][name] for name in TOGETHER[score]} for row in rows])
    return [row["scores"][score] for row in rows]


def regret(rows: list[dict[str, Any]], score: str) -> float:
    found = values(rows, score)
    true: list[float] = [row["true"] for row in rows]
    return max(true) - true[found.index(max(found))]


def correlation(rows: list[dict[str, Any]], score: str) -> float | None:
    """Spearman's; None where either side is constant."""
    found, true = values(rows, score), [row["true"] for row in rows]
    return float(spearmanr(found, true).statistic) if len(set(found)) > 1 and len(set(true)) > 1 else None


def groups(rows: list[dict[str, Any]], by: Iterable[str]) -> list[list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return list(found.values())


def mean_of(measure: Callable[[list[dict[str, Any]], str], float | None], sets: list[list[dict[str, Any]]], score: str) -> float:
    return statistics.mean(value for rows in sets if (value := measure(rows, score)) is not None)


def score_table(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Prints it, best first; returns the regrets of each score, one for each run."""
    within, among, over = groups(rows, ("pair", "method", "seed")), groups(rows, ("pair", "seed")), groups(rows, ("pair",))
    runs = [run for run in within if len(run) > 1]
    regrets = {score: [100 * regret(run, score) for run in runs] for score in (*SCORES, *TOGETHER)}
    print(f"\n{len(rows)} checkpoints of {len(within)} runs. Accuracy in points.\n")
    print(
        "| score | regret within a run: mean | worst | regret among all methods of a pair and seed: mean "
        "| rank correlation within a run | over a pair |\n|---|---|---|---|---|---|"
    )
    for score, found in sorted(regrets.items(), key=lambda item: statistics.mean(item[1])):
        print(
            f"| {score} | {statistics.mean(found):.2f} | {max(found):.2f} | {100 * mean_of(regret, among, score):.2f} "
            f"| {mean_of(correlation, runs, score):.2f} | {mean_of(correlation, over, score):.2f} |"
        )
    return regrets


def method_table(rows: list[dict[str, Any]], score: str) -> None:
    """Oracle minus selected by one score, by method and pair: mean of the seeds."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    print(f"\nRegret of `{score}` within a run, points, mean of the seeds (in brackets: oracle):\n")
    print(f"| method | {' | '.join(pairs)} |\n|{'---|' * (len(pairs) + 1)}")
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for pair in pairs:
            runs = groups([row for row in rows if (row["method"], row["pair"]) == (method, pair)], ("seed",))
            lost = [100 * regret(run, score) for run in runs]
            top = [max(row["true"] for row in run) for run in runs]
            cells.append(f"{statistics.mean(lost):.2f} ({statistics.mean(top):.4f})" if runs else "")
        print(f"| {method} | {' | '.join(cells)} |")


def estimate_table(runs: list[Run]) -> None:
    """How far each estimate is from the true accuracy: of `last`, and of the source classifier of each pair and seed."""
    errors: dict[str, dict[str, list[float]]] = {}
    ends: dict[tuple[str, str], list[tuple[Tensor, float]]] = {}
    classifiers = {(pair_of(run), run.result["seed"]): ("source classifiers", run.outputs("source_only")) for run in runs}
    for kind, outputs in [*classifiers.values(), *((run.result["method"], run.outputs()) for run in runs)]:
        assert outputs.test_accuracy is not None
        for name, estimate in ESTIMATES.items():
            error = 100 * (estimate(*outputs.source, outputs.target_logits) - outputs.test_accuracy)
            errors.setdefault(name, {}).setdefault(kind, []).append(error)
    for run in runs:
        key = run.result["recipe"], run.result["method"]
        reached = run.accuracy["last"]
        assert reached is not None
        ends.setdefault(key, []).append((run.outputs().target_logits, reached))
    for (_, method), found in ends.items():
        for (first, true), (second, other) in pairwise(found):
            error = 100 * (agreement(first, second) - (true + other) / 2)
            errors.setdefault("agreement (of two seeds)", {}).setdefault(method, []).append(error)
    kinds = ["source classifiers", *dict.fromkeys(run.result["method"] for run in runs)]
    print(f"\nEstimated minus true accuracy, points: mean absolute error (worst). {len(classifiers) + len(runs)} classifiers.\n")
    print(f"| estimate | all | {' | '.join(kinds)} |\n|{'---|' * (len(kinds) + 2)}")
    for name, by_kind in errors.items():
        columns = [[error for found in by_kind.values() for error in found], *(by_kind.get(kind, []) for kind in kinds)]
        shown = [f"{statistics.mean(map(abs, c)):.1f} ({max(c, key=abs):+.1f})" if c else "" for c in columns]
        print(f"| {name} | {' | '.join(shown)} |")


def calibration_errors(run: Run) -> tuple[float, ...]:
    """Of the source classifier and of `last`, then of `last` at the temperature of its estimate and at that of the source."""
    before, after = run.outputs("source_only"), run.outputs()
    assert before.test is not None
    assert after.test is not None
    logits, labels = after.test
    temperatures = (
        1.0,
        match_confidence(after.target_logits, average_thresholded_confidence(*after.source, after.target_logits)),
        fit_temperature(*after.source),
    )
    errors = (expected_calibration_error(logits / temperature, labels) for temperature in temperatures)
    return expected_calibration_error(*before.test), *errors


def calibration_table(runs: list[Run]) -> None:
    """Expected calibration error on the target, before and after adaptation, and at two temperatures."""
    print("\nExpected calibration error on target test images, mean of all runs of a method, points.\n")
    print(
        "| method | source_only | last | last, as sure as estimated | last, at the source's temperature |\n|---|---|---|---|---|"
    )
    for method in dict.fromkeys(run.result["method"] for run in runs):
        found = [calibration_errors(run) for run in runs if run.result["method"] == method]
        means = [100 * statistics.mean(column) for column in zip(*found, strict=True)]
        print(f"| {method} | {' | '.join(f'{mean:.1f}' for mean in means)} |")


def warning_table(runs: list[Run]) -> None:
    print("\n| run | last | warnings |\n|---|---|---|")
    for run in runs:
        if run.result["warnings"]:
            name = f"{run.result['recipe']} {run.result['method']} {run.result['seed']}"
            print(f"| {name} | {run.accuracy['last']:.4f} | {', '.join(w['name'] for w in run.result['warnings'])} |")
    print(f"\n{sum(bool(run.result['warnings']) for run in runs)} of {len(runs)} runs gave a warning.")


def draw(regrets: dict[str, list[float]], out: Path) -> None:
    """One row for each score, best first: a point for each run, a bar for the mean."""
    order = sorted(regrets, key=lambda score: statistics.mean(regrets[score]), reverse=True)
    figure, axis = plt.subplots(figsize=(9, 0.38 * len(order) + 1), layout="constrained")
    for row, score in enumerate(order):
        axis.scatter(regrets[score], [row] * len(regrets[score]), s=12, alpha=0.35, color="#2563eb", linewidths=0)
        mean = statistics.mean(regrets[score])
        axis.plot([mean, mean], [row - 0.32, row + 0.32], color="#d97706", linewidth=2.5)
    axis.set_yticks(range(len(order)), [score.replace("_", " ") for score in order], fontsize=8)
    axis.set_xscale("symlog", linthresh=0.5)
    axis.set_xticks([0, 0.5, 1, 2, 5, 10, 20, 50], ["0", "0.5", "1", "2", "5", "10", "20", "50"], fontsize=8)
    axis.set_xlabel("points of accuracy lost by choosing the checkpoint by this score (one dot a run; bar: mean)", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.minorticks_off()
    axis.grid(axis="x", alpha=0.3, linewidth=0.5)
    with atomic_write(out) as path:
        figure.savefig(path, format="png", dpi=110, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of run folders")
    parser.add_argument("--score", default="information_maximization", help="whose regret is shown by method and pair")
    parser.add_argument("--out", type=Path, default=Path("selection.png"))
    given = parser.parse_args()
    folders = sorted(path.parent for root in given.runs for path in root.glob("*/result.json"))
    runs = [run for folder in folders if list((run := Run(folder)).path.glob("outputs/evaluation-*"))]
    rows = [row for run in runs for row in checkpoints(run)]
    regrets = score_table(rows)
    method_table(rows, given.score)
    estimate_table(runs)
    calibration_table(runs)
    warning_table(runs)
    draw(regrets, given.out)
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
