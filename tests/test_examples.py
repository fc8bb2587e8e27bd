"""The examples run as they stand, with fewer steps."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

import uda
from tests.conftest import CHECKOUT
from uda import fit
from uda.data.augment import to_float


def test_the_own_classifier_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra uda-toolkit[onnx] is not installed")
    script = str(CHECKOUT / "examples" / "own_classifier.py")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "own"), "--steps", "2"])
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.modules.pop("nets", None)
    assert "images classified" in capsys.readouterr().out
    assert (tmp_path / "own" / "run" / "classifier.onnx").exists()


def test_the_own_method_example_runs_and_loads_back(tiny: Path, tmp_path: Path) -> None:
    method = {"method.name": f"{CHECKOUT / 'examples' / 'own_method.py'}:MeanMatching", "method.weight": 0.5}
    few = {"training.steps": 3, "training.batch": 8, "training.target_batch": 8}
    run = fit(tiny, out=tmp_path / "run", device="cpu", precision="fp32", overrides=method | few)
    assert run.recipe.method.weight == 0.5
    images = to_float(run.sample()[:4])
    again = uda.load(run.path, device="cpu")
    assert torch.equal(again.classifier(images), run.classifier(images))
    assert "distance" in (run.path / "metrics.jsonl").read_text()


def test_the_own_method_example_is_short() -> None:
    assert len((CHECKOUT / "examples" / "own_method.py").read_text().splitlines()) <= 42
