"""A user's own code, by name: ``PACKAGE.MODULE:NAME`` or ``FILE.py:NAME``. Naming it runs it, as importing it would."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from uda.errors import NoHome, OwnCodeError, ReaderKilled, UserError
from uda.paths import state_home

OURS = os.path.dirname(__file__) + os.sep


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Around a user's own code: what it raises, an exit too, ends in one line with its name, and then its own frames alone.

    Args:
        what: the beginning of the line, such as ``"nets.py cannot be imported"``.

    Raises:
        OwnCodeError: for any error; a `UserError`, which says itself what is wrong, stays as it is.
    """
    before = _globals()
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if (killed := ReaderKilled.of(error)) is not None:
            raise killed from None
        raise OwnCodeError(f"{what} ({named(error)})", own_frames(error)) from error
    finally:
        _put_back(before)


def _globals() -> tuple[str | None, bool, Any, Any]:
    """What is everybody's: the working directory, and torch's modes, once it has been imported."""
    folder = None
    with suppress(FileNotFoundError):
        folder = os.getcwd()
    if (torch := sys.modules.get("torch")) is None:
        return folder, True, None, None
    return folder, torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()


def _put_back(before: tuple[str | None, bool, Any, Any]) -> None:
    folder, gradients, dtype, device = before
    if folder is not None and folder != os.getcwd():
        os.chdir(folder)
    if (torch := sys.modules.get("torch")) is None or not hasattr(torch, "get_default_device"):
        return
    torch.set_grad_enabled(gradients)
    if torch.get_default_dtype() != (dtype or torch.float32):
        torch.set_default_dtype(dtype or torch.float32)
    if torch.get_default_device() != (device or torch.device("cpu")):
        torch.set_default_device(device)


def anchored(name: str, folder: Path = Path()) -> str:
    """FILE.py:NAME, which is relative to a folder, with its path made absolute; any other name as it is."""
    place, colon, what = name.rpartition(":")
    return os.path.abspath(folder / place) + colon + what if place.endswith(".py") else name


def named(error: BaseException) -> str:
    """An error's class and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def own_frames(error: BaseException) -> str:
    """Where an error came up, without what lies in this package or in an installed one."""
    libraries = (OURS, os.path.dirname(os.__file__) + os.sep, "<")
    found = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return "".join(traceback.format_list([frame for frame in found if "site-packages" not in frame.filename]))


def blamed(error: BaseException) -> str:
    """One line on an error that nobody foresaw: the user's own code's, with its place, or ours."""
    if isinstance(error, OwnCodeError):
        said, frames = str(error), error.frames
    else:
        frames = own_frames(error)
        said = f"{'your own code failed' if frames else 'an error of ours'} ({named(error)})"
    places = [line.strip() for line in frames.splitlines() if line.startswith("  File ")]
    return ", ".join([said, *places[-1:]])


def trusted_file() -> Path:
    """Where the names of code are kept that the user has named, or has agreed to."""
    return state_home() / "uda" / "trusted"


def trust(names: Iterable[str]) -> None:
    """Keeps names of code as the user's own. Where they cannot be kept, the user is asked again."""
    new = [place for place in map(_place, names) if place not in _trusted()]
    with suppress(OSError, NoHome):
        if new:
            trusted_file().parent.mkdir(parents=True, exist_ok=True)
            with trusted_file().open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{place}\n" for place in new)


def require_trust(names: Iterable[str], by: str) -> None:
    """Whether code that a file names may run.

    Args:
        names: of the code.
        by: what names it.

    Raises:
        UserError: where the user has neither named it nor agreed to it.
    """
    strange = [name for name in names if _place(name) not in _trusted()]
    if strange:
        raise UserError(
            f"{by} runs the code {', '.join(strange)}; look at it first, and if you trust it add --trust (in Python, trust=True)"
        )


def _trusted() -> list[str]:
    try:
        return trusted_file().read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except (OSError, NoHome):
        return []


def _place(name: str) -> str:
    """What a name stands for: a file wherever one is, a module as it is found from here. Written in one line."""
    place, _, attribute = name.rpartition(":")
    where = str(Path(place).absolute()) if place.endswith(".py") else f"{place} from {Path.cwd()}"
    return f"{where}:{attribute}".encode("unicode_escape").decode()


def load(name: str) -> Any:
    """The object behind the name.

    Raises:
        UserError: where there is no such file, module or object, or importing it fails.
    """
    place, _, attribute = name.rpartition(":")
    with own_code(f"{place} cannot be imported"):
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, attribute, None)
    if not callable(found):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError.unknown(f"name in {place}", attribute, public or ["(it has none)"])
    return found


def _import_file(path: Path) -> ModuleType:
    if not os.path.isfile(path):
        raise UserError(f"no file {path}; give FILE.py:NAME or PACKAGE.MODULE:NAME")
    # A name of its own, which stays the same, so that what it defines can be pickled and found again.
    name = f"{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))  # it may import its neighbours
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.pop(0)
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"no module {error.name}; give PACKAGE.MODULE:NAME or FILE.py:NAME") from error
    finally:
        sys.path.pop(0)
