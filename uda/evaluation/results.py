"""What a run's result holds: accuracies where labels exist, and what can be said where they do not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from uda.data.domain import Domain, Pair
from uda.evaluation.calibration import expected_calibration_error, fit_temperature, match_confidence
from uda.evaluation.diagnostics import diagnose
from uda.evaluation.estimation import DEFAULT, ESTIMATES, interval
from uda.evaluation.evaluator import Answers, Seen, per_class_accuracy
from uda.evaluation.selection import Evidence, best
from uda.recipe.schema import Recipe


def looks_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl`` that a look was taken at."""
    return [row for row in rows if "scores" in row]


def select(looks: list[dict[str, Any]]) -> dict[str, Any]:
    """The look that the label-free scores choose."""
    return looks[best([look["scores"] for look in looks])]


def figures(
    recipe: Recipe,
    pair: Pair,
    source: float,
    before: Seen,
    refined: Answers | None,
    after: Seen,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """The accuracies and what stands beside them.

    Args:
        recipe, pair: of the run.
        source: accuracy of the source classifier on source test images.
        before, after: what was seen of the source classifier and of the adapted one.
        refined: target answers after refining on the augmented source, where that was done.
        rows: of ``metrics.jsonl``.
    """
    looks = looks_of(rows)
    selected = select(looks)
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "method": recipe.method.name,
        "seed": recipe.seed,
        "source": describe(pair.source, pair.source_test),
        "target": describe(pair.target, pair.target_test),
        "classes": list(pair.target.classes),
        "accuracy": {"source": source, "source_only": None, "last": None, "selected": None, "oracle": None},
        "selection": {"score": " + ".join(recipe.selection.score), "selected_step": selected["step"]},
        "steps": recipe.training.steps,
        **_without_labels(recipe, before.evidence, after.evidence, pair.target.classes),
    }
    if before.test is not None and after.test is not None:
        oracle = max(looks, key=lambda row: row["target_test_accuracy"])
        result["selection"]["oracle_step"] = oracle["step"]
        result |= _with_labels(before.test, after.test, **result["calibration"])
        result["accuracy"] = {
            "source": source,
            "source_only": before.test.accuracy,
            **({} if refined is None else {"refined": refined.accuracy}),
            "last": after.test.accuracy,
            "selected": selected["target_test_accuracy"],
            "oracle": oracle["target_test_accuracy"],
        }
    return result


def _without_labels(recipe: Recipe, before: Evidence, after: Evidence, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is said of the adapted classifier (`after`) from target images without labels, and held-out source images with.

    ``estimated`` accuracy with its interval; the ``temperature`` at which it is as sure, on the target, as that estimate says it
    is right (and the one that calibrates it on the source, to compare); and ``warnings``.
    """
    assert after.source_logits is not None
    assert after.source_labels is not None
    held_out = after.source_logits, after.source_labels
    found = ESTIMATES[DEFAULT](*held_out, after.target_logits)
    trains = recipe.method.name != "source_only"
    return {
        "estimated": {"accuracy": found, "interval": interval(ESTIMATES[DEFAULT], *held_out, after.target_logits), "by": DEFAULT},
        "calibration": {
            "temperature": match_confidence(after.target_logits, found),
            "source_temperature": fit_temperature(*held_out),
        },
        "warnings": [asdict(concern) for concern in diagnose(before, after, classes, trains)],
    }


def _with_labels(before: Answers, after: Answers, temperature: float, source_temperature: float) -> dict[str, Any]:
    """Accuracy by class, confusion matrices and calibration error on the target's test images."""
    return {
        "per_class": {"source_only": per_class_accuracy(before.confusion), "last": per_class_accuracy(after.confusion)},
        "confusion": {"source_only": before.confusion.tolist(), "last": after.confusion.tolist()},
        "calibration_error": {
            "source_only": expected_calibration_error(before.logits, before.labels),
            "last": expected_calibration_error(after.logits, after.labels),
            "last_calibrated": expected_calibration_error(after.logits / temperature, after.labels),
            "last_source_temperature": expected_calibration_error(after.logits / source_temperature, after.labels),
        },
    }


def describe(train: Domain, test: Domain | None) -> dict[str, Any]:
    """A domain's name and note, and how many images it has."""
    return {"name": train.name.split()[0], "note": train.note, "train": len(train), "test": len(test) if test else 0}
