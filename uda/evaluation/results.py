"""What a run's result holds: accuracies where labels exist, and what can be said where they do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    TypeAdapter,
)
from torch import Tensor
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from uda.data.domain import Domain, Pair
from uda.evaluation.calibration import expected_calibration_error, fit_temperature, match_confidence
from uda.evaluation.diagnostics import diagnose, unlike_the_study, worse_than_before
from uda.evaluation.outputs import Outputs, confusion, per_class_accuracy
from uda.evaluation.selection import best
from uda.evaluation.shares import Shares
from uda.evaluation.study import shipped
from uda.evaluation.unknown import OpenSet, named, open_set
from uda.evaluation.witnesses import witnesses

OF_A_CLASSIFIER = "classes", "accuracy", "selection", "estimated", "calibration", "warnings"
WITH_LABELS = "per_class", "confusion", "calibration_error"

Figures = TypeVar("Figures")
Row = dict[str, Any]
"""a line of metrics.jsonl: stage, step, seconds; losses by name; of an evaluation, ``scores`` and what goes with them"""


class CheckedRow(BaseModel):
    """What such a row must hold to be read."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, float]
    stage: str
    step: int
    scores: dict[str, float] = {}


class DomainResult(TypedDict):
    """A domain's name and note, and how many images it has."""

    name: str
    note: str
    train: int
    test: int
    held_out: NotRequired[int]
    """of the target's training images, those that no method trains on"""
    seen: NotRequired[Literal["all", "perhaps"]]
    """of the source's test images, whether the source classifier was trained on them; left out: it was not"""


def _holds(*names: str) -> AfterValidator:
    def check(given: dict[str, Any]) -> dict[str, Any]:
        if missing := [name for name in names if name not in given]:
            raise ValueError(f"it lacks {missing[0]}")
        return given

    return AfterValidator(check)


class Judged(TypedDict):
    """What is said of translations one way, as `uda.evaluation.translation.judge_translations` and its neighbours return it."""

    feature_network: str
    class_consistency: NotRequired[float]
    judge_accuracy: NotRequired[float]
    given_consistency: NotRequired[float]
    untranslated_consistency: NotRequired[float]
    feature_distance: NotRequired[float]
    untranslated_distance: NotRequired[float]
    diversity: NotRequired[float]
    real_diversity: NotRequired[float]
    lpips: NotRequired[float]
    real_lpips: NotRequired[float]


def _measured_whole(given: Any) -> Any:
    pairs = {
        "feature_distance": "untranslated_distance", "real_lpips": "lpips",
        "backward": "reconstruction_error", "taught_consistency": "taught_agreement",
    }  # fmt: skip
    for name, beside in pairs.items():
        if name in given and beside not in given:
            raise ValueError(f"it has {name}, and lacks {beside}")
    return given


class Translations(Judged):
    """What is said of translated source images, and of the way back."""

    pixel_accuracy: NotRequired[float]
    taught_consistency: NotRequired[float]
    taught_agreement: NotRequired[float]
    backward: NotRequired[Annotated[Judged, AfterValidator(_measured_whole)]]
    reconstruction_error: NotRequired[Annotated[dict[str, float], _holds("source", "target")]]


class Estimated(TypedDict):
    """Accuracy on the target, 0..1, as far as it can be told without labels."""

    accuracy: float
    """of `last`"""
    interval: tuple[float, float]
    """that covers the truth in nine of ten runs on targets that the study (`uda.evaluation.study`) was not fitted on"""
    by: str
    source_only: NotRequired[float]
    source_only_interval: NotRequired[tuple[float, float]]
    unlike: NotRequired[bool]
    """whether no run of the study was like this one"""
    named: NotRequired[float]
    """the share of the target images that this and the recommendation are of: those that a method for unknown classes names"""


class ClassShares(TypedDict):
    """Shares of the classes in the target, as estimated without its labels, and which ones the method was to expect."""

    estimated: list[float]
    expected: Literal["even", "estimated"]


class Checked(TypedDict):
    """What the labels of a few target images say of both classifiers: what is read again of ``check.json``."""

    accuracy: Annotated[dict[str, float], _holds("adapted", "source")]
    interval: Annotated[dict[str, tuple[float, float]], _holds("adapted", "source")]
    """that cover the truth in nine of ten such draws of images"""
    labels: NonNegativeInt


class Selection(TypedDict):
    """By which scores a step was chosen, which that is, and which has the best accuracy on labelled target images."""

    score: str
    selected_step: int
    oracle_step: NotRequired[int]


