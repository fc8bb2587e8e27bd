"""Work on many shards: what goes wrong with one is a line, and the others are done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.tasks import over
from uda import UserError
from uda.cluster import engine as module
from uda.cluster.shards import UNREADABLE, over_shards
from uda.console import Display


def done(folder: Path, *shards: str, engine: str = "here") -> int:
    tasks = [(folder, shard) for shard in shards]
    return over_shards(over, tasks, len(tasks), folder / UNREADABLE, Display(quiet=True), engine, None)


@pytest.mark.parametrize(
    ("shard", "line"),
    [
        ("full.tar", r"full.tar: OSError: \[Errno 28\] No space left on device"),
        ("large.tar", "large.tar: OutOfMemoryError: no memory"),
        ("ours.tar", r"ours.tar: an error of ours \(KeyError: 1\)"),
        ("wrong.tar", "example: wrong.tar is no tar; the same command"),
    ],
)
def test_whatever_goes_wrong_with_a_shard_is_a_line_after_the_others_are_done(shard: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as error:
        done(tmp_path, shard, "a.tar")
    assert "1 of 2 shards failed" in str(error.value)
    assert (tmp_path / "a.tar").exists()


@pytest.mark.usefixtures("takes")
def test_so_is_a_shard_that_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", 0)
    with pytest.raises(UserError, match=r"1 of 2 shards failed, for example: kills\.tar: its process died"):
        done(tmp_path, "kills.tar", "a.tar", engine="ray")
    assert (tmp_path / "a.tar").exists()
