"""Unsupervised domain adaptation: a trained classifier and unlabelled images in, an adapted classifier and an honest number out.

import uda
run = uda.fit("svhn2mnist", seed=0)
run.target_accuracy, run.classifier
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Adapter", "Recipe", "Run", "UserError", "fit", "load", "resume"]

if TYPE_CHECKING:
    from uda.adapter import Adapter
    from uda.errors import UserError
    from uda.fitting import fit, resume
    from uda.recipe import Recipe
    from uda.runs import Run
    from uda.runs import Run as load

_HOMES = {
    "Adapter": "uda.adapter",
    "Recipe": "uda.recipe",
    "Run": "uda.runs",
    "UserError": "uda.errors",
    "fit": "uda.fitting",
    "resume": "uda.fitting",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `uda --help` and `import uda` do not wait for it.
    import importlib

    if name == "load":
        return importlib.import_module("uda.runs").Run
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'uda' has no attribute {name!r}")
