"""What result.json says with target labels, and without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import one_hot

import uda
from tests.conftest import NETS
from uda.console import Display
from uda.data.load import load_pair
from uda.errors import UserError
from uda.evaluation.calibration import expected_calibration_error, fit_temperature, match_confidence
from uda.evaluation.evaluator import predict
from uda.evaluation.results import _without_labels, evaluations, select
from uda.evaluation.study import shipped
from uda.evaluation.unknown import FEWEST
from uda.evaluation.witnesses import witnesses


def fit(folders: Path, out: Path, **more: Any) -> uda.Run:
    own = {
        "data.source": str(folders / "source"),
        "data.target": str(folders / "target"),
        "classifier.backbone": f"{NETS}:SmallResNet",
        "classifier.weights": str(folders / "net.pt"),
        "data.channels": 1,
        "method.name": "dann",
        "classifier.refine_steps": 0,
        "training": {"steps": 4, "batch": 8, "evaluate_every": 1},
    }
    return uda.fit("folders", out=out, device="cpu", precision="fp32", overrides=own | more)


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> uda.Run:
    """With target labels to test on, two scores, and the outputs of each evaluation kept."""
    asked = {"selection.keep": True, "selection.score": ["entropy", "diversity"], "data.target_test": str(folders / "test")}
    return fit(folders, tmp_path_factory.mktemp("results") / "run", **asked)


def test_the_result_says_what_the_kept_outputs_say(run: uda.Run):
    outputs = run.outputs()
    logits, labels = outputs.test
    assert run.result["accuracy"]["last"] == outputs.test_accuracy
    found = shipped().judge(witnesses(run.outputs("source_only"), outputs))
    assert run.result["estimated"]["accuracy"] == pytest.approx(found.accuracy, abs=1e-3)  # kept features are float16
    assert run.result["recommended"] == found.recommended
    low, high = run.result["estimated"]["interval"]
    assert 0 <= low <= run.result["estimated"]["accuracy"] <= high <= 1
    assert run.result["calibration"]["source_temperature"] == pytest.approx(fit_temperature(*outputs.source))
    temperature = match_confidence(outputs.target_logits, run.result["estimated"]["accuracy"])
    assert run.result["calibration"]["temperature"] == pytest.approx(temperature)
    expected = expected_calibration_error(logits / temperature, labels)
    assert run.result["calibration_error"]["last_calibrated"] == pytest.approx(expected)


def test_where_no_prediction_changed_both_estimates_are_one(run: uda.Run):
    """Two regressions would say that it has gained, or lost, a point."""
    before = run.outputs("source_only")
    surer = replace(before, target_logits=2 * before.target_logits)
    result = _without_labels(before, surer, run.classes, trains=True, shares=None)
    assert result["estimated"]["accuracy"] == result["estimated"]["source_only"]
    assert result["estimated"]["interval"] == result["estimated"]["source_only_interval"]
    assert result["recommended_because"].startswith("it gives every target image the class that the source classifier gives")


def test_where_doubt_is_meant_all_that_is_told_without_labels_is_of_the_images_that_are_named(run: uda.Run):
    """Every second image left in doubt takes nothing from the estimate, and is no reason for a warning."""
    few = run.outputs("source_only")
    before = replace(few, target_features=few.target_features.repeat(9, 1), target_logits=few.target_logits.repeat(9, 1))
    sure = 9 * one_hot(before.target_logits.argmax(1), len(run.classes)).float()
    named = torch.arange(len(sure)) % 2 == 0
    assert named.sum() > FEWEST
    after = replace(before, target_logits=torch.where(named[:, None], sure, 0.0))
    result = _without_labels(before, after, run.classes, trains=True, shares=None, leaves_unknown=True)
    found = shipped().judge(witnesses(before.of(named), after.of(named)))
    assert result["estimated"]["accuracy"] == found.accuracy
    assert result["estimated"]["named"] == pytest.approx(float(named.float().mean()))
    assert "unsure" not in [warning["name"] for warning in result["warnings"]]
    other = _without_labels(before, after, run.classes, trains=True, shares=None)
    assert "named" not in other["estimated"]
    assert "unsure" in [warning["name"] for warning in other["warnings"]]


def test_mean_ranks_of_several_scores_select(run: uda.Run):
    selected = select(run.metrics)
    assert run.result["selection"]["score"] == "entropy + diversity"
    assert run.result["selection"]["selected_step"] == selected["step"]
    assert run.result["accuracy"]["selected"] == selected["target_test_accuracy"]


def test_the_selected_weights_are_those_of_the_selected_step(run: uda.Run):
    """Of all evaluations, the outputs that the selected one kept are those of the weights that are left, and no other's are."""
    pair = load_pair(run.recipe.data, (Path(),), Display(quiet=True))
    logits = predict(run.load_classifier("selected"), pair.target.sample(), run.runtime)
    steps = [row["step"] for row in evaluations(run.metrics)]
    alike = [step for step in steps if torch.allclose(run.outputs(f"evaluation-{step}").target_logits, logits, atol=1e-5)]
    assert alike == [run.result["selection"]["selected_step"]]
    assert not list((run.path / "weights").glob("evaluation-*"))


def test_each_evaluation_is_kept_where_that_is_asked_for(run: uda.Run):
    steps = [row["step"] for row in evaluations(run.metrics)]
    kept = sorted(path.stem for path in (run.path / "outputs").glob("evaluation-*"))
    assert kept == sorted(f"evaluation-{step}" for step in steps)
    outputs = run.outputs(f"evaluation-{steps[0]}")
    assert outputs.source_labels.dtype == torch.int64
    assert outputs.target_features.dtype == torch.float16
    assert outputs.test is None


def test_target_labels_choose_nothing():
    """The evaluation that the labels call best is not the selected one, where the scores say otherwise."""
    rows = [
        {"step": 1, "class": 0.5},
        {"step": 2, "scores": {"entropy": 1.0}, "target_test_accuracy": 0.9},
        {"step": 4, "scores": {"entropy": 2.0}, "target_test_accuracy": 0.1},
    ]
    assert select(rows)["step"] == 4


def test_no_target_labels_no_figure_that_needs_them(folders: Path, tmp_path: Path):
    result = fit(folders, tmp_path / "run").result
    assert result["accuracy"]["source"] is not None
    assert {name for name, value in result["accuracy"].items() if value is None} == {"source_only", "last", "selected", "oracle"}
    assert 0 <= result["estimated"]["accuracy"] <= 1
    assert result["calibration"]["temperature"] > 0
    assert not {"confusion", "per_class", "calibration_error"} & result.keys()


def test_a_score_that_reads_the_source_is_refused_where_the_method_must_not(folders: Path, tmp_path: Path):
    with pytest.raises(UserError, match="shot reads no source image, but the score source_accuracy does"):
        fit(folders, tmp_path / "run", **{"method.name": "shot", "selection.score": ["entropy", "source_accuracy"]})
