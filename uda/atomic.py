"""Files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".uda-"
"""what the names of files and folders begin with that are not whole yet"""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name only after the block ended well, and lies on the disk by then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody can foresee, and so nobody can put a link at."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.part")  # torch writes no file whose one point is its first letter


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, lies on the disk."""
    if sys.platform == "win32":  # opens no folder like that
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Holds a file against other processes while the block runs; yields whether it was free. A process that dies lets go of it.

    Raises:
        OSError: where the file cannot be written to.
    """
    if sys.platform == "win32":  # has no such locks
        yield True
        return
    import fcntl

    with path.open("r+b", buffering=0) as file:
        # A forked process would hold the lock on, beyond the death of the one that took it.
        os.register_at_fork(after_in_child=file.close)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
