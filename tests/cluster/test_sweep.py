"""Sweeps: what is finished is not run again, what is not goes on, and halving stops what its score puts last."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StopAfter
from uda import UserError
from uda.cluster import sweep as module
from uda.cluster import trials
from uda.cluster.spec import SweepSpec, combinations
from uda.cluster.sweep import check_all, sweep
from uda.cluster.trials import Trial, run_trial, sources_first
from uda.console import Display
from uda.data import files
from uda.data.names import data_roots
from uda.runs.folder import SEEDS, RunFolder
from uda.training.loop import Interrupted
from uda.training.seeds import run_seed

WHERE = {"data_root": None, "device": "cpu", "precision": "fp32"}
FEW = {"training.steps": [6], "training.evaluate_every": [2], "classifier.steps": [2]}


def spec_of(tiny: Path, **more: Any) -> SweepSpec:
    settings = {**FEW, **more.pop("settings", {})}
    return SweepSpec(recipes=(str(tiny),), settings=settings, **{"methods": ("source_only",), "reports": False, **more})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Tasks run in this process, one after another; their arguments."""
    ran: list[tuple[Any, ...]] = []

    def completed(function: Any, tasks: Any, takes: Any, lost: Any, tick: Any) -> Any:
        for number, task in enumerate(tasks):
            ran.append(task)
            tick()
            yield number, function(*task)

    class Alone:
        def __init__(self, *given: object) -> None: ...
        def __enter__(self) -> dict[str, float]:
            return {}

        def __exit__(self, *given: object) -> None: ...

    monkeypatch.setattr(module, "completed", completed)
    monkeypatch.setattr(module, "cluster", Alone)
    return ran


def run(spec: SweepSpec, out: Path) -> list[Path]:
    return sweep(spec, combinations(spec), out, Display(quiet=True), WHERE)


