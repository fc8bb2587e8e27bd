"""Trackers are told what metrics.jsonl holds, offline, by the real packages."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from uda import UserError
from uda.console import Display
from uda.recipe.load import load_recipe
from uda.training.loop import Stage
from uda.training.trackers import TRACKERS, Careful, Tracker, check_trackers

ROWS = [(1, {"stage": "adaptation", "step": 1, "class": 0.5}), (2, {}), (3, {"class": 0.25, "scores": {"entropy": -1.5}})]


class Noted(Tracker):
    """One that only has a name."""

    package = "board"

    def open(self) -> None:
        pass

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        pass


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


def shown_by_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = {}
    for stage in (folder / "tensorboard").iterdir():
        events = EventAccumulator(str(stage))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            shown[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return shown


def test_tensorboard_shows_losses_scores_and_accuracies(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    finish(tracked("tensorboard", tmp_path))
    assert shown_by_tensorboard(tmp_path) == {
        "adaptation/class": [(1, 0.5), (3, 0.25)],
        "adaptation/scores.entropy": [(3, -1.5)],
        "result/last": [(4, 0.75)],
    }


def test_tensorboard_drops_the_later_steps_of_the_stage_that_goes_on_and_of_no_other(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = tracked("tensorboard", tmp_path, [(3, {"class": 0.5})])
    tracker.begin(Stage("refining", 0, 4, dict))  # type: ignore[arg-type]
    tracker.step(1, {"class": 0.4})
    tracker.step(2, {"class": 0.3})
    again = TRACKERS["tensorboard"](tmp_path, load_recipe("synth2digits"), "a run")
    again.begin(Stage("refining", 1, 4, dict))  # type: ignore[arg-type]
    again.step(2, {"class": 0.25})
    finish(again)
    shown = shown_by_tensorboard(tmp_path)
    assert shown["adaptation/class"] == [(3, 0.5)]
    assert [step for step, _ in shown["refining/class"]] == [1, 2]
    assert shown["refining/class"][1][1] == 0.25


def test_a_result_is_told_where_all_else_was_before(tmp_path: Path) -> None:
    """As of a run that was killed when its result had been written."""
    pytest.importorskip("tensorboard")
    finish(TRACKERS["tensorboard"](tmp_path, load_recipe("synth2digits"), "a run"))
    assert shown_by_tensorboard(tmp_path) == {"result/last": [(4, 0.75)]}


def test_mlflow_goes_on_in_the_run_that_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracked("mlflow", tmp_path)  # two steps more than the checkpoint has
    finish(tracked("mlflow", tmp_path, ROWS[1:], start=1))
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("uda")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["method.name"] == "unit"
    assert run.data.metrics == {"adaptation/class": 0.25, "adaptation/scores.entropy": -1.5, "result/last": 0.75}
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "adaptation/class")] == [1, 3]


def test_steps_that_are_taken_again_are_told_once_to_what_cannot_take_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numerical trouble begins a stage again from its last evaluation, in one process."""
    told: list[tuple[int, float]] = []
    monkeypatch.setattr(Noted, "log", lambda self, numbers, step: told.append((step, numbers["adaptation/class"])))
    tracker = Noted(tmp_path, load_recipe("synth2digits"), "a run")
    for start in (0, 1):
        tracker.begin(Stage("adaptation", start, 4, dict))  # type: ignore[arg-type]
        for step in range(start + 1, 4 if start else 3):
            tracker.step(step, {"class": 0.1 * step + start})
    assert told == [(1, 0.1), (2, 0.2), (3, pytest.approx(1.3))]


def test_a_tracker_that_fails_is_told_no_more_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Down(Noted):
        def log(self, numbers: Mapping[str, float], step: int) -> None:
            raise ConnectionError("no route to host")

    careful = Careful(Down(tmp_path, load_recipe("synth2digits"), "a run"), Display())
    careful.begin(Stage("adaptation", 0, 4, dict))  # type: ignore[arg-type]
    for step in (1, 2):
        careful.step(step, {"class": 0.5})
    careful.result({"steps": 4})  # type: ignore[typeddict-item]
    (line,) = capsys.readouterr().out.splitlines()
    assert "board is told no more (ConnectionError: no route to host)" in line


def test_wandb_writes_an_offline_run_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = tracked("wandb", tmp_path)
    assert tracker.board.summary["adaptation/class"] == 0.25  # type: ignore[attr-defined]
    finish(tracker)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_wandb_has_one_folder_of_a_run_that_went_on_with_all_that_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"stage": "source classifier", "step": 1, "class": 0.5}) + "\n")
    tracked("wandb", tmp_path, ROWS[:1]).board.finish()  # type: ignore[attr-defined]
    again = tracked("wandb", tmp_path, ROWS[1:], start=1)
    assert again.board.summary["source_classifier/class"] == 0.5  # type: ignore[attr-defined]
    finish(again)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'mlflow'"):
        check_trackers(["mlflo"])


@pytest.mark.parametrize("name", TRACKERS)
def test_without_its_package_a_tracker_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=r'pip install "uda-toolkit\[track\]"'):
        check_trackers([name])
