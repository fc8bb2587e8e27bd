"""Many runs: the combinations of a spec, side by side. What is known of them lies on the disk alone, so a sweep can end any time.

Halving: all combinations begin. At steps/keep^R, .., steps/keep, their label-free scores rank them, those of one problem and
seed together, and the best one in `keep` goes on from its checkpoint. Source: Jamieson and Talwalkar 2016 (successive halving),
with label-free scores in the place of a validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from uda import atomic
from uda.cluster.engine import cluster, completed
from uda.cluster.progress import Standing
from uda.cluster.spec import Combination, SweepSpec, problem, stops
from uda.cluster.trials import Ended, Trial, run_trial, sources_first
from uda.console import Display
from uda.data.names import data_roots, join_roots
from uda.errors import UserError
from uda.evaluation.selection import mean_ranks
from uda.recipe.load import load_recipe
from uda.report.compare import Group, compare
from uda.report.page import write_comparison
from uda.runs.folder import FORMAT, SEEDS, RunFolder
from uda.runs.run import Run
from uda.runtime import choose_runtime
from uda.training.check import check

LOCK = "sweep.lock"


def sweep(
    spec: SweepSpec,
    found: list[Combination],
    out: Path,
    display: Display,
    where: Mapping[str, str | None],
    address: str | None = None,
) -> list[Path]:
    """Runs what is left of a sweep; the trials that are finished in `out` stay as they are.

    Args:
        spec: what was asked for.
        found: its `combinations`.
        out: a folder that all nodes share: a folder for each combination, with a run folder for each seed, and ``results.csv``.
        display: shows one table while it goes on, and names the pages.
        where: ``data_root``, ``device`` and ``precision`` as in `uda.fit`, the same on every node.
        address: of a Ray cluster; left out, this machine is one.

    Returns:
        The comparison pages, one for each problem of which a combination is finished.

    Raises:
        UserError: for wrong input, before anything begins; and where a trial has failed, after all others have ended.
    """
    where = {**where, "data_root": join_roots(data_roots(where["data_root"]))}
    trials = sources_first([Trial(one, seed, out.absolute()) for one in found for seed in spec.seeds])
    with _alone(out):
        for one in found:
            _prepare(out / one.name, one, spec.seeds, where)
        with Standing(out, trials, display) as standing:
            if not all(trial.is_done for trial in trials):
                _run(spec, trials, standing, address)
        pages = _compare(found, spec.seeds, out)
    for page in pages:
        display.say(f"see {page}")
    if standing.failed:
        trial, note = next(iter(standing.failed.items()))
        raise UserError(
            f"{len(standing.failed)} of {len(trials)} trials failed, for example {trial.path}: {note}; mend that, then run the "
            "same command again, which runs these alone"
        )
    return pages


def check_all(found: list[Combination], where: Mapping[str, str | None], address: str | None) -> dict[str, str | None]:
    """Checks every combination, before any runs; returns `where`, in which this machine's precision is decided.

    A probe decides ``"auto"`` once for all trials, since those that run side by side would disturb each other's. The nodes of a
    cluster are not this machine, and probe for themselves.

    Raises:
        UserError: for the first combination that is wrong, with its name.
    """
    here = {"device": "cpu", "precision": "fp32"} if address else {"device": where["device"], "precision": where["precision"]}
    runtime = choose_runtime(str(here["device"]), str(here["precision"]))
    for one in found:
        try:
            list(check(one.recipe, where["data_root"], str(runtime.device), runtime.precision))
        except UserError as error:
            raise UserError(f"{one.name}: {error}") from error
    return {**where} if address else {**where, "precision": runtime.precision}


def _run(spec: SweepSpec, trials: list[Trial], standing: Standing, address: str | None) -> None:
    """Runs what is left, part by part."""
    with cluster(address, spec.cpus, spec.gpus) as takes:
        for until, going in _rungs(spec, trials, standing):
            left = [trial for trial in going if not _has_come(trial, until)]
            tasks = [(trial.group, trial.seed, until, spec.reports, spec.cpus) for trial in left]
            for number, ended in completed(run_trial, tasks, takes, _lost, standing.show):
                standing.end(left[number], ended)


def _lost(why: str) -> Ended:
    """How a trial ended whose process has died again and again."""
    return Ended("failed", why)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds the folder of a sweep against another driver."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / LOCK).touch()
        with atomic.lock(out / LOCK) as free:
            if not free:
                raise UserError(f"another sweep writes to {out}; wait until it has ended, or stop it")
            atomic.sweep(out)
            yield
    except OSError as error:
        raise UserError(f"cannot write to {error.filename or out} ({error.strerror}); give another --out") from error


def _prepare(group: Path, one: Combination, seeds: tuple[int, ...], where: Mapping[str, str | None]) -> None:
    """Makes the folder of a combination, or checks that the one that is there is the same combination's."""
    if not (group / SEEDS[0]).exists():
        RunFolder.create(group, one.recipe, {"seeds": list(seeds), **where}, SEEDS)
        return
    atomic.sweep(group)
    folder = RunFolder.open(group, SEEDS, trust=True)
    if load_recipe(group / SEEDS[0]) != one.recipe:
        raise UserError(f"{group} holds runs of other settings than {one.name} has now; give another --out")
    asked = folder.read_asked()
    for key in ("device", "data_root"):
        if (began := getattr(asked, key)) != where[key]:
            raise UserError(f"{group} was begun with --{key.replace('_', '-')} {began}; give the same, or another --out")
    if more := [seed for seed in seeds if seed not in asked.seeds]:
        folder.write_json(SEEDS[1], {**asked.model_dump(), "format": FORMAT, "seeds": asked.seeds + more})


