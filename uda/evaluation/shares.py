"""How often each class comes in a target without labels, and whether that is evidence enough to expect uneven classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from uda.evaluation.calibration import calibrated
from uda.evaluation.outputs import Outputs
from uda.neighbours import NEAREST, propagate, standardised

UNEVEN = 0.15  # of the images: shares nearer than this to even ones are taken for even
OPTIMISM = 1.25  # a classifier calibrated on the source is wrong so many times as often on another domain as it says
BELIEF = 0.75  # how much of the estimate methods are to expect: of all of it, they would give up what is rare
LEAST = 0.3  # of an even share, which every class is granted: else a class that is rare, or that the estimate has missed, is lost
RARE = 0.1  # of an even share: of a class that comes less often there is hardly any


def histogram(labels: Tensor, classes: int) -> Tensor:
    """The share of each class (K,), float64, of class numbers (N,)."""
    return labels.bincount(minlength=classes).double() / len(labels)


def distance(first: Tensor, second: Tensor) -> float:
    """Total variation of two histograms (K,): the share of images that would have to change their class, 0..1."""
    return float((first - second).abs().sum()) / 2


def chance(classes: int, images: int) -> float:
    """How far the histogram of so many images, drawn at random, is in the mean from the shares that they come from: 0 or more.

    Total variation, sqrt(K / (2 pi n)): right for even classes and enough images, and else too much.
    """
    return math.sqrt(classes / (2 * math.pi * images))


@dataclass(frozen=True)
class Shares:
    """The class shares of a target, as far as they can be told without its labels.

    Attributes:
        estimated: (K,), float64, of sum 1.
        doubt: how often the classifier that they were estimated by is wrong on the target, by its own word or another's: 0..1.
        images: of how many images.
    """

    estimated: Tensor
    doubt: float
    images: int

    @property
    def unevenness(self) -> float:
        """How far they are from even ones: 0..1 - 1/K."""
        return distance(self.estimated, torch.full_like(self.estimated, 1 / len(self.estimated)))

    @property
    def uneven(self) -> bool:
        """Whether they are farther from even than mistakes of the classifier can explain."""
        return self.unevenness > self.explained

    @property
    def explained(self) -> float:
        """How far from even they may look where the target is even: 0..1, or above 1.

        A rule of thumb: mistakes on a share of the images move their counts by no more than it, and spreading corrects more than
        it makes; chance moves them by what `chance` says.
        """
        return max(UNEVEN, OPTIMISM * self.doubt + chance(len(self.estimated), self.images))

    @property
    def expected(self) -> Tensor:
        """What a method is to expect, float32 (K,): the weighted geometric mean of the estimate and even shares.

        No class has less than about `LEAST` of an even share.
        """
        even = 1 / len(self.estimated)
        shares: Tensor = (self.estimated.float().pow(BELIEF) * even ** (1 - BELIEF)).clamp_min(LEAST * even)
        return shares / shares.sum()

    def describe(self, classes: tuple[str, ...]) -> str:
        """Why they are taken for uneven or not, in a few words; `classes` are their names."""
        seen = f"{self.unevenness:.0%} of the images would have to change their class for even ones"
        if not self.uneven:
            return f"{seen}, and mistakes and chance can make it look so up to {min(self.explained, 1):.0%}"
        rare = [name for name, share in zip(classes, self.estimated.tolist(), strict=True) if share < RARE / len(classes)]
        shown = ", ".join(rare[:8]) + (", ..." if len(rare) > 8 else "")
        return f"{seen}, more than mistakes and chance explain" + (f"; hardly any of {shown}" if rare else "")


def estimate_shares(before: Outputs, doubt: float = 0.0) -> Shares:
    """Of the classes that a classifier, calibrated on the source, gives target images once its words have spread among near ones.

    Where images of one class lie together, those that it takes for another are outvoted by the rest. Expectation maximisation
    (Saerens et al. 2002) holds only where a class looks alike in both domains, and was farther from the truth (figures, and how
    the constants above were chosen: benchmarks/RESULTS.md, "Uneven and partial targets").

    Words do not spread where classes have fewer images than each image listens to, which are then of several classes.
    `doubt` (0..1) is how often another witness contradicts the classifier, for it may be sure and wrong.
    """
    said = calibrated(before)
    images, classes = said.shape
    spread = propagate(said, standardised(before.target_features)) if images >= NEAREST * classes else said
    return Shares(histogram(spread.argmax(1), classes), max(doubt, 1 - float(said.amax(1).mean())), images)
