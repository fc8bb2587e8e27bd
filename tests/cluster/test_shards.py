"""Work on many shards: what goes wrong with one is a line, and the others are done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.tasks import found, over
from uda import UserError
from uda.cluster import engine
from uda.cluster import shards as module
from uda.cluster.shards import UNREADABLE, over_shards
from uda.console import Display
from uda.data.shards import Done


def done(folder: Path, *shards: str, on: str = "here") -> int:
    tasks = [(folder, shard) for shard in shards]
    return over_shards(found, over, tasks, folder / UNREADABLE, Display(quiet=True), on, None)


@pytest.mark.parametrize(
    ("shard", "line"),
    [
        ("full.tar", r"full.tar: OSError: \[Errno 28\] No space left on device"),
        ("large.tar", "large.tar: OutOfMemoryError: no memory"),
        ("ours.tar", r'ours.tar: your own code failed \(KeyError: 1\), File ".*tasks.py", line'),
        ("wrong.tar", "example: wrong.tar is no tar; the same command"),
    ],
)
def test_whatever_goes_wrong_with_a_shard_is_a_line_after_the_others_are_done(shard: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as error:
        done(tmp_path, shard, "a.tar")
    assert "1 of 2 shards failed" in str(error.value)
    assert (tmp_path / "a.tar").exists()


def test_of_what_was_made_before_the_unreadable_are_listed_too_and_other_shards_lines_stay(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    (tmp_path / UNREADABLE).write_text("a.tar/0.png: mended since\nb.tar/2.png: damaged\n")
    assert done(tmp_path, "a.tar", "c.tar") == 1
    assert (tmp_path / UNREADABLE).read_text() == "a.tar/1.png: damaged\nb.tar/2.png: damaged\n"


def test_a_task_that_is_run_again_finds_what_it_has_done(tmp_path: Path) -> None:
    over(tmp_path, "a.tar")
    assert module._attempt(found, over, tmp_path, "a.tar") == Done(1, ["a.tar/1.png: damaged"])


@pytest.mark.usefixtures("takes")
def test_so_is_a_shard_that_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RETRIES", 0)
    with pytest.raises(UserError, match=r"1 of 2 shards failed, for example: kills\.tar: its process died"):
        done(tmp_path, "kills.tar", "a.tar", on="ray")
    assert (tmp_path / "a.tar").exists()
