"""Target only: supervised training on the target's own labels. No adaptation, and no fair rival: the upper bound.

This method alone is given target labels, in place of the source's images and labels.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat

from uda.methods.source_only import SourceOnly, SourceOnlySettings


class TargetOnlySettings(SourceOnlySettings):
    """As the source classifier's."""

    name: str = "target_only"
    learning_rate: NonNegativeFloat = 1e-3


class TargetOnly(SourceOnly):
    """Trains on, from the source classifier, on what the loop hands it as its labelled domain."""

    Settings = TargetOnlySettings
    reads_target_labels = True
    adapts = True
