"""What a run's witnesses mean, by a study of other runs whose truth is known: an accuracy, an interval, and which classifier.

``study.csv`` has a line for each of its runs (``benchmarks/trust.py`` makes it): what `uda.evaluation.witnesses` found, and the
accuracies that the target's labels gave. Two linear regressions say what follows for a new run: of the adapted classifier's
accuracy, and of the source classifier's; the gain is their difference. How far each is off is told by runs on targets that it
was fitted without, so an interval means: of runs on targets of which nothing was known, but like the study's, nine in ten had
their truth inside.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).parent / "study.csv"
TRUTH = "run", "pair", "aside", "true_before", "true_after", "warnings"
COVERED = 0.9
LEAST = 0.02  # no estimate is taken to be nearer to the truth than this
EDGE = 0.01  # shares are kept this far from 0 and 1 where their logarithms of odds are taken
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
        of them changed, none is taken to). Where more was believed, the estimate of the source classifier stays, which is the
        nearer one, and the gain may as well be 0.
        """
        most = changed + 2 * math.sqrt(changed * (1 - changed) / images)
        least, best = (min(max(gain, -most), most) for gain in self.gain_interval)
        if abs(self.gain) <= most:
            return replace(self, gain_interval=(least, best))
        low, high = self.source_only_interval
        return replace(
            self,
            accuracy=self.source_only + math.copysign(most, self.gain),
            interval=(max(0.0, low - most), min(1.0, high + most)),
            gain_interval=(min(least, 0.0), max(best, 0.0)),
        )

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        low, high = self.gain_interval
        if low == high == 0.0:
            return "it gives every target image the class that the source classifier gives it, and is as good"
        gain, least, best = (round(100 * share) for share in (self.gain, low, high))
        points = f"{gain:+d} points of accuracy ({least:+d} .. {best:+d})"
        return f"without labels, adaptation seems to bring {points}"


class Regression:
    """A truth (N,) on witnesses (N, W)."""

    def __init__(self, witnesses: Numbers, truth: Numbers, targets: NDArray[np.str_]) -> None:
        self.witnesses, self.truth, self.targets = witnesses, truth, targets

    @cached_property
    def left_out(self) -> Numbers:
        """What is predicted of each run by a regression on those of other targets (N,). It takes as many fits as targets."""
        return left_out(self.targets, self.witnesses, self.truth, self.fit)

    def predict(self, witnesses: Numbers) -> Numbers:
        """What follows from the witnesses of other runs (n, W): (n,)."""
        return self.fit(self.witnesses, self.truth, witnesses)

    @staticmethod
    def fit(witnesses: Numbers, truth: Numbers, of: Numbers) -> Numbers:
        """What a regression of a truth (N,) on witnesses (N, W) says of others (n, W): (n,)."""
        return np.asarray(fitted(witnesses, truth).predict(of))


class Spread:
    """How far predicted accuracies are from the truth, by how many images all heads and both classifiers agree on.

    Where they agree on most images, an estimate can hardly be far off; where they do not, it may be. Off by how much is what runs
    on left-out targets were off by, so that intervals are locally as wide as they need be (normalised conformal prediction,
    Papadopoulos et al. 2002), and few images add what they leave to chance.

    Attributes:
        deviations: a predicted size of each run's error (N,), by the runs on other targets.
        widen: what a deviation is multiplied by to cover the truth in `COVERED` of these runs.
    """

    def __init__(self, predicted: Numbers, truth: Numbers, agreed: Numbers, images: Numbers, targets: NDArray[np.str_]) -> None:
        self.errors, self.agreed = abs(truth - predicted), agreed[:, None]
        self.deviations = self._with_chance(left_out(targets, self.agreed, self.errors, self._sizes), predicted, images)
        self.widen = float(np.quantile(self.errors / self.deviations, COVERED, method="higher"))

    def deviation(self, predicted: Numbers, agreed: Numbers, images: Numbers) -> Numbers:
        """Of other runs (n,)."""
        return self._with_chance(self._sizes(self.agreed, self.errors, agreed[:, None]), predicted, images)

    @staticmethod
    def _sizes(agreed: Numbers, errors: Numbers, of: Numbers) -> Numbers:
        return np.asarray(np.exp(fitted(agreed, np.log(errors + LEAST)).predict(of)))

    @staticmethod
    def _with_chance(sizes: Numbers, predicted: Numbers, images: Numbers) -> Numbers:
        right = np.clip(predicted, 0.05, 0.95)
        return np.asarray(np.sqrt(sizes**2 + CHANCE**2 * right * (1 - right) / images))


