"""The examples run as they stand, with fewer steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import uda
from tests.conftest import CHECKOUT
from uda import fit
from uda.data.augment import to_float


def test_the_own_classifier_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra uda-toolkit[onnx] is not installed")
    words = [sys.executable, str(CHECKOUT / "examples" / "own_classifier.py"), str(tmp_path / "own"), "--steps", "2"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images classified" in done.stdout
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
