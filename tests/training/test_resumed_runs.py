"""Runs that go on: what is left to do is done, and what has become another since is refused or said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import uda
from tests.conftest import SHORT, StopAfter, drawn
from uda import UserError
from uda.console import Display
from uda.report.page import Material
from uda.runs.folder import RunFolder
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted

FEW = {"method.name": "dann", "classifier.steps": 2, "training.steps": 2, "training.batch": 8}


def run(recipe: Path, out: Path, **settings: object) -> uda.Run:
    return fit(recipe, out=out, device="cpu", precision="fp32", overrides=FEW, **settings)


def test_what_was_killed_before_its_report_gets_it_when_resumed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(material: Material, out: Path) -> Path:
        raise SystemExit

    monkeypatch.setattr("uda.training.fit.write_report", killed)
    with pytest.raises(SystemExit):
        run(tiny, tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / "result.json").exists()
    before = (tmp_path / "run" / "result.json").stat().st_mtime_ns
    with drawn():
        resume(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text().count("<svg") >= 8
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert (tmp_path / "run" / "result.json").stat().st_mtime_ns == before


def test_a_run_that_another_process_writes_is_left_to_it(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny, tmp_path / "run", observers=[StopAfter(1)])
    with RunFolder.open(tmp_path / "run").locked(), pytest.raises(UserError, match="another process writes to"):
        resume(tmp_path / "run")


@pytest.fixture
def stopped(folders: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run that was stopped, and the data that it reads, which a test may change."""
    data = Path(shutil.copytree(folders, tmp_path / "data"))
    overrides = SHORT | {
        "data.source": str(data / "source"),
        "data.target": str(data / "target"),
        "data.target_test": str(data / "test"),
    }
    with pytest.raises(Interrupted):
        fit("folders", out=tmp_path / "run", device="cpu", precision="fp32", observers=[StopAfter(1)], overrides=overrides)
    return tmp_path / "run", data


def test_what_a_resumed_run_computes_with_is_as_it_began(stopped: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with drawn():
        resume(stopped[0], display=Display())
    assert "on cpu, fp32, channels last (as the run began)" in " ".join(capsys.readouterr().out.split())


def test_data_that_has_changed_is_refused_though_it_is_as_many(stopped: tuple[Path, Path]) -> None:
    """A file that is another class's now, as after two folders of classes have changed their names."""
    folder, data = stopped
    first, second = (next((data / "source" / name).iterdir()) for name in "01")
    pixels = first.read_bytes(), second.read_bytes()
    first.write_bytes(pixels[1])
    second.write_bytes(pixels[0])
    with pytest.raises(UserError, match=r"since .*run began, its .*source.* images.* have changed"):
        resume(folder)


def test_labels_that_have_changed_are_refused(stopped: tuple[Path, Path]) -> None:
    folder, data = stopped
    for before, after in (("8", "x"), ("9", "8"), ("x", "9")):
        (data / "test" / before).rename(data / "test" / after)
    with pytest.raises(UserError, match=r"its .*target test labels have changed"):
        resume(folder)


def test_a_recipe_that_has_changed_is_refused(stopped: tuple[Path, Path]) -> None:
    recipe = stopped[0] / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("log_every = 2", "log_every = 1"))
    with pytest.raises(UserError, match=r"recipe\.toml has been changed"):
        resume(stopped[0])


def test_a_checkpoint_of_another_run_is_refused(stopped: tuple[Path, Path]) -> None:
    state = torch.load(stopped[0] / "checkpoint.pt", weights_only=True)
    torch.save(state | {"run": "another"}, stopped[0] / "checkpoint.pt")
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged or another run's"):
        resume(stopped[0])
