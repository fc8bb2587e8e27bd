"""Boosted trees (Friedman 2001) that tell of an image's evidence whether its class is right; fitted elsewhere, kept as tensors.

``trees.safetensors`` is fitted by ``benchmarks/trust.py`` to images of many runs whose truth is known. A tree's leaf adds to the
logits of one outcome:

    logit_k(x) = start_k + sum over the trees t of outcome k of value_t(leaf of x in t)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from uda.atomic import atomic_write
from uda.models.weights import save_tensors

FILE = Path(__file__).parent / "trees.safetensors"
OUTCOMES = 3
"""the adapted classifier is right; the source classifier alone is; neither is"""


@dataclass(frozen=True)
class Trees:
    """T trees of at most N nodes, the first of which is the root.

    Attributes:
        feature: which number a node reads, int16 (T, N).
        threshold: where that is no larger, it goes left, float32 (T, N).
        left, right: where to, int16 (T, N); a leaf goes to itself.
        value: of a leaf, float32 (T, N).
        start: of each outcome, float32 (K,); tree t is of the outcome t mod K.
        depth: the longest way to a leaf, int16 (1,).
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    start: Tensor
    depth: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The probability of each outcome (M, K), of rows (M, F)."""
        trees = torch.arange(len(self.feature))
        at = torch.zeros(len(x), len(trees), dtype=torch.int64)
        for _ in range(int(self.depth)):
            left = x.gather(1, self.feature[trees, at].long()) <= self.threshold[trees, at]
            at = torch.where(left, self.left[trees, at], self.right[trees, at]).long()
        added = self.value[trees, at].reshape(len(x), -1, len(self.start)).sum(1)
        return (self.start + added).softmax(1)

    def save(self, file: Path) -> None:
        """Writes them as safetensors."""
        with atomic_write(file) as path:
            save_tensors(vars(self), path)


@lru_cache(1)
def shipped() -> Trees:
    """The trees that come with the package."""
    return Trees(**load_file(FILE))
