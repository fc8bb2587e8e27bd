"""What a setting's number may be, where pydantic has no name for it, and what all groups of settings have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

UnitInterval = Annotated[float, Field(ge=0, le=1)]
"""0..1: a probability, a part of a whole, the decay of an average"""


class Section(BaseModel):
    """A group of settings: a table of a recipe. It cannot be changed; unknown keys, infinity and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
