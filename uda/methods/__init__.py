"""Adaptation methods: one file each. A method has `Settings`, a frozen dataclass, and `Method`, which takes steps.

    Method(settings, classifier, shape, steps, runtime)   from the trained source classifier, for images of `shape` (C, H, W)
    .step(batch) -> dict[str, Tensor]                     one update; its losses, still on the device
    .classifier() -> nn.Module                            images (N, C, H, W) in -1..1 to logits (N, K) on the target
    .networks() -> nn.Module                              all that it has trained, as one module
    .state_dict(), .load_state_dict(state)                all that a resumed run needs

A method that also makes images has `.translate(images, origin, destination)`; one that looks at the target before its first
step has `.prepare(target)`, which gets a `Domain` and leaves the random state as it finds it. None is ever given target
labels: a `Batch` has no place for them.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

from torch import Tensor, nn

from uda.data.batches import Batch
from uda.methods import source_only, unit

METHODS: dict[str, ModuleType] = {"source_only": source_only, "unit": unit}


class Method(Protocol):
    """What the training loop asks of a method."""

    def step(self, batch: Batch) -> dict[str, Tensor]: ...
    def classifier(self) -> nn.Module: ...
    def networks(self) -> nn.Module: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...
