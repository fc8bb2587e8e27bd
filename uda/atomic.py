"""Files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uda.errors import UserError

TEMPORARY = re.compile(r"\.uda-[0-9a-f]{16}\.part")
"""names of files and folders that are not whole yet"""
POLL = 0.2
"""seconds between two looks at whether another process is done"""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its name only after the block ended well, and lies on the disk by then.

    Raises:
        UserError: where the disk is full, or does not let it be written.
    """
    temporary = temporary_beside(path)
    with saying(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        try:
            with held(temporary):
                yield temporary
                if temporary.stat().st_mode != mode:  # some writers make a file that its owner alone may read
                    temporary.chmod(mode)
                sync(temporary)
                os.replace(temporary, path)
            sync(path.parent)
        finally:
            with suppress(OSError):  # of a disk that is read-only by now; what is left over is swept later
                temporary.unlink(missing_ok=True)


@contextmanager
def held(temporary: Path) -> Iterator[bool]:
    """While it is open, no `sweep` takes this file or folder away; yields whether no living process holds it otherwise.

    A process that dies lets go of it, once the processes that it has forked are gone, too. Some disks of other machines have no
    such locks: nothing is swept there.
    """
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    opened = os.open(temporary, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            free = False
        yield free
    finally:
        os.close(opened)


def sweep(folder: Path) -> None:
    """Deletes what processes that have died were about to name in a folder. What living ones write stays, and so do links."""
    if folder.is_symlink():  # it may lead to what is none of ours
        return
    for left in [path for path in folder.glob(".uda-*.part") if is_temporary(path) and not path.is_symlink()]:
        with suppress(OSError), held(left) as free:  # another process may sweep here, too
            if free:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def is_temporary(path: Path) -> bool:
    """Whether it has a name as `temporary_beside` gives it."""
    return TEMPORARY.fullmatch(path.name) is not None


@contextmanager
def saying(path: Path, *written: Path, way_out: str = "mend that (is there room?), then go on") -> Iterator[None]:
    """Says of `path`, and not of the file that is `written` in its place, that the disk is full or does not let it be written.

    Raises:
        UserError: for an error of the operating system that is about these, or does not say about what.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in (path, path.parent, *written):
            raise
        raise UserError(f"{path} cannot be written ({error.strerror}); {way_out}") from error


def temporary_beside(path: Path) -> Path:
    """A name in the same folder that nobody can foresee, and so nobody can put a link at."""
    return path.with_name(f".uda-{secrets.token_hex(8)}.part")  # torch writes no file whose one point is its first letter


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


@contextmanager
def alone(path: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a file, which is made where it is not there, as soon as no other process does.

    `wait` is called once, where another one does. Processes on several machines see each other through a shared folder.

    Raises:
        OSError: where the file cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    said = False
    while True:
        with lock(path) as free:
            if free:
                yield
                return
        if not said:
            wait()
        said = True
        time.sleep(POLL)
