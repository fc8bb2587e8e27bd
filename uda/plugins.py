"""A user's own code, by name: ``PACKAGE.MODULE:NAME`` or ``FILE.py:NAME``. Naming it runs it, as importing it would."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from uda.errors import UserError


def load(name: str) -> Any:
    """The object behind the name.

    Raises:
        UserError: where there is no such file, module or object, or importing it fails.
    """
    place, _, attribute = name.rpartition(":")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    except UserError:
        raise
    except Exception as error:  # it is the user's code: anything may happen in it
        raise UserError(f"{place} cannot be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError.unknown(f"name in {place}", attribute, public or ["(it has none)"])
    return found


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
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
