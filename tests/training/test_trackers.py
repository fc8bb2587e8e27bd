"""Trackers are told what metrics.jsonl holds, offline, by the real packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from uda import UserError
from uda.recipe.load import load_recipe
from uda.training.loop import Stage
from uda.training.trackers import TRACKERS, Tracker, check_trackers

ROWS = [(1, {"stage": "adaptation", "step": 1, "class": 0.5}), (2, {}), (3, {"class": 0.25, "scores": {"entropy": -1.5}})]


def tracked(name: str, folder: Path, rows: list[tuple[int, dict[str, Any]]] = ROWS, start: int = 0) -> Tracker:
    """A tracker that has been told of a stage."""
    folder.mkdir(exist_ok=True)
    tracker = TRACKERS[name](folder, load_recipe("synth2digits"), "a run")
    tracker.begin(Stage("adaptation", start, 4, dict))  # type: ignore[arg-type]
    for step, row in rows:
        tracker.step(step, row)
    tracker.end("done")
    return tracker


def finish(tracker: Tracker) -> None:
    tracker.result({"steps": 4, "accuracy": {"last": 0.75, "oracle": None}})  # type: ignore[typeddict-item]


def test_tensorboard_shows_losses_scores_and_accuracies(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finish(tracked("tensorboard", tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert shown == {
        "adaptation/class": [(1, 0.5), (3, 0.25)],
        "adaptation/scores.entropy": [(3, -1.5)],
        "result/last": [(4, 0.75)],
    }


def test_mlflow_goes_on_in_the_run_that_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked("mlflow", tmp_path, ROWS[:1])
    finish(tracked("mlflow", tmp_path, ROWS[1:], start=1))
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("uda")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["method.name"] == "unit"
    assert run.data.metrics == {"adaptation/class": 0.25, "adaptation/scores.entropy": -1.5, "result/last": 0.75}
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "adaptation/class")] == [1, 3]


def test_wandb_writes_an_offline_run_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = tracked("wandb", tmp_path)
    assert tracker.board.summary["adaptation/class"] == 0.25  # type: ignore[attr-defined]
    finish(tracker)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'mlflow'"):
        check_trackers(["mlflo"])


@pytest.mark.parametrize("name", TRACKERS)
def test_without_its_package_a_tracker_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r'pip install "uda-toolkit\[track\]"'):
        check_trackers([name])
