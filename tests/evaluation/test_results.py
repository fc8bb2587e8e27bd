"""What result.json says with target labels, and without."""

from pathlib import Path
from typing import Any

import pytest
import torch

import uda
from tests.conftest import NETS
from uda.errors import UserError
from uda.evaluation.calibration import expected_calibration_error, fit_temperature, match_confidence
from uda.evaluation.estimation import DEFAULT, ESTIMATES
from uda.evaluation.results import looks_of, select


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
    """With target labels to test on, two scores, and each look kept."""
    asked = {"selection.keep": True, "selection.score": ["entropy", "diversity"], "data.target_test": str(folders / "test")}
    return fit(folders, tmp_path_factory.mktemp("figures") / "run", **asked)


def test_the_result_says_what_the_kept_outputs_say(run: uda.Run):
    seen = run.seen()
    held_out = seen.evidence.source_logits, seen.evidence.source_labels
    assert run.result["accuracy"]["last"] == seen.test.accuracy
    assert run.result["estimated"]["accuracy"] == ESTIMATES[DEFAULT](*held_out, seen.evidence.target_logits)
    low, high = run.result["estimated"]["interval"]
    assert 0 <= low <= run.result["estimated"]["accuracy"] <= high <= 1
    assert run.result["calibration"]["source_temperature"] == pytest.approx(fit_temperature(*held_out))
    temperature = match_confidence(seen.evidence.target_logits, run.result["estimated"]["accuracy"])
    assert run.result["calibration"]["temperature"] == pytest.approx(temperature)
    expected = expected_calibration_error(seen.test.logits / temperature, seen.test.labels)
    assert run.result["calibration_error"]["last_calibrated"] == pytest.approx(expected)


def test_mean_ranks_of_several_scores_select(run: uda.Run):
    looks = looks_of(run._folder.read_metrics())
    assert run.result["selection"]["score"] == "entropy + diversity"
    assert run.result["selection"]["selected_step"] == select(looks)["step"]
    assert run.result["accuracy"]["selected"] == select(looks)["target_test_accuracy"]


def test_the_selected_weights_are_those_of_the_selected_step(run: uda.Run):
    kept = run.seen(f"look-{run.result['selection']['selected_step']}")
    images = run.sample()
    logits = run.load_classifier("selected")(run.runtime.arrange(images.float() / 127.5 - 1))
    assert logits.shape == (len(images), kept.evidence.target_logits.shape[1])
    assert not list((run.path / "weights").glob("look-*"))


def test_each_look_is_kept_where_that_is_asked_for(run: uda.Run):
    steps = [row["step"] for row in looks_of(run._folder.read_metrics())]
    assert sorted(path.stem for path in (run.path / "outputs").glob("look-*")) == sorted(f"look-{step}" for step in steps)
    evidence = run.seen(f"look-{steps[0]}").evidence
    assert evidence.source_labels.dtype == torch.int64
    assert evidence.target_features.dtype == torch.float16


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
