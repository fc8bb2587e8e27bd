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
    from uda.recipe.schema import Recipe
    from uda.runs.run import Run
    from uda.runs.run import Run as load
    from uda.training.fit import fit, resume

_HOMES = {
    "Adapter": "uda.adapter",
    "Recipe": "uda.recipe.schema",
    "Run": "uda.runs.run",
    "UserError": "uda.errors",
    "fit": "uda.training.fit",
    "resume": "uda.training.fit",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; `uda --help` and `import uda` do not wait for it.
    import importlib

    if name == "load":
        return importlib.import_module("uda.runs.run").Run
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'uda' has no attribute {name!r}")