def fitted(columns: Numbers, values: Numbers) -> Any:
    """Bayesian ridge regression (MacKay 1992) of values (N,) on standardised columns (N, W)."""
    from sklearn import linear_model, pipeline, preprocessing  # takes seconds

    return pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.BayesianRidge()).fit(columns, values)


def left_out(
    groups: NDArray[np.str_], columns: Numbers, values: Numbers, predict: Callable[[Numbers, Numbers, Numbers], Numbers]
) -> Numbers:
    """What is predicted of each run (N,) when no run of its group has taught the prediction."""
    found = np.zeros(len(values))
    for group in np.unique(groups):
        there = groups == group
        found[there] = predict(columns[~there], values[~there], columns[there])
    return found


class Study:
    """The runs of a table, one in a row, and what they teach."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.names = [name for name in rows[0] if name not in TRUTH]
        self.targets = np.array([row["pair"].split()[-1] for row in rows])
        before, after = (np.array([float(row[name]) for row in rows]) for name in ("true_before", "true_after"))
        found = [{name: float(row[name]) for name in self.names} for row in rows]
        odds, raw = (np.stack(parts) for parts in zip(*map(self._columns, found), strict=True))
        agreed, images = np.array([run["all_agree"] for run in found]), np.exp([run["log_images"] for run in found])
        self.lowest, self.highest = raw.min(0), raw.max(0)
        self.of_adapted, self.of_source = (Regression(odds, log_odds(truth), self.targets) for truth in (after, before))
        self.spread_of_adapted, self.spread_of_source = (
            Spread(share(regression.left_out), truth, agreed, images, self.targets)
            for regression, truth in ((self.of_adapted, after), (self.of_source, before))
        )
        gain_left_out = share(self.of_adapted.left_out) - share(self.of_source.left_out)
        self.reach_of_gain = float(np.quantile(abs(gain_left_out - (after - before)), COVERED, method="higher"))

    def _columns(self, found: Mapping[str, float]) -> tuple[Numbers, Numbers]:
        """A run's witnesses with shares as logarithms of odds, and as they are."""
        values = np.array([found[name] for name in self.names])
        shares = np.array([not name.startswith("log_") for name in self.names])
        return np.where(shares, log_odds(values), values), values

    def judge(self, found: Mapping[str, float]) -> Verdict:
        """What follows from a run's witnesses, by name."""
        odds, raw = (part[None] for part in self._columns(found))
        slack = BEYOND * (self.highest - self.lowest)
        unlike = bool(((raw < self.lowest - slack) | (raw > self.highest + slack)).any())
        agreed, images = np.array([found["all_agree"]]), np.exp([found["log_images"]])
        changed, count = 1 - found["agreement"], float(images[0])
        figures: list[tuple[float, tuple[float, float]]] = []
        for regression, spread in ((self.of_adapted, self.spread_of_adapted), (self.of_source, self.spread_of_source)):
            accuracy = share(regression.predict(odds))
            reach = spread.widen * spread.deviation(accuracy, agreed, images) * (WIDER if unlike else 1)
            low, middle, high = np.clip(accuracy + reach * np.array([-1, 0, 1]), 0, 1).tolist()
            figures.append((middle, (low, high)))
        # Images that both classifiers give the same class count for neither: the others alone leave the gain to chance.
        chance = CHANCE * NormalDist().inv_cdf((1 + COVERED) / 2) * math.sqrt(changed / count)
        gain, wide = figures[0][0] - figures[1][0], math.hypot(self.reach_of_gain, chance) * (WIDER if unlike else 1)
        verdict = Verdict(*figures[0], *figures[1], (max(gain - wide, -1.0), min(gain + wide, 1.0)), unlike)
        return verdict.where_few_changed(changed, count)


def log_odds(shares: Numbers) -> Numbers:
    """ln p / (1 - p) of shares 0..1, which are kept `EDGE` away from both ends."""
    clipped = np.clip(shares, EDGE, 1 - EDGE)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


def share(odds: Numbers) -> Numbers:
    """The shares 0..1 whose `log_odds` these are."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


def read_rows(table: Path) -> list[dict[str, str]]:
    """The runs of a table."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


@lru_cache(1)
def shipped() -> Study:
    """The study that comes with the package."""
    return Study(read_rows(TABLE))