Said = Annotated[str, StringConstraints(min_length=1)]


class Result(TypedDict):
    """The contents of ``result.json``. What is marked as not required needs a classifier, or target labels, or a translator."""

    recipe: str
    method: str
    seed: int
    source: DomainResult
    target: DomainResult
    steps: int
    device: str
    precision: str
    target_norm: NotRequired[Literal["own", "both"]]
    """what a frozen body's batch norms went by on the target: `classifier.target_norm`, decided"""
    seconds: Annotated[dict[str, float], _holds("total")]
    classes: NotRequired[list[str]]
    accuracy: NotRequired[Annotated[dict[str, float | None], _holds("source", "source_only", "last", "selected", "oracle")]]
    """``source``, ``source_only``, ``refined`` where that was done, ``last``, ``selected``, ``oracle``"""
    selection: NotRequired[Selection]
    class_shares: NotRequired[ClassShares]
    estimated: NotRequired[Estimated]
    recommended: NotRequired[Literal["source", "adapted"]]
    """which classifier to use, as far as can be told without labels"""
    recommended_because: NotRequired[str]
    calibration: NotRequired[Annotated[dict[str, PositiveFloat], _holds("temperature", "source_temperature")]]
    """``temperature``, at which it is no surer on the target than the estimate says that it is right; the source classifier's,
    ``source_only_temperature``; and ``source_temperature``, fitted on labelled source images"""
    warnings: NotRequired[list[Annotated[dict[str, Said], _holds("name", "what", "meaning", "advice")]]]
    per_class: NotRequired[Annotated[dict[str, list[float | None]], _holds("source_only", "last")]]
    confusion: NotRequired[Annotated[dict[str, list[list[int]]], _holds("source_only", "last")]]
    calibration_error: NotRequired[
        Annotated[dict[str, float], _holds("source_only", "last", "last_calibrated", "last_source_temperature")]
    ]
    open_set: NotRequired[Annotated[dict[str, OpenSet], _holds("source_only", "last")]]
    """where test images of unknown classes were asked for (`data.unknown`); accuracies above are of known ones"""
    files: NotRequired[dict[str, str]]
    """a digest of each file of weights and outputs, by its path in the run folder"""
    translation: NotRequired[Annotated[Translations, AfterValidator(_measured_whole)]]
    """where the method translates"""


def read_result(given: bytes, classifies: bool) -> Result:
    """The result that JSON holds, checked.

    Raises:
        ValueError: where something is missing, of another kind, infinite or not a number, or says of another number of classes
            than there are.
    """
    result = _finite(TypeAdapter(Result).validate_json(given))
    if not classifies:
        return result
    if missing := [name for name in OF_A_CLASSIFIER if name not in result]:
        raise ValueError(f"it lacks {missing[0]}")
    if missing := [stage for stage in ("source_classifier", "adaptation") if stage not in result["seconds"]]:
        raise ValueError(f"its seconds lack {missing[0]}")
    if "recommended" in result and "recommended_because" not in result:
        raise ValueError("it lacks recommended_because")
    if "source_only" in result["estimated"] and "source_only_interval" not in result["estimated"]:
        raise ValueError("its estimate lacks source_only_interval")
    tested, count = result["accuracy"]["last"] is not None, len(result["classes"])
    if tested and "oracle_step" not in result["selection"]:
        raise ValueError("its selection lacks oracle_step")
    if missing := [name for name in WITH_LABELS if tested and name not in result]:
        raise ValueError(f"it lacks {missing[0]}")
    rows = [*result.get("per_class", {}).values()]
    rows += [row for matrix in result.get("confusion", {}).values() for row in (matrix, *matrix)]  # type: ignore[misc]
    if any(len(row) != count for row in rows):
        raise ValueError(f"its figures are not those of {count} classes")
    return result


def read_check(given: bytes) -> Checked:
    """What ``check.json`` holds, checked.

    Raises:
        ValueError: where something is missing, of another kind, infinite or not a number.
    """
    return _finite(TypeAdapter(Checked).validate_json(given))


def _finite(figures: Figures) -> Figures:
    try:
        json.dumps(figures, allow_nan=False)
    except ValueError:
        raise ValueError("one of its figures is infinite or not a number") from None
    return figures


def evaluations(rows: Sequence[Row]) -> list[Row]:
    """The rows at which the method was evaluated."""
    return [row for row in rows if "scores" in row]


def select(rows: Sequence[Row]) -> Row:
    """Of the evaluations among the rows, the one that the label-free scores choose."""
    evaluated = evaluations(rows)
    return evaluated[best([row["scores"] for row in evaluated])]


