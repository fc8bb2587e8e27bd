"""Where recipes are: the shipped ones by name, a user's own by path. Needs no torch, so that listing them is quick."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from uda.errors import UserError
from uda.paths import regular

_PACKAGE = Path(__file__).parent.parent
# Inside an installed package, or beside it in a checkout.
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"


def names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def is_shipped(path: Path) -> bool:
    """Whether a recipe file is one of ours, and not a user's own."""
    return path.resolve().parent == RECIPES.resolve()


def find(recipe: str, folder: Path = Path()) -> Path:
    """The file of a recipe given by name, or by a path that ends in .toml, which is relative to `folder`.

    Raises:
        UserError: where there is none, with the nearest name.
    """
    if recipe.endswith(".toml"):
        path = folder / recipe
        if not os.path.isfile(path):  # of a name that is too long, too, where pathlib raises
            raise UserError(f"no recipe file {path}; give a path to a .toml file or one of: {', '.join(names())}")
        return path
    if recipe not in names():
        raise UserError.unknown("recipe", recipe, names(), "a file that ends in .toml")
    return RECIPES / f"{recipe}.toml"


def variant(path: Path, method: str) -> Path:
    """The shipped recipe that is `path` with another method, ``RECIPE-METHOD``; `path` itself where there is none."""
    name = f"{path.stem}-{method}"
    return RECIPES / f"{name}.toml" if is_shipped(path) and name in names() else path


def variants(name: str) -> list[str]:
    """The shipped recipes that are `name` with another method."""
    others = {other: read(RECIPES / f"{other}.toml") for other in names() if other.startswith(f"{name}-")}
    return [other for other, tables in others.items() if tables.get("extends") == name and "name" in tables.get("method", {})]


def read(path: Path) -> dict[str, Any]:
    """A recipe file's tables, unchecked."""
    try:
        regular(path)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read, or is not valid TOML: {error}") from error


def read_all(path: Path, method: str | None = None) -> list[tuple[Path, dict[str, Any]]]:
    """A recipe file's tables and, before them, those of the files that it extends, the last of these first.

    Behind an extended one stands its variant for `method`, where one is shipped: ``photos-unit`` holds for ``office31``, too.
    Not so where a file of the user's own, or a variant for another method, says anything above of a method or of training. Other
    shipped recipes leave out what they say of another method.

    Raises:
        UserError: where one of them is missing, is not valid TOML, or extends itself in the end.
    """
    files: list[tuple[Path, dict[str, Any]]] = []
    while path.resolve() not in [known.resolve() for known, _ in files]:
        tables = read(path)
        if method is not None and is_shipped(path) and _names_another(tables, path.stem, method):
            tables = {key: value for key, value in tables.items() if key not in ("method", "training")}
        decided = any("method" in above or "training" in above for _, above in files)
        if method is not None and not decided and (other := variant(path, method)) != path:
            files.insert(0, (other, {key: value for key, value in read(other).items() if key != "extends"}))
        files.insert(0, (path, tables))
        if "extends" not in tables:
            return files
        path = find(str(tables.pop("extends")), path.parent)
    raise UserError(f"{path} extends itself, by way of {files[0][0]}; take `extends` out of one of them")


def _names_another(tables: dict[str, Any], recipe: str, method: str) -> bool:
    """Whether a recipe that extends another one has another method, and is not that one's variant for it."""
    own = tables.get("method", {}).get("name", method)
    return "extends" in tables and own != method and recipe != f"{tables['extends']}-{own}"
