"""Adaptation methods: one file each. A method has `Settings`, a frozen dataclass, and `Method`, which takes steps.

    Method(settings, classifier, shape, steps, runtime)   from the trained source classifier, for images of `shape` (C, H, W)
    .step(batch) -> dict[str, Tensor]                     one update; its losses, still on the device
    .classifier() -> nn.Module                            images (N, C, H, W) in -1..1 to logits (N, K) on the target
    .networks() -> nn.Module                              all that it has trained, as one module
    .state_dict(), .load_state_dict(state)                all that a resumed run needs

A method that also translates images is a `uda.methods.base.Translating`; one that looks at the target before its first step has
`.prepare(target)`, which gets a `Domain` and leaves the random state as it finds it. None is ever given target labels: a
`Batch` has no place for them. The first line of its file says what it is: "NAME: authors, "title", venue year.".

A user's own method is a class, ``FILE.py:CLASS``, in a file that may have its own `Settings`; the easiest is a subclass of
`uda.methods.base.OneNetwork`.

A module may also say
    READS_SOURCE = False           it wants no source images: a batch then holds none
    READS_TARGET_LABELS = True     it is no adaptation: it gets the labelled target in the source's place
    TRAINING = {"steps": 800}      what it wants of the recipe's [training], where it takes another method's place
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

from torch import Tensor, nn

from uda import plugins as importing
from uda.data.batches import Batch
from uda.errors import UserError
from uda.methods import (
    adabn,
    cdan,
    cogan,
    dan,
    dann,
    deep_coral,
    dirt_t,
    drit,
    latent_mapping,
    mcc,
    mcd,
    mean_teacher,
    shot,
    source_only,
    supcon,
    target_only,
    unit,
    unit_translation,
    vada,
)
from uda.methods.base import TRAINING, OptimizerSettings, TrainingSettings

METHODS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        source_only, target_only, adabn, dann, cdan, dan, deep_coral, mcd, mcc, mean_teacher, vada, dirt_t, shot, supcon,
        unit, drit, latent_mapping, cogan,
    )
}  # fmt: skip


TRANSLATIONS: dict[str, ModuleType] = {"unit_translation": unit_translation}
"""methods that translate and do not classify: ``CLASSIFIES = False``, and `Method(settings, shape, steps, runtime)`"""


def find_method(name: str) -> Any:
    """A method's module, by its name in `METHODS` or `TRANSLATIONS`; or what stands for one, by ``FILE.py:CLASS``.

    Raises:
        UserError: where there is none.
    """
    known = METHODS | TRANSLATIONS
    if name in known:
        return known[name]
    if ":" not in name:
        raise UserError.unknown("method", name, known, "your own: --method FILE.py:CLASS")
    module, method = importing.load(name)
    own = {"Settings": OptimizerSettings} | vars(module) | {"Method": method}
    found = SimpleNamespace(**{key: value for key, value in own.items() if not key.startswith("__")})
    _name_flags(found)
    return found


def _name_flags(module: Any) -> None:
    """TEMPORARY, goes when methods are classes: a module's flags under the names that `Method` will have."""
    module.training = TrainingSettings(**{"steps": TRAINING["steps"], **getattr(module, "TRAINING", TRAINING)})
    module.classifies = getattr(module, "CLASSIFIES", True)
    module.reads_source = getattr(module, "READS_SOURCE", True)
    module.reads_target_labels = getattr(module, "READS_TARGET_LABELS", False)


for _module in (METHODS | TRANSLATIONS).values():
    _name_flags(_module)


class Trained(Protocol):
    """What the training loop asks of a method."""

    def step(self, batch: Batch) -> dict[str, Tensor]: ...
    def networks(self) -> nn.Module: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Method(Trained, Protocol):
    """One that adapts a classifier."""

    def classifier(self) -> nn.Module: ...
