"""What a run's witnesses mean, by a study of other runs whose truth is known: an accuracy, an interval, and which classifier.

``study.csv`` has a line for each of its runs (``benchmarks/trust.py`` makes it): what `uda.evaluation.witnesses` found, and the
accuracies that the target's labels gave. Three linear regressions say what follows for a new run: of the adapted classifier's
accuracy, of the source classifier's, and of the gain. How far each is off is told by runs of the pairs that it was fitted
without, so an interval means: of runs on pairs of which nothing was known, nine in ten had their truth inside.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge
from sklearn.preprocessing import StandardScaler

TABLE = Path(__file__).parent / "study.csv"
TRUTH = "run", "pair", "aside", "true_before", "true_after"
COVERED = 0.9
EDGE = 0.01  # shares are kept this far from 0 and 1 where their logarithms of odds are taken
BEYOND = 0.25  # of the range that a witness has in the study: a run farther beyond it is unlike them all
WIDER = 2.0  # is the interval of such a run

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What is believed of a run, shares 0..1.

    Attributes:
        accuracy: of the adapted classifier on the target.
        interval: where it lies, in nine of ten runs.
        source_only: of the source classifier on the target.
        source_only_interval: where that lies.
        gain: the first less the third, which is told better from both at once than from either.
        unlike: whether the run is unlike those of the study; its intervals are wider then.
    """

    accuracy: float
    interval: tuple[float, float]
    source_only: float
    source_only_interval: tuple[float, float]
    gain: float
    unlike: bool

    @property
    def recommended(self) -> str:
        """``"adapted"``, or ``"source"`` where adaptation seems to have done harm."""
        return "adapted" if self.gain >= 0 else "source"

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        change = "gained" if self.gain >= 0 else "cost"
        return f"by all that can be told without labels, adaptation {change} {abs(100 * self.gain):.1f} points of accuracy"


class Regression:
    """A truth (N,) on witnesses (N, W), by Bayesian ridge regression (MacKay 1992) of standardised columns.

    Attributes:
        widen: what a standard deviation is multiplied by to cover the truth in `COVERED` of the runs of left-out pairs.
        deviations: those runs' standard deviations (N,).
        left_out: what was predicted of them (N,).
    """

    def __init__(self, witnesses: Numbers, truth: Numbers, pairs: NDArray[np.str_], sampling: Numbers) -> None:
        self.left_out, self.deviations = np.zeros(len(truth)), np.zeros(len(truth))
        for pair in np.unique(pairs):
            there = pairs == pair
            self._fit(witnesses[~there], truth[~there])
            self.left_out[there], self.deviations[there] = self.predict(witnesses[there], sampling[there])
        self.widen = float(np.quantile(abs(truth - self.left_out) / self.deviations, COVERED, method="higher"))
        self._fit(witnesses, truth)

    def _fit(self, witnesses: Numbers, truth: Numbers) -> None:
        self.scaler = StandardScaler().fit(witnesses)
        self.model = BayesianRidge().fit(self.scaler.transform(witnesses), truth)

    def predict(self, witnesses: Numbers, sampling: Numbers) -> tuple[Numbers, Numbers]:
        """The mean (n,) and the standard deviation (n,), which the variance from `sampling` (n,) is part of."""
        mean, deviation = self.model.predict(self.scaler.transform(witnesses), return_std=True)
        return mean, np.sqrt(deviation**2 + sampling)


class Study:
    """The runs of a table, and what they teach."""

    def __init__(self, table: Path = TABLE) -> None:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.names = [name for name in rows[0] if name not in TRUTH]
        self.pairs = np.array([row["pair"] for row in rows])
        before, after = (np.array([float(row[name]) for row in rows]) for name in ("true_before", "true_after"))
        self.before, self.after = before, after
        found = [{name: float(row[name]) for name in self.names} for row in rows]
        odds, raw, sampling = (np.stack(parts) for parts in zip(*map(self._columns, found), strict=True))
        self.lowest, self.highest = raw.min(0), raw.max(0)
        self.of_adapted = Regression(odds, log_odds(after), self.pairs, sampling)
        self.of_source = Regression(odds, log_odds(before), self.pairs, sampling)
        self.of_gain = Regression(raw, after - before, self.pairs, np.zeros_like(sampling))

    def _columns(self, found: Mapping[str, float]) -> tuple[Numbers, Numbers, Numbers]:
        """A run's witnesses with shares as logarithms of odds, and as they are; the variance that comes of few images."""
        values = np.array([found[name] for name in self.names])
        shares = np.array([not name.startswith("log_") for name in self.names])
        even = np.where(shares, log_odds(values), values)
        right = np.clip(found["agreement"], 0.05, 0.95)
        return even, values, np.array(1 / (np.exp(found["log_images"]) * right * (1 - right)))

    def judge(self, found: Mapping[str, float]) -> Verdict:
        """What follows from a run's witnesses, by name."""
        odds, raw, sampling = (part[None] for part in self._columns(found))
        slack = BEYOND * (self.highest - self.lowest)
        unlike = bool(((raw < self.lowest - slack) | (raw > self.highest + slack)).any())
        figures: list[tuple[float, tuple[float, float]]] = []
        for regression in (self.of_adapted, self.of_source):
            (mean,), (deviation,) = regression.predict(odds, sampling)
            reach = regression.widen * deviation * (WIDER if unlike else 1)
            low, middle, high = share(mean + reach * np.array([-1, 0, 1])).tolist()
            figures.append((middle, (low, high)))
        (gain,), _ = self.of_gain.predict(raw, np.zeros(1))
        return Verdict(*figures[0], *figures[1], float(gain), unlike)


def log_odds(shares: Numbers) -> Numbers:
    """ln p / (1 - p) of shares 0..1, which are kept `EDGE` away from both ends."""
    clipped = np.clip(shares, EDGE, 1 - EDGE)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


def share(odds: Numbers) -> Numbers:
    """The shares 0..1 whose `log_odds` these are."""
    return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)


@lru_cache(1)
def shipped() -> Study:
    """The study that comes with the package."""
    return Study()
