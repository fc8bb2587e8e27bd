"""What a run was computed with."""

from __future__ import annotations

import platform
from importlib import metadata

import uda

PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "numpy")


def versions() -> dict[str, str]:
    """The versions of uda, Python and the packages that numbers depend on."""
    found = {"uda": uda.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