def results(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_trial_is_an_ordinary_run_and_a_row(tiny: Path, tmp_path: Path, here: list) -> None:
    (page,) = run(spec_of(tiny, seeds=(0, 1)), tmp_path / "out")
    rows = results(tmp_path / "out")
    assert [row["state"] for row in rows] == ["done", "done"]
    for row in rows:
        result = json.loads((tmp_path / "out" / row["folder"] / "result.json").read_text())
        assert float(row["last"]) == result["accuracy"]["last"]
        assert int(row["seed"]) == result["seed"]
    assert page == tmp_path / "out" / "comparison.html"
    assert "source_only" in page.read_text()


def test_what_is_finished_is_not_run_again_and_new_seeds_are(tiny: Path, tmp_path: Path, here: list) -> None:
    run(spec_of(tiny), tmp_path / "out")
    here.clear()
    run(spec_of(tiny, seeds=(0, 1)), tmp_path / "out")
    assert [task[1] for task in here] == [1]
    assert len(results(tmp_path / "out")) == 2


def test_a_trial_that_was_killed_goes_on_from_its_checkpoint(tiny: Path, tmp_path: Path, here: list) -> None:
    spec = spec_of(tiny)
    (one,) = combinations(spec)
    trial = Trial(one, 0, tmp_path / "out")
    where = {**WHERE, "data_root": str(data_roots(None)[0])}
    RunFolder.create(trial.group, one.recipe, {"seeds": [0], **where}, SEEDS)
    with pytest.raises(Interrupted):
        run_seed(trial.group, 0, RunFolder.open(trial.group, SEEDS).read_asked(), observers=[StopAfter(5)])
    rows = (trial.path / "metrics.jsonl").read_text()
    run(spec, tmp_path / "out")
    assert (trial.path / "metrics.jsonl").read_text().startswith(rows)  # with their seconds: they were not taken again


def test_a_failed_trial_is_a_row_with_its_reason_and_the_others_are_compared(
    tiny: Path, tmp_path: Path, here: list, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tiny, settings={"method.learning_rate": [1e30, 0.001]})
    with pytest.raises(UserError, match="1 of 2 trials failed"):
        sweep(spec, combinations(spec), tmp_path / "out", Display(), WHERE)
    assert f"see {tmp_path / 'out' / 'comparison.html'}" in "".join(capsys.readouterr().out.split("\n"))
    failed, done = results(tmp_path / "out")
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert "not finite" in failed["note"] or "nan" in failed["note"] or "inf" in failed["note"]


def test_a_trial_whose_process_dies_again_and_again_is_a_failed_one(
    tiny: Path, tmp_path: Path, here: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    def completed(function: Any, tasks: Any, takes: Any, lost: Any, tick: Any) -> Any:
        yield 0, lost("its process died 6 times")

    monkeypatch.setattr(module, "completed", completed)
    with pytest.raises(UserError, match=r"1 of 1 trials failed, .*seed-0: its process died 6 times"):
        run(spec_of(tiny), tmp_path / "out")
    (row,) = results(tmp_path / "out")
    assert (row["state"], row["note"]) == ("failed", "its process died 6 times")


def test_other_settings_in_the_same_folder_are_refused(tiny: Path, tmp_path: Path, here: list) -> None:
    run(spec_of(tiny), tmp_path / "out")
    tiny.write_text(tiny.read_text().replace("width = 8", "width = 4"))
    with pytest.raises(UserError, match="holds runs of other settings"):
        run(spec_of(tiny), tmp_path / "out")


def test_another_device_in_the_same_folder_is_refused(tiny: Path, tmp_path: Path, here: list) -> None:
    spec = spec_of(tiny)
    run(spec, tmp_path / "out")
    with pytest.raises(UserError, match="was begun with --device cpu; give the same"):
        sweep(spec, combinations(spec), tmp_path / "out", Display(quiet=True), {**WHERE, "device": "auto"})


def test_all_is_checked_before_anything_begins(tiny: Path) -> None:
    found = combinations(spec_of(tiny, settings={"data.target": ["digits", "./nowhere"]}))
    with pytest.raises(UserError, match=r"target=\._nowhere: no images at"):
        check_all(found, WHERE, None)


def test_halving_stops_what_the_score_puts_last(tiny: Path, tmp_path: Path, here: list, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(
        tiny,
        search="halving",
        keep=2,
        settings={"method.learning_rate": [0.001, 0.002, 0.003, 0.004], "training.evaluate_every": [1]},
    )
    rates = [one.values["method.learning_rate"] for one in combinations(spec)]
    liked = {0.001: 0.1, 0.002: 0.4, 0.003: 0.3, 0.004: 0.2}
    monkeypatch.setattr(Trial, "scores", lambda trial, step: {"s": liked[trial.combination.values["method.learning_rate"]]})
    monkeypatch.setattr(module, "_has_come", lambda trial, until: trial.is_done)
    run(spec, tmp_path / "out")
    began = [(rates[[f"rate={rate}" in str(task[0]) for rate in rates].index(True)], task[2]) for task in here]
    assert began == [(0.001, 1), (0.002, 1), (0.003, 1), (0.004, 1), (0.002, 3), (0.003, 3), (0.002, None)]
    states = {row["method.learning_rate"]: row["state"] for row in results(tmp_path / "out")}
    assert states == {"0.001": "stopped by its score", "0.002": "done", "0.003": "stopped by its score", "0.004": states["0.001"]}


def test_a_stopped_trial_ends_as_one_that_ran_through(tiny: Path, tmp_path: Path) -> None:
    (one,) = combinations(spec_of(tiny))
    ends = []
    for name, stops in {"through": [None], "stopped": [2, None]}.items():
        trial = Trial(one, 0, tmp_path / name)
        RunFolder.create(trial.group, one.recipe, {"seeds": [0], **WHERE, "data_root": str(tmp_path)}, SEEDS)
        states = [run_trial(trial.group, 0, until, report=False).state for until in stops]
        assert states == ["stopped", "done"][-len(stops) :]
        ends.append(trial.result()["accuracy"])
    assert ends[0] == ends[1]


def test_trials_that_begin_together_have_different_source_classifiers(tiny: Path, tmp_path: Path) -> None:
    found = combinations(spec_of(tiny, methods=("source_only", "dann")))
    trials = [Trial(one, seed, tmp_path) for one in found for seed in (0, 1)]
    order = [(trial.combination.recipe.method.name, trial.seed) for trial in sources_first(trials)]
    assert order == [("source_only", 0), ("source_only", 1), ("dann", 0), ("dann", 1)]


@pytest.mark.parametrize(("cpus", "most"), [(1, 1), (2, 1), (4, 3)])
def test_a_trial_reads_images_by_no_more_processes_than_it_has_cores(
    tiny: Path, tmp_path: Path, here: list, monkeypatch: pytest.MonkeyPatch, cpus: int, most: int
) -> None:
    def run_seed(*given: object, **more: object) -> None:
        raise UserError(f"{files.READERS} readers")

    monkeypatch.setattr(files, "READERS", 8)
    monkeypatch.setattr(trials, "run_seed", run_seed)
    with pytest.raises(UserError, match=f"{most} readers"):
        run(spec_of(tiny, cpus=cpus), tmp_path / "out")


def test_a_folder_that_a_node_does_not_see_is_said(tmp_path: Path) -> None:
    state, note = run_trial(tmp_path / "not-shared", 0)
    assert state == "failed"
    assert "all nodes share" in note
