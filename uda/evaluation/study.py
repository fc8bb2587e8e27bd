"""What a run's witnesses mean, by a study of other runs whose truth is known: an accuracy, an interval, and which classifier.

``study.csv`` has a line for each of its runs (``benchmarks/trust.py`` makes it): what `uda.evaluation.witnesses` found, how many
images either classifier was likely to give their class, and how many it did. The estimate is what is likely; trees that were
fitted to images of these runs say it (`uda.evaluation.trees`). How far it is off is told by runs on targets that the trees were
fitted without (they may have seen the same domain as a source, or one akin), so an interval means: of runs on such targets, but
like the study's, nine in ten had their truth inside.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).parent / "study.csv"
LIKELY = "likely_after", "likely_before"
"""by trees that were fitted without the run's target"""
NO_WITNESS = ("run", "pair", "aside", "true_before", "true_after", "warnings", "atc", "confidence", *LIKELY)
"""columns of the table that are not told of a run alone"""
COVERED = 0.9
LEAST = 0.02  # is added to errors before their logarithm is taken
BEYOND = 0.25  # of the range that a witness has in the study: a run farther beyond it is unlike them all
WIDER = 2.0  # is the interval of such a run
CHANCE = 2.0  # times as much as chance does to an accuracy on so few images: it does as much to the witnesses

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What is believed of a run, shares 0..1.

    Attributes:
        accuracy: of the adapted classifier on the target.
        interval: where it lies, in nine of ten runs.
        source_only: of the source classifier on the target.
        source_only_interval: where that lies.
        gain_interval: where the first less the third lies.
        unlike: whether the run is unlike those of the study; its intervals are wider then.
    """

    accuracy: float
    interval: tuple[float, float]
    source_only: float
    source_only_interval: tuple[float, float]
    gain_interval: tuple[float, float]
    unlike: bool

    @property
    def gain(self) -> float:
        """What adaptation has brought, -1..1."""
        return self.accuracy - self.source_only

    @property
    def recommended(self) -> str:
        """``"adapted"``, or ``"source"`` where adaptation seems to have done harm."""
        return "adapted" if self.gain >= 0 else "source"

    def where_few_changed(self, changed: float, images: float) -> Verdict:
        """What is believed where adaptation changed the class of this share, 0..1, of so many target images.

        No more than that share can be gained or lost, but for what so few images leave to chance (two standard errors; where none
        of them changed, none is taken to). So neither accuracy lies farther from where the other may; each interval holds its own
        estimate.
        """
        most = changed + 2 * math.sqrt(changed * (1 - changed) / images)
        (low, high), (source_low, source_high) = self.interval, self.source_only_interval
        least, best = (min(max(gain, -most), most) + 0.0 for gain in self.gain_interval)  # -0 is 0
        return replace(
            self,
            interval=_holding(self.accuracy, max(low, source_low - most), min(high, source_high + most)),
            source_only_interval=_holding(self.source_only, max(source_low, low - most), min(source_high, high + most)),
            gain_interval=_holding(self.gain, least, best),
        )

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        low, high = self.gain_interval
        if low == high == 0.0:
            return "it gives every target image the class that the source classifier gives it, and is as good"
        digits = 0 if round(100 * self.gain) else 1  # so that it can be seen which one that favours
        gain, least, best = (f"{round(100 * share, digits) + 0.0:+.{digits}f}" for share in (self.gain, low, high))  # -0 is 0
        return f"without labels, adaptation seems to bring {gain} points of accuracy ({least} .. {best})"


def _holding(value: float, low: float, high: float) -> tuple[float, float]:
    """The interval, as far as it must reach to hold a value."""
    return min(low, value), max(high, value)


class Spread:
    """How far predicted accuracies are from the truth, by how many images all heads and both classifiers agree on.

    Where they agree on most images, an estimate can hardly be far off; where they do not, it may be, but less where nearly all or
    nearly none are likely to be right: p (1 - p) of the accuracy p tells that. Off by how much is what runs on left-out targets
    were off by, so that intervals are locally as wide as they need be (normalised conformal prediction, Papadopoulos et al.
    2002), and few images add what they leave to chance.

    Attributes:
        deviations: a predicted size of each run's error (N,), by the runs on other targets.
        widen: what a deviation is multiplied by to cover the truth in `COVERED` of these runs.
    """

    def __init__(self, predicted: Numbers, truth: Numbers, agreed: Numbers, images: Numbers, targets: NDArray[np.str_]) -> None:
        self.errors, self.columns = abs(truth - predicted), self._columns(predicted, agreed)
        sizes = np.zeros(len(truth))
        for target in np.unique(targets):
            there = targets == target
            sizes[there] = self._sizes(self.columns[~there], self.errors[~there], self.columns[there])
        self.deviations = self._with_chance(sizes, predicted, images)
        self.widen = float(np.quantile(self.errors / self.deviations, COVERED, method="higher"))

    def deviation(self, predicted: Numbers, agreed: Numbers, images: Numbers) -> Numbers:
        """Of other runs (n,)."""
        return self._with_chance(self._sizes(self.columns, self.errors, self._columns(predicted, agreed)), predicted, images)

    @staticmethod
    def _columns(predicted: Numbers, agreed: Numbers) -> Numbers:
        return np.column_stack([np.ones(len(predicted)), agreed, predicted * (1 - predicted)])

    @staticmethod
    def _sizes(columns: Numbers, errors: Numbers, of: Numbers) -> Numbers:
        return np.asarray(np.exp(of @ np.linalg.lstsq(columns, np.log(errors + LEAST), rcond=None)[0]))

    @staticmethod
    def _with_chance(sizes: Numbers, predicted: Numbers, images: Numbers) -> Numbers:
        right = np.clip(predicted, 0.05, 0.95)
        return np.asarray(np.sqrt(sizes**2 + CHANCE**2 * right * (1 - right) / images))


class Study:
    """The runs of a table, one in a row, and how far estimates of them were off."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.names = [name for name in rows[0] if name not in NO_WITNESS]
        self.targets = np.array([row["pair"].split()[-1] for row in rows])
        before, after, likely_before, likely_after, agreed, images = (
            np.array([float(row[name]) for row in rows])
            for name in ("true_before", "true_after", "likely_before", "likely_after", "all_agree", "log_images")
        )
        found = np.array([[float(row[name]) for name in self.names] for row in rows])
        self.lowest, self.highest = found.min(0), found.max(0)
        self.spread_of_adapted, self.spread_of_source = (
            Spread(likely, truth, agreed, np.exp(images), self.targets)
            for likely, truth in ((likely_after, after), (likely_before, before))
        )
        off = abs(likely_after - likely_before - (after - before))
        self.reach_of_gain = float(np.quantile(off, COVERED, method="higher"))

    def judge(self, found: Mapping[str, float]) -> Verdict:
        """What follows from a run's witnesses, by name."""
        values, slack = np.array([found[name] for name in self.names]), BEYOND * (self.highest - self.lowest)
        unlike = bool(((values < self.lowest - slack) | (values > self.highest + slack)).any())
        agreed, images = np.array([found["all_agree"]]), np.exp([found["log_images"]])
        changed, count = 1 - found["agreement"], float(images[0])
        figures: list[tuple[float, tuple[float, float]]] = []
        for name, spread in (("likely_after", self.spread_of_adapted), ("likely_before", self.spread_of_source)):
            accuracy = np.array([found[name]])
            reach = spread.widen * spread.deviation(accuracy, agreed, images) * (WIDER if unlike else 1)
            low, middle, high = np.clip(accuracy + reach * np.array([-1, 0, 1]), 0, 1).tolist()
            figures.append((middle, (low, high)))
        # Images that both classifiers give the same class count for neither: the others alone leave the gain to chance.
        chance = CHANCE * NormalDist().inv_cdf((1 + COVERED) / 2) * math.sqrt(changed / count)
        gain, wide = figures[0][0] - figures[1][0], math.hypot(self.reach_of_gain, chance) * (WIDER if unlike else 1)
        verdict = Verdict(*figures[0], *figures[1], (max(gain - wide, -1.0), min(gain + wide, 1.0)), unlike)
        return verdict.where_few_changed(changed, count)


def read_rows(table: Path) -> list[dict[str, str]]:
    """The runs of a table."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


@lru_cache(1)
def shipped() -> Study:
    """The study that comes with the package."""
    return Study(read_rows(TABLE))
