"""Where recipes are: the shipped ones by name, a user's own by path. Needs no torch, so that listing them is quick."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from uda.errors import UserError

_PACKAGE = Path(__file__).parent.parent
# Inside an installed package, or beside it in a checkout.
RECIPES = _PACKAGE / "recipes" if (_PACKAGE / "recipes").is_dir() else _PACKAGE.parent / "recipes"


def names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def find(recipe: str) -> Path:
    """The file of a recipe given by name, or by a path that ends in .toml.

    Raises:
        UserError: where there is none, with the nearest name.
    """
    if recipe.endswith(".toml"):
        path = Path(recipe)
        if not path.is_file():
            raise UserError(f"no recipe file {recipe}; give a path to a .toml file or one of: {', '.join(names())}")
        return path
    if recipe not in names():
        raise UserError.unknown("recipe", recipe, names())
    return RECIPES / f"{recipe}.toml"


def read(path: Path) -> dict[str, Any]:
    """A recipe file's tables, unchecked."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
