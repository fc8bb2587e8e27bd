"""Accuracy from a few labels: which images to look at, and what their labels say of two classifiers.

A stratified sample: images are ranked by how doubtful their predictions look and cut into strata of one size, and of each a
number is drawn at random, so that every image's probability is known. The intervals hold for images of the kind that these are
a sample of. ``benchmarks/check.py`` compares them with others.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from uda.errors import UserError

STRATA = 5
FEWEST = STRATA
"""images that an interval takes: the first of an `order` are one of each stratum"""
MARGIN = 3.0
"""what logits are tempered to: the mean difference of the two likeliest classes'"""
MOST_DOUBTFUL = 2.0
"""how many times as often the most doubtful images are drawn as the least"""
SHRINK = 1.0
"""images of the overall kind that each stratum is given before its variance is taken: it has some where all in it are right"""
Z = 1.6448536269514722  # between -Z and Z lie 90 % of a normal distribution


class Estimate(NamedTuple):
    """A share (or a difference of shares), and an interval that covers the truth in 90 of 100 samples."""

    value: float
    interval: tuple[float, float]


def doubt(before: Tensor, after: Tensor) -> Tensor:
    """How little two classifiers, taken together, favour one class; logits (M, K) each, to (M,), higher is more doubtful.

    Minus the log-probability of the likeliest class of the product of both. Each is tempered to the same mean margin between its
    two likeliest classes, so that an adapted classifier that is sure of everything does not outvote the source classifier.
    """
    return -(_tempered(before) + _tempered(after)).log_softmax(1).amax(1)


def _tempered(logits: Tensor) -> Tensor:
    first, second = logits.float().topk(2).values.unbind(1)
    return MARGIN * logits.float() / (first - second).mean().clamp_min(1e-12)


def stratify(doubts: Tensor) -> Tensor:
    """The stratum of each image, int64 (M,), 0 for the least doubtful; strata differ in size by one image at most."""
    return doubts.argsort(stable=True).argsort() * STRATA // len(doubts)


def order(strata: Tensor, seed: int) -> Tensor:
    """All images in the order in which they are to be looked at, int64 (M,).

    Its first n images are a stratified random sample for every n: in each stratum all images have one probability. So a sample
    that was ended early is one, too, and a larger one begins with the smaller.
    """
    shuffled = torch.randperm(len(strata), generator=torch.Generator().manual_seed(seed))
    turns = torch.empty(len(strata), dtype=torch.float64)
    for number, weight in enumerate(torch.linspace(1, MOST_DOUBTFUL, STRATA).tolist()):
        members = shuffled[strata[shuffled] == number]
        turns[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / weight
    return turns.argsort(stable=True)


def accuracy_of(right: Tensor, strata: Tensor, of: Tensor) -> Estimate:
    """Accuracy on all images from those looked at: Wilson's interval at the sample's effective size.

    The effective size is that of the plain sample whose accuracy would have this variance (Kish 1965), as Franco et al. 2019
    (J. Surv. Stat. Methodol. 7(3)) put it into intervals for shares; that strata are shrunk before (`SHRINK`) is ours.

    Args:
        right: whether each is, bool (n,).
        strata: of all images, int64 (M,).
        of: which images were looked at, int64 (n,), positions in `strata`.

    Raises:
        UserError: where a stratum has no image that was looked at.
    """
    values = right.double()
    parts = _parts(strata, of)
    share = _mean(values, parts)
    plain, variance = share * (1 - share), _variance(values, values, share, share, parts)
    size = plain / variance if plain else float(len(values))
    centre, square = (share + Z * Z / (2 * size)) / (1 + Z * Z / size), Z * Z / (4 * size * size)
    half = Z / (1 + Z * Z / size) * math.sqrt(plain / size + square)
    return Estimate(share, (max(0.0, centre - half), min(1.0, centre + half)))


def difference_of(first: Tensor, second: Tensor, strata: Tensor, of: Tensor) -> Estimate:
    """How much more often the second classifier is right than the first, -1..1, from the same images.

    A normal interval, after one image that only the first has right and one that only the second has are added (Agresti and Min
    2005). Shapes as in `accuracy_of`.

    Raises:
        UserError: where a stratum has no image that was looked at.
    """
    values = second.double() - first.double()
    parts = _parts(strata, of)
    mean, square = _mean(values, parts), _mean(values.square(), parts)
    square = (len(values) * square + 2) / (len(values) + 2)
    half = Z * math.sqrt(_variance(values, values.square(), mean, square, parts))
    return Estimate(mean, (max(-1.0, mean - half), min(1.0, mean + half)))


Parts = list[tuple[int, Tensor]]
"""of each stratum, how many images it holds, and which rows of the sample are in it"""


def _parts(strata: Tensor, of: Tensor) -> Parts:
    sizes = strata.bincount(minlength=STRATA).tolist()
    parts = [(size, (strata[of] == number).nonzero().squeeze(1)) for number, size in enumerate(sizes) if size]
    if any(len(rows) == 0 for _, rows in parts):
        raise UserError(f"{len(of)} answers are too few for an interval; answer some more of the first images")
    return parts


def _mean(values: Tensor, parts: Parts) -> float:
    return sum(size * float(values[rows].mean()) for size, rows in parts) / sum(size for size, _ in parts)


def _variance(values: Tensor, squares: Tensor, mean: float, square: float, parts: Parts) -> float:
    """The variance of the stratified mean, with `SHRINK` images of the overall mean and mean square in each stratum."""
    total = 0.0
    for size, rows in parts:
        count = len(rows) + SHRINK
        first = (float(values[rows].sum()) + SHRINK * mean) / count
        second = (float(squares[rows].sum()) + SHRINK * square) / count
        total += size**2 * (second - first**2) / len(rows)
    return total / sum(size for size, _ in parts) ** 2
