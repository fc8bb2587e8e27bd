"""Tasks on Ray: one whose process dies is run again, and one that always dies ends in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.tasks import die, die_once
from uda import UserError
from uda.cluster import engine
from uda.cluster.engine import cluster, completed


def test_a_task_whose_process_dies_is_run_again(tmp_path: Path, takes: dict[str, float]) -> None:
    assert list(completed(die_once, [(tmp_path,)], takes, str)) == [(0, "done")]


def test_a_task_that_fails_is_a_line_and_the_others_are_done(
    tmp_path: Path, takes: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RETRIES", 1)
    tasks = [(tmp_path, name) for name in ("kills", "raises", "ends", "ends")]
    ended = dict(completed(die, tasks, takes, "failed: {}".format))
    assert (tmp_path / "deaths").read_text() == "xx"
    assert ended[0].startswith("failed: its process died 2 times")
    assert ended[1] == "failed: an error of ours (LookupError: of two)"
    assert ended[2] == ended[3] == "done"
    assert all(line.isprintable() for line in ended.values())


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"uda-toolkit\[ray\]"), cluster(None):
        pass
