"""Every setting of every method with values of the wrong kind: a line, or a recipe that is written and read back as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from uda import UserError
from uda.methods import METHODS
from uda.recipe.load import dump_recipe, load_recipe

WRONG: tuple[Any, ...] = (
    {"a": 1}, [1, "a"], [], {}, "", "nothing of the kind", "\x00", "\ud800",
    -1, 2**70, 0.5, float("nan"), float("inf"), True, None,
)  # fmt: skip
PATHS = {"data.source": "./a", "data.target": "./b", "augment.target.mask": 0.5}


def flat(tables: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tables.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else (prefix + key,)


def keys(method: str) -> Iterator[str]:
    """The method's own settings; of the first one, all others, too."""
    for key in flat(load_recipe("folders", PATHS | {"method.name": method}).model_dump()):
        if key.startswith("method.") or method == next(iter(METHODS)):
            yield key


def answer(method: str, key: str, value: object) -> str:
    """What is said of a value; nothing, where it is taken."""
    try:
        dump_recipe(load_recipe("folders", PATHS | {"method.name": method} | {key: value}))
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_value_is_refused_in_one_line_or_kept(method: str) -> None:
    said = [answer(method, key, value) for key in keys(method) for value in WRONG]
    assert not any("\n" in line for line in said)
    assert sum(map(bool, said)) > len(said) / 2  # few of them are of any one kind


def test_there_are_enough_of_them() -> None:
    assert sum(len(list(keys(method))) for method in METHODS) * len(WRONG) > 2000
