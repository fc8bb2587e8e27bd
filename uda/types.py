"""What a setting's number may be, where pydantic has no name for it, and what all groups of settings have in common."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from textwrap import dedent
from tokenize import TokenError
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

UnitInterval = Annotated[float, Field(ge=0, le=1)]
"""0..1: a probability, a part of a whole, the decay of an average"""


class Section(BaseModel):
    """A group of settings: a table of a recipe. It cannot be changed; unknown keys, infinity and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def meanings(section: type[Section]) -> dict[str, str]:
    """What settings mean, by name: the text below each in the class that has it, where that can be read."""
    found = {}
    for owner in reversed([owner for owner in section.__mro__ if issubclass(owner, Section)]):
        try:
            body = ast.parse(dedent(inspect.getsource(owner))).body[0]
        except (OSError, TypeError, SyntaxError, TokenError):  # typed in, or made by code
            continue
        for field, below in pairwise(getattr(body, "body", [])):
            text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else None
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                found[field.target.id] = " ".join(text.split())
    return found