def describe(train: Domain, test: Domain | None) -> DomainResult:
    """A domain's name and note, and how many images it has."""
    return {"name": train.name.removesuffix(" train"), "note": train.note, "train": len(train), "test": len(test) if test else 0}


def classifier_results(
    pair: Pair,
    source: float,
    before: Outputs,
    refined: float | None,
    after: Outputs,
    rows: Sequence[Row],
    scores: Sequence[str],
    trains: bool,
    shares: Shares | None = None,
    leaves_unknown: bool = False,
) -> dict[str, Any]:
    """The accuracies and what stands beside them.

    Args:
        pair: the data.
        source: accuracy of the source classifier on source test images.
        before, after: what the source classifier says, and the adapted one.
        refined: target accuracy after refining on the augmented source, where that was done.
        rows: of the adaptation.
        scores: the label-free scores that select.
        trains: whether the method was to change the classifier at all.
        shares: of the target's classes, where the method expected them so.
        leaves_unknown: whether the method makes the adapted classifier doubtful of what is of no known class.
    """
    selected = select(rows)
    result: dict[str, Any] = {
        "classes": list(pair.target.classes),
        "accuracy": {"source": source, "source_only": None, "last": None, "selected": None, "oracle": None},
        "selection": {"score": " + ".join(scores), "selected_step": selected["step"]},
        **_without_labels(before, after, pair.target.classes, trains, shares, leaves_unknown),
    }
    if before.test is not None and after.test is not None:
        oracle = max(evaluations(rows), key=lambda row: row["target_test_accuracy"])
        result["selection"]["oracle_step"] = oracle["step"]
        result |= _with_labels(before.test, after.test, result["calibration"])
        if before.unknown_logits is not None and after.unknown_logits is not None:
            told = open_set(*before.test, before.unknown_logits), open_set(*after.test, after.unknown_logits)
            result["open_set"] = dict(zip(("source_only", "last"), told, strict=True))
        result["accuracy"] = {
            "source": source,
            "source_only": before.test_accuracy,
            **({} if refined is None else {"refined": refined}),
            "last": after.test_accuracy,
            "selected": selected["target_test_accuracy"],
            "oracle": oracle["target_test_accuracy"],
        }
    return result


def _without_labels(
    before: Outputs, after: Outputs, classes: tuple[str, ...], trains: bool, shares: Shares | None, leaves_unknown: bool = False
) -> dict[str, Any]:
    """What is said of the adapted classifier (`after`) from target images without labels, and held-out source images with."""
    of: dict[str, float] = {}
    if leaves_unknown:  # doubt that was meant is no sign of mistakes
        rows = named(after.target_logits)
        before, after, of = before.of(rows), after.of(rows), {"named": float(rows.float().mean())}
    found = shipped().judge(witnesses(before, after))
    of_study = [worse_than_before(found), unlike_the_study(found, len(after.target_logits))] if trains else []
    signs = [*(sign for sign in of_study if sign is not None), *diagnose(before, after, classes, trains, shares)]
    return {
        "estimated": {
            "accuracy": found.accuracy,
            "interval": found.interval,
            "by": "study",
            "source_only": found.source_only,
            "source_only_interval": found.source_only_interval,
            "unlike": found.unlike,
            **of,
        },
        "recommended": found.recommended if trains else "adapted",
        "recommended_because": found.reason if trains else "the method leaves the source classifier as it is",
        "calibration": {
            "temperature": match_confidence(after.target_logits, found.accuracy),
            "source_only_temperature": match_confidence(before.target_logits, found.source_only),
            "source_temperature": fit_temperature(*after.source),
        },
        "warnings": [asdict(sign) for sign in signs],
    }


def _with_labels(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], calibration: dict[str, float]) -> dict[str, Any]:
    """Accuracy by class, confusion matrices and calibration error on the target's test images."""
    matrices = {"source_only": confusion(*before), "last": confusion(*after)}
    logits, labels = after
    return {
        "per_class": {name: per_class_accuracy(matrix) for name, matrix in matrices.items()},
        "confusion": {name: matrix.tolist() for name, matrix in matrices.items()},
        "calibration_error": {
            "source_only": expected_calibration_error(*before),
            "last": expected_calibration_error(logits, labels),
            "last_calibrated": expected_calibration_error(logits / calibration["temperature"], labels),
            "last_source_temperature": expected_calibration_error(logits / calibration["source_temperature"], labels),
        },
    }
