"""A few kills: `tests.attacks.kills` has all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_at_a_file_operation_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    """In a process of its own: what has computed must not be forked."""
    command = [sys.executable, "-m", "tests.attacks.kills", "--out", str(tmp_path / "list"), "--cases", "ours", "--every", "60"]
    done = subprocess.run(command, cwd=CHECKOUT, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, (tmp_path / "list").read_text() + done.stderr
    assert len((tmp_path / "list").read_text().splitlines()) > 3
