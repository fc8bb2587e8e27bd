"""Runs side by side: mean and spread over seeds, bootstrap intervals, and a paired test between two ways of doing it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uda.errors import UserError
from uda.evaluation.estimation import agreement
from uda.evaluation.outputs import Outputs
from uda.recipe.load import load_recipe
from uda.runs.folder import SEEDS, RunFolder, agree
from uda.runs.run import Run

DRAWS = 2000
ACCURACIES = ("source_only", "last", "selected", "oracle")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seeds; often one.

    Attributes:
        path: the folder that it was read from.
        runs: finished ones.
    """

    path: Path
    runs: tuple[Run, ...]

    @cached_property
    def outputs(self) -> list[Outputs]:
        """What each run's last classifier says."""
        return [run.outputs() for run in self.runs]

    @cached_property
    def right(self) -> Tensor | None:
        """Whether each run's last classifier is right on each target test image: bool (runs, N); None without labels."""
        tests = [outputs.test for outputs in self.outputs if outputs.test is not None]
        if len(tests) < len(self.runs):
            return None
        if not all(torch.equal(labels, tests[0][1]) for _, labels in tests):
            raise UserError(f"the seeds of {self.path} were tested on different images; fit again")
        return torch.stack([logits.argmax(1) == labels for logits, labels in tests])

    def tested_as(self, other: Group) -> bool:
        """Whether the target test images are another group's: they go by the same name, or have the same content."""
        runs = (*self.runs, *other.runs)
        names = {(run.recipe.data.target, run.recipe.data.target_test) for run in runs}
        return len(names) == 1 or len({run.environment["data"].get("target_test images") for run in runs}) == 1

    @property
    def labels(self) -> Tensor | None:
        """The labels of the target test images (N,)."""
        return self.outputs[0].test_labels


def open_group(path: Path, trust: bool = False) -> Group:
    """A run folder, or a folder of seeds as ``uda fit --seeds`` leaves it; `trust` as in `Run`.

    Raises:
        UserError: where it is neither, or a run in it is not finished.
    """
    if not is_group(path):
        runs = [Run(path, trust=trust)]
    else:
        runs = [Run(folder, trust=trust) for folder in seed_folders(path)]
        agree(path / SEEDS[0], trust)
        asked = load_recipe(path / SEEDS[0])
        for run in runs:
            own = run.recipe
            if run.path.name != f"seed-{own.seed}" or (own.method, own.training) != (asked.method, asked.training):
                raise UserError(f"{run.path} is not the run that {path} has begun there; put that back, or fit again")
    for run in runs:
        if not run.recipe.classifies:
            raise UserError(f"{run.path} translates images and has no accuracy; compare runs that classify")
    return Group(path, tuple(runs))


def is_group(path: Path) -> bool:
    """Whether a folder is one of seeds."""
    return (path / SEEDS[1]).is_file()


def seed_folders(path: Path) -> list[Path]:
    """The run folders of a folder of seeds, in the seeds' order, whether they are there yet or not."""
    return [path / f"seed-{seed}" for seed in RunFolder.open(path, SEEDS).read_asked().seeds]


