"""Images of no known class: which look like it, and how well that is told where labels say so."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

FEWEST = 20  # named images that an estimate can be of


class OpenSet(TypedDict):
    """How well a classifier tells known classes, and unknown ones from these; shares of images, 0..1."""

    known: float
    """images of known classes that get their class, and are not taken for unknown"""
    unknown: float
    """images of unknown classes that are taken for unknown"""
    harmonic_mean: float
    """of both (the H-score, Fu et al. 2020): low where either is"""
    images: int
    """how many are of unknown classes"""


def doubt(logits: Tensor) -> Tensor:
    """Each prediction's entropy, as a share of the highest there is: 0..1, float32 (N,). Shape: logits (N, K)."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(logits.shape[1])


def looks_unknown(logits: Tensor) -> Tensor:
    """Which images look to be of no known class, bool (N,): those of an entropy above ln(K) / 2. Shape: logits (N, K).

    Source: Saito et al. 2020 (DANCE), section 3.3; for K of at least 2.
    """
    return doubt(logits) > 0.5


def named(logits: Tensor) -> Tensor:
    """Which images do not look to be of no known class, bool (N,); all of them where these are too few to tell anything by."""
    found = ~looks_unknown(logits)
    return found if found.sum() >= FEWEST else torch.ones_like(found)


def open_set(known_logits: Tensor, known_labels: Tensor, unknown_logits: Tensor) -> OpenSet:
    """Figures of labelled test images: of known classes, (N, K) and (N,), and of others, (M, K)."""
    right = (known_logits.argmax(1) == known_labels) & ~looks_unknown(known_logits)
    known, unknown = float(right.double().mean()), float(looks_unknown(unknown_logits).double().mean())
    mean = 2 * known * unknown / (known + unknown) if known + unknown else 0.0
    return {"known": known, "unknown": unknown, "harmonic_mean": mean, "images": len(unknown_logits)}
