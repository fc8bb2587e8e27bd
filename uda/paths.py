"""Files that a user names: what may be read, and what may be written without replacing anything else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

from uda.atomic import held, sweep
from uda.errors import NoHome, UserError

RUN_FILES = ("recipe.toml", "seeds.json")  # what makes a folder one of a run, or of several seeds
OURS = {
    ".csv": b"path,class,probability",
    ".json": b'{\n  "data": ',
    ".html": b'<!doctype html>\n<html lang="en">\n<head>\n<meta name="generator" content="uda">',
    ".png": b"textsoftware\0uda",
}  # what outputs begin with, in small letters; a .png behind the chunk that says how large it is
BEFORE_TEXT = {".png": 37}


def regular(path: str | os.PathLike[str]) -> None:
    """Whether a path is a file that has an end: a pipe or a device, such as /dev/zero, is read for ever.

    Raises:
        OSError: where there is nothing, or something else.
    """
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind):
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe" if stat.S_ISFIFO(kind) else "a device"
        raise OSError(f"it is {what}, and not a file")


def like(path: Path, endings: Iterable[str]) -> str:
    """What lies beside `path` and is called most like it: a folder, or a file with one of these endings; or nothing."""
    try:
        beside = [one.name for one in path.absolute().parent.iterdir() if one.is_dir() or one.suffix.lower() in endings]
    except OSError:
        return ""
    near = get_close_matches(path.name, [name for name in beside if name != path.name], 1)
    return near[0] if near else ""


def cache_home() -> Path:
    """The user's folder for what can be made again: $XDG_CACHE_HOME, else ``.cache`` in the home folder.

    Raises:
        NoHome: where the system knows no home of this user.
    """
    return _of_the_user("XDG_CACHE_HOME", ".cache")


def state_home() -> Path:
    """The user's folder for what has been decided: $XDG_STATE_HOME, else ``.local/state`` in the home folder.

    Raises:
        NoHome: as `cache_home`.
    """
    return _of_the_user("XDG_STATE_HOME", ".local/state")


def _of_the_user(variable: str, below_home: str) -> Path:
    if given := os.environ.get(variable):
        return Path(given)
    try:
        return Path.home() / below_home
    except RuntimeError:
        raise NoHome(f"your home folder is not known here; set $HOME, or ${variable} to a folder of yours") from None


def new_file(path: Path, ending: str, *inputs: Path) -> Path:
    """A file that a command may write to. One that looks like the command's earlier output is replaced; other pictures are not.

    Args:
        path: where to write.
        ending: of the command's outputs, such as ``".csv"``.
        inputs: files and folders that the command reads, of which none is replaced.

    Raises:
        UserError: where it would replace an input, a file of a run, a folder, a pipe or a device.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file with -o")
    sweep(path.absolute().parent)  # what a killed command has left there
    if any((folder / name).exists() for folder in Path(os.path.abspath(path)).parents[:2] for name in RUN_FILES):
        raise UserError(f"{path} would lie in a run; give another -o")
    if not os.path.lexists(path):
        return path
    if not path.is_file() or path.suffix.lower() != ending:
        raise UserError(f"{path} is there already, and no {ending} file that can be replaced; give another -o")
    if ending not in OURS or not _is_ours(path, ending):
        raise UserError(f"{path} is there already, and may not be an output of this command; delete it, or give another -o")
    if any(path.resolve().is_relative_to(other.resolve()) for other in inputs):
        raise UserError(f"{path} is read by this command and would be replaced; give another -o")
    return path


def outside(path: Path, *inputs: Path) -> Path:
    """A folder for outputs that is none of the folders that images are read from, and lies in none of them.

    Raises:
        UserError: where outputs would be taken for images the next time.
    """
    for folder in inputs:
        if folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} lies in {folder}, and pictures in it would be read as images; give a folder outside of it")
    return path


def _is_ours(path: Path, ending: str) -> bool:
    with path.open("rb") as file:
        file.seek(BEFORE_TEXT.get(ending, 0))
        return file.read(len(OURS[ending])).lower() == OURS[ending]


def not_a_run(path: Path) -> Path:
    """A folder that outputs are added to.

    Raises:
        UserError: where it is a run's, or lies in one.
    """
    if any((path / name).exists() for name in RUN_FILES):
        raise UserError(f"{path} is a run; give another folder with -o")
    # A folder that holds somebody's own recipe.toml is no run; a run has its environment, too.
    if any((folder / "environment.json").exists() for folder in Path(os.path.abspath(path)).parents[:2]):
        raise UserError(f"{path} lies in a run; give another folder with -o")
    return path


def new_folder(path: Path) -> Path:
    """A folder that a command may fill: one that is not there yet, or is empty.

    Raises:
        UserError: where something would be mixed up or replaced.
    """
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already; give a folder that is new or empty with -o")
    return path


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """While it is open, this command alone fills a folder that is new or empty, which is made.

    Raises:
        UserError: where another one does, or has just done so.
    """
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        with held(path) as free:
            if not free:
                raise UserError(f"another process writes to {path}; wait until it has ended, or give another folder with -o")
            new_folder(path)
            yield
    finally:
        if made:
            with suppress(OSError):  # something lies in it
                path.rmdir()


def distinct(names: Iterable[Path]) -> list[Path]:
    """Names without their endings where these are told apart without them, else with them, else with a number, too.

    In the order given, and without regard to case, which some file systems do not tell apart.
    """
    given = list(names)
    stems: dict[str, int] = {}
    for name in given:
        stem = str(name.with_suffix("")).casefold()
        stems[stem] = stems.get(stem, 0) + 1
    taken: set[str] = set()
    found = []
    for name in given:
        bare = name.with_suffix("")
        wanted = chosen = bare if stems[str(bare).casefold()] == 1 else name
        number = 1
        while str(chosen).casefold() in taken:
            number += 1
            chosen = wanted.with_name(f"{wanted.name}-{number}")
        taken.add(str(chosen).casefold())
        found.append(chosen)
    return found