def _has_come(trial: Trial, until: int | None) -> bool:
    """Whether a trial is finished, or has been evaluated at the step that it is to come to."""
    return trial.is_done or (until is not None and trial.path.is_dir() and trial.scores(until) is not None)


def _rungs(spec: SweepSpec, trials: list[Trial], standing: Standing) -> Iterator[tuple[int | None, list[Trial]]]:
    """What is to run, one part after another: the step to come to, None for the end, and the trials."""
    going = trials
    for until in stops(spec, list(dict.fromkeys(trial.combination for trial in trials))):
        yield until, going
        going = [trial for same in _by_problem(going).values() for trial in _best(same, until, spec.keep)]
        standing.stop(set(trials) - set(going))
    yield None, going


def _by_problem(trials: list[Trial]) -> dict[str, dict[str, list[Trial]]]:
    """By problem, then by combination, the trials of its seeds."""
    found: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        one = trial.combination
        found.setdefault(problem(one.recipe), {}).setdefault(one.name, []).append(trial)
    return found


def _best(same: dict[str, list[Trial]], until: int, keep: int) -> list[Trial]:
    """Of the combinations of one problem, the trials of the best one in `keep`: by the mean over seeds of their ranks.

    A combination with a trial that failed is none of the best.
    """
    scores = {name: [trial.scores(until) for trial in sorted(group, key=lambda t: t.seed)] for name, group in same.items()}
    whole = {name: [one for one in of_seeds if one is not None] for name, of_seeds in scores.items() if None not in of_seeds}
    if not whole:
        return []
    by_seed = [mean_ranks(list(of_all)) for of_all in zip(*whole.values(), strict=True)]
    ranks = dict(zip(whole, (sum(of_one) for of_one in zip(*by_seed, strict=True)), strict=True))
    best = sorted(whole, key=lambda name: -ranks[name])[: math.ceil(len(same) / keep)]
    return [trial for name in best for trial in same[name]]


def _compare(found: list[Combination], seeds: tuple[int, ...], out: Path) -> list[Path]:
    """Writes a page about the finished combinations of each problem, the first of which is the measure of the others."""
    pages: dict[str, list[Combination]] = {}
    for one in found:
        if all(Trial(one, seed, out).is_done for seed in seeds):
            pages.setdefault(problem(one.recipe), []).append(one)
    written = []
    for number, same in enumerate(pages.values()):
        groups = [Group(out / one.name, tuple(Run(Trial(one, seed, out).path, trust=True) for seed in seeds)) for one in same]
        name = "comparison.html" if len(pages) == 1 else f"comparison-{number + 1}.html"
        written.append(write_comparison(compare(groups), out / name))
    return written
