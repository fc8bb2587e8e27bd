"""The short form of the fuzzer."""

from pathlib import Path

from tests.attacks.fuzz import fuzz
from tests.attacks.kinds import READERS, kinds
from uda.runs.run import Run


def test_no_damaged_file_does_harm() -> None:
    report = fuzz(60 * len(READERS), READERS, seed=1)
    assert report.bad == []
    for name, ends in report.ends.items():
        assert ends["read"] > 0, f"no {name} was left whole, so that nothing was tried"
        assert ends["refused"] > 0, f"no {name} was damaged"


def test_no_damaged_file_of_a_run_or_beside_it_does_harm(tiny_run: Run, tmp_path: Path) -> None:
    known = {name: kind for name, kind in kinds(tiny_run.path, tmp_path).items() if name not in READERS}
    assert fuzz(8 * len(known), known, seed=1).bad == []
