"""What a setting's number may be, where pydantic has no name for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0, le=1)]
"""0..1: a probability, a part of a whole, the decay of an average"""
