"""Data sets that go by name. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

DATA_SETS = ("mnist", "usps", "svhn", "svhn-extra", "mnist-m", "synth", "digits", "aerial", "map")
"""data sets that go by name; a folder of the same name is written ./mnist"""


def is_path(name: str) -> bool:
    """Whether images are given by their place, and not by a data set's name."""
    return name not in DATA_SETS and (name.endswith((".npz", ".csv")) or "/" in name or os.sep in name or Path(name).exists())