def bootstrap(right: Tensor) -> tuple[float, float]:
    """Where 95 % of the accuracies fall when seeds and test images are drawn anew: right (runs, N), bool.

    With one run it covers the images alone. Source: Efron 1979; two-level resampling as in Davison and Hinkley 1997, section 3.8.
    """
    runs, count = right.shape
    generator = torch.Generator().manual_seed(0)
    values = right.float()
    found = []
    for _ in range(DRAWS):
        seeds = torch.randint(runs, (runs,), generator=generator)
        # As many times as an image is drawn, it counts.
        times = torch.bincount(torch.randint(count, (count,), generator=generator), minlength=count).float()
        found.append((values[seeds].mean(0) @ times) / count)
    low, high = torch.stack(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


@dataclass(frozen=True)
class Difference:
    """How much better one group is than another on the same test images.

    Attributes:
        mean: of accuracies, second less first.
        interval: 95 %, by bootstrap over the images.
        p: of a paired test: the share of random swaps of the two, image by image, that differ at least as much.
    """

    mean: float
    interval: tuple[float, float]
    p: float


def paired(first: Tensor, second: Tensor) -> Difference:
    """Compares two groups image by image: bool (runs, N) each, of the same N images; seeds are averaged.

    A sign-flip (permutation) test; with one run on each side it asks what McNemar's test asks. It covers the test images, not
    the seeds: with few seeds, look at their spread too. Sources: Fisher 1935; Dietterich 1998 on what such a test can tell.
    """
    differences = second.float().mean(0) - first.float().mean(0)
    changed = differences[differences != 0]  # images on which the two agree cannot tell them apart
    count, mean = len(differences), float(differences.mean())
    if not len(changed):
        return Difference(0.0, (0.0, 0.0), 1.0)
    generator = torch.Generator().manual_seed(0)
    extreme, found = 1, []
    for _ in range(DRAWS):
        signs = torch.randint(2, (len(changed),), generator=generator) * 2 - 1
        extreme += abs(float((changed * signs).sum()) / count) >= abs(mean) - 1e-12
        # The images that agree are drawn too: a binomial share of the draws falls on the others.
        drawn = int(torch.binomial(torch.tensor(float(count)), torch.tensor(len(changed) / count), generator=generator))
        found.append(float(changed[torch.randint(len(changed), (drawn,), generator=generator)].sum()) / count)
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return Difference(mean, (low, high), extreme / (DRAWS + 1))


def summary(group: Group) -> dict[str, Any]:
    """Mean, lowest and highest of each figure over a group's seeds, and the bootstrap interval of ``last``.

    ``agreement`` is that of each two seeds on target images: an estimate of their accuracy without target labels. ``adapted`` is
    in how many of the runs the adapted classifier is recommended; ``checked``, where there was a `uda check`, what that has said.
    Intervals of these hold those of all the runs.
    """
    results = [run.result for run in group.runs]
    found: dict[str, Any] = {
        "name": group.path.name,
        "recipe": results[0]["recipe"],
        "method": results[0]["method"],
        "seeds": [result["seed"] for result in results],
        "estimated": _spread([result["estimated"]["accuracy"] for result in results]),
        "estimated_interval": _around([result["estimated"]["interval"] for result in results]),
        "adapted": sum(result.get("recommended", "adapted") == "adapted" for result in results),
        "seconds": _spread([result["seconds"]["total"] for result in results]),
        "warnings": sum(bool(result["warnings"]) for result in results),
    }
    if len(results) > 1:
        answers = [outputs.target_logits for outputs in group.outputs]
        if len({len(logits) for logits in answers}) > 1:
            raise UserError(f"the seeds of {group.path} have looked at different images; fit again")
        found["agreement"] = _spread([agreement(first, second) for first, second in combinations(answers, 2)])
    if checked := [run.checked for run in group.runs if run.checked is not None]:
        found["checked"] = statistics.mean(each["accuracy"]["adapted"] for each in checked)
        found["checked_interval"] = _around([each["interval"]["adapted"] for each in checked])
    if group.right is not None:
        found["interval"] = bootstrap(group.right)
        for name in ACCURACIES:
            values = [result["accuracy"][name] for result in results]
            found[name] = _spread([value for value in values if value is not None])
        found["calibration_error"] = _spread([result["calibration_error"]["last"] for result in results])
    return found


def _around(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The interval that holds all of these."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.mean(values), "lowest": min(values), "highest": max(values)}


def compare(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The summary of each group; all but the first have ``difference`` to the first, where both were tested on the same images.

    Raises:
        UserError: for fewer than one group, or for groups that name other classes.
    """
    if not groups:
        raise UserError("give at least one run folder to compare")
    classes = {group.runs[0].classes for group in groups}
    if len(classes) > 1:
        raise UserError("these runs tell different classes apart; compare runs of one problem")
    found = [summary(group) for group in groups]
    first, labels = groups[0].right, groups[0].labels
    for group, figures in zip(groups[1:], found[1:], strict=True):
        right, own = group.right, group.labels
        same = group.tested_as(groups[0]) and labels is not None and own is not None and torch.equal(labels, own)
        if same and first is not None and right is not None:
            figures["difference"] = vars(paired(first, right))
    return found
