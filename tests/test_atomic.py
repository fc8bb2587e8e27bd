"""Files that are written whole or not at all, and locks."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from uda import UserError
from uda.atomic import atomic_write, is_temporary, lock, sweep, temporary_beside


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(TypeError), atomic_write(tmp_path / "file") as path, path.open("w") as file:
        print("half", file=file, end=7)  # type: ignore[call-overload]
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file", "old")]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as first, atomic_write(tmp_path / "file") as second:
        assert first != second
        assert is_temporary(first)
        first.write_text("1")
        second.write_text("2")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as path:
        path.write_text("")
    (tmp_path / "other").write_text("")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_lock_holds_until_it_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with lock(tmp_path / "file") as first, lock(tmp_path / "file") as second:
        assert (first, second) == (True, False)
    with lock(tmp_path / "file") as again:
        assert again


def test_a_dead_process_holds_no_lock_though_its_children_live(tmp_path: Path) -> None:
    """As those do for a while that read images."""
    (tmp_path / "file").touch()
    reading, writing = os.pipe()
    if (holder := os.fork()) == 0:
        with lock(tmp_path / "file"):
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
            time.sleep(60)
        os._exit(0)
    child = int(os.read(reading, 20))
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        with lock(tmp_path / "file") as free:
            assert free
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_the_disk_does_not_take_is_said_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/file cannot be written \(No space left on device\)"), atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write's, which names no file
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        (tmp_path / "an input").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_was_writing_is_swept_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    (dead := temporary_beside(tmp_path / "folder")).mkdir()
    (dead / "file").touch()
    temporary_beside(tmp_path / "other").touch()
    (tmp_path / "mine").touch()
    (tmp_path / ".uda-notes.part").mkdir()  # a user's
    temporary_beside(tmp_path / "link").symlink_to(tmp_path / "mine")
    with atomic_write(tmp_path / "file") as path:
        path.write_text("whole")  # as a new file is opened, which is this one still
        sweep(tmp_path)
    assert {file.name for file in tmp_path.iterdir() if not file.is_symlink()} == {"mine", "file", ".uda-notes.part"}
    assert (tmp_path / "file").read_text() == "whole"
