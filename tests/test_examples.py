"""The examples run as they stand, with fewer steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT


def test_the_own_classifier_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra uda-toolkit[onnx] is not installed")
    words = [sys.executable, str(CHECKOUT / "examples" / "own_classifier.py"), str(tmp_path / "own"), "--steps", "2"]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "images classified" in done.stdout
    assert (tmp_path / "own" / "run" / "classifier.onnx").exists()
