"""A run, from data to report. `carry_out` is its story; its stages are in `uda.training.stages`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from uda import ranks
from uda.console import Display, duration
from uda.data.domain import Pair, count_kept_aside
from uda.data.load import find_frame, load_pair
from uda.data.names import data_roots, is_path, join_roots, split_roots
from uda.errors import UserError
from uda.evaluation.diagnostics import Diagnostic
from uda.evaluation.evaluator import Evaluator
from uda.models import GIVEN_IN_PYTHON
from uda.paths import outside
from uda.recipe.load import resolve
from uda.recipe.schema import Recipe
from uda.report.page import Material, material_of, write_report
from uda.report.tables import result_table
from uda.runs.build import Networks, build_checked, channels_taken, check_files, naming_classes, published_frame
from uda.runs.cache import writable_cache
from uda.runs.environment import Environment, check_alike, compare, describe_environment
from uda.runs.folder import RESULT, RUN, UNREADABLE, RunFolder, check_free, default_path, open_folder, shared_folder
from uda.runs.memory import check_memory
from uda.runs.run import Run
from uda.runtime import Runtime, choose_runtime, scoped_seed, training
from uda.text import counted
from uda.training.check import remarks
from uda.training.deeper import go_deeper
from uda.training.loop import Checkpoints, Loop, Metrics, Observer, Progress, Signals, resumable
from uda.training.stages import Job, adapt, keep_inputs, keep_target, labelled_images, measure, predict_last, train_source
from uda.training.trackers import check_trackers, trackers_of


def fit(
    recipe: str | Path | Recipe,
    *,
    model: nn.Module | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    display: Display | None = None,
    report: bool = True,
    cache: bool = True,
    track: Sequence[str] = (),
    observers: Sequence[Observer] = (),
    overrides: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Runs a recipe from data to report.

    Args:
        recipe: a shipped recipe's name, a path to a TOML file, or a `Recipe`.
        model: a classifier that is already trained on the source, in place of the recipe's; it is left as it is. Its own
            preprocessing is ``classifier__mean`` and ``classifier__std`` (left out: images in 0..1).
        out: the run folder; left out, ``runs/RECIPE-METHOD-SEED-TIME``.
        data_root: where data sets lie, one folder or several as in PATH; left out, $UDA_DATA, else one in the user's cache.
        device: ``"auto"`` or a torch device.
        precision: ``"auto"`` (a probe decides), ``"bf16"`` or ``"fp32"``.
        display: where to say how it goes; left out, nothing is said.
        report: whether to write ``report.html``, which takes some seconds; ``uda report RUN`` can do it later.
        cache: whether what earlier runs have kept is read (features of frozen bodies, source classifiers), and anything is kept.
        track: trackers that are told how it goes: any of ``"tensorboard"``, ``"mlflow"`` and ``"wandb"``.
        observers: are told of each stage and step, beside those that show progress, log and save.
        overrides: dotted keys of the recipe, such as ``{"method.feature_norm": "l2"}``.
        settings: the same as keywords, two underscores for the dot: ``seed=1, method__feature_norm="l2"``.

    Raises:
        UserError: for wrong input, in one line that says what to do.
        Interrupted: after SIGINT or SIGTERM; the run folder then holds all that `resume` needs.
    """
    ranks.join()
    check_trackers(track)
    if out is not None and ranks.first():
        check_free(Path(out))
    keywords = {key.replace("__", "."): value for key, value in settings.items()}
    display = own_display(display)
    wanted = asked_for(recipe, model, {**(overrides or {}), **keywords}, display)
    if wanted.classifies:
        check_files(wanted.classifier)
    roots = data_roots(data_root)
    runtime = choose_runtime(device, precision)
    network = wanted.classifier
    taken = channels_taken(wanted, model)
    wanted = wanted.with_frame(find_frame(wanted.data, roots, wanted.classifies, published_frame(network), taken))
    with runtime.computing(), ranks.in_turn():
        pair = load_pair(wanted.data, roots, display, wanted.classifies, look=not wanted.classifier.freezes)
    run = start(
        wanted, pair, runtime, display,
        out=out, roots=roots, model=model, report=report, cache=cache, track=track, observers=observers,
    )  # fmt: skip
    return _deeper(run, display, model, report, observers)


def own_display(display: Display | None) -> Display:
    """What says how it goes: of several processes, the first one's alone does."""
    return display if display is not None and ranks.first() else Display(quiet=True)


def asked_for(recipe: str | Path | Recipe, model: nn.Module | None, overrides: dict[str, Any], display: Display) -> Recipe:
    """The recipe with its overrides; where a `model` is given, with that in place of its source classifier."""
    if model is not None and not isinstance(model, nn.Module):
        raise UserError(f"model is {type(model).__name__}, and no torch.nn.Module; give a classifier, or leave it out")
    given = {"classifier.backbone": GIVEN_IN_PYTHON, "classifier.steps": 0} if model is not None else {}
    resolved = resolve(recipe, {**given, **overrides})
    for note in resolved.notes:
        display.say(note)
    return resolved.recipe


def start(
    recipe: Recipe,
    pair: Pair,
    runtime: Runtime,
    display: Display,
    *,
    out: str | Path | None,
    roots: Sequence[Path] = (),
    model: nn.Module | None = None,
    report: bool = True,
    cache: bool = True,
    track: Sequence[str] = (),
    observers: Sequence[Observer] = (),
) -> Run:
    """Runs a checked recipe, whose frame is settled, on data at hand, in a new run folder."""
    ranks.join()
    with scoped_seed(recipe.seed), runtime.computing(), training():
        check_data(recipe, pair)
        with naming_classes(pair.source.classes, pair.source.note):
            networks = build_checked(recipe, len(pair.source.classes), runtime, model)
        check_memory(recipe, networks, runtime)
        environment = {
            **describe_environment(recipe, pair, runtime, join_roots(roots), cache),
            "track": list(dict.fromkeys(track)),
        }
        check_alike(environment)
        # The folder is made last: what is wrong with the input leaves nothing behind.
        path = ranks.agreed(Path(out) if out is not None else default_path(recipe, str(recipe.seed)))
        check_outside(path, recipe)
        folder = shared_folder(path, recipe, environment, named=out is not None)
        with folder.locked(), resumable(folder.path):
            carry_out(new_job(folder, recipe, pair, runtime, display, networks, observers), report)
    return Run(folder.path, model, device=str(runtime.device))


def resume(
    run: str | Path,
    display: Display | None = None,
    model: nn.Module | None = None,
    report: bool = True,
    observers: Sequence[Observer] = (),
    trust: bool = False,
) -> Run:
    """Continues an interrupted run to the end it would have had; a finished one is returned as it is.

    Args:
        run: the run folder.
        display: where to say how it goes; left out, nothing is said.
        model: the network, where the run was given one in Python.
        report: whether to write ``report.html``.
        observers: as in `fit`.
        trust: as in `Run`.

    Raises:
        UserError: where `run` is not a run folder, its files are damaged, another process writes to it, or the images, their
            labels or the recipe have changed.
    """
    ranks.join()
    folder, display = open_folder(Path(run), trust=trust), own_display(display)
    if ranks.agreed(folder.is_finished()):
        finished = Run(folder.path, model)
        display.say(f"{folder.path} is finished; nothing to do")
        return _deeper(finished, display, model, report, observers)
    with folder.locked(), resumable(folder.path):
        if ranks.agreed((folder.path / RESULT).exists()):
            if ranks.first():
                environment = folder.read_environment()
                check_trackers(environment.track)
                close(folder, material_of(Run(folder.path)), report, display, trackers_of(folder, environment, display))
            ranks.wait()
        else:
            _go_on(folder, display, model, report, observers)
    finished = Run(folder.path, model, device=folder.read_environment().device)
    return _deeper(finished, display, model, report, observers)


def _deeper(run: Run, display: Display, model: nn.Module | None, report: bool, observers: Sequence[Observer]) -> Run:
    """What a finished run goes on with, where its recipe asks for more (see `uda.training.deeper.go_deeper`)."""
    if not run.recipe.classifier.deeper or not run.recipe.classifies:
        return run
    keys = "data_root", "device", "precision", "cache", "track"
    where = {key: run.environment[key] for key in keys}

    def begin(recipe: Recipe, out: Path) -> Run:
        if ranks.agreed(all((out / name).exists() for name in RUN)):
            return resume(out, display, model, report, observers)
        return fit(recipe, model=model, out=out, display=display, report=report, observers=observers, **where)

    return go_deeper(run, begin, display, model)


def _go_on(folder: RunFolder, display: Display, model: nn.Module | None, report: bool, observers: Sequence[Observer]) -> None:
    environment, recipe = folder.read_environment(), folder.recipe
    check_trackers(environment.track)
    folder.ask_for_moved_images()
    try:
        runtime = replace(choose_runtime(environment.device, environment.precision), why="as the run began")
    except UserError as error:
        raise UserError(f"the run began on {environment.device}, which is not here; go on where it is, or fit anew") from error
    with runtime.computing(), ranks.in_turn():
        roots, look = split_roots(environment.data_root), not recipe.classifier.freezes
        pair = load_pair(recipe.data, roots, display, recipe.classifies, look)
    now = describe_environment(recipe, pair, runtime, environment.data_root, environment.cache)
    for change in compare(folder.path, environment, Environment(format=environment.format, **now)):
        display.say(f"note: {change}; figures may differ in the last bits from those of an uninterrupted run")
    if (began := environment.processes) != (there := ranks.world_size()):
        display.say(f"note: {began} processes began the run and {there} go on with it; other augmentations are drawn from here")
    with scoped_seed(recipe.seed), runtime.computing(), training():
        # What is trained already is read from the folder, wherever the weights that it began with are now.
        begin = not folder.has_weights("source")
        networks = build_checked(recipe, len(pair.source.classes), runtime, model, begin)
        carry_out(new_job(folder, recipe, pair, runtime, display, networks, observers), report)


def check_data(recipe: Recipe, pair: Pair) -> None:
    """Whether the images are such as the recipe needs.

    Raises:
        UserError: where they are not.
    """
    labelled_images(recipe, pair)
    for name, size in (
        ("classifier.batch", recipe.classifier.batch),
        ("training.batch", recipe.training.batch),
        ("training.target_batch", recipe.training.target_batch or recipe.training.batch),
        ("method.drawn_batch", getattr(recipe.method, "drawn_batch", None) or recipe.training.batch),
    ):
        ranks.share(size, name)
    if recipe.classifies and len(pair.source.classes) < 2:
        raise UserError(f"{pair.source.name} has one class alone, {pair.source.classes[0]}; give images of another one, too")
    if recipe.data.paired_test and (pair.target_test is None or len(pair.source_test) != len(pair.target_test)):
        raise UserError("data.paired_test: the test images of both domains are not as many; give pairs, in one order")


def check_outside(out: Path, recipe: Recipe) -> None:
    """Whether a run folder lies in none of the folders that its recipe's images are in.

    Raises:
        UserError: where the run's pictures would be taken for images when it is gone on with.
    """
    data = recipe.data
    named = (name for name in (data.source, data.target, data.source_test, data.target_test) if name and is_path(name))
    outside(out, *map(Path, named))


def new_job(
    folder: RunFolder,
    recipe: Recipe,
    pair: Pair,
    runtime: Runtime,
    display: Display,
    networks: Networks | None,
    observers: Sequence[Observer],
) -> Job:
    """What the stages of a run share, at its beginning or where it goes on."""
    metrics, pair = Metrics(folder), pair.to(runtime.device)
    own = Progress(display), metrics, Checkpoints(folder), Signals()
    environment, evaluator = folder.read_environment(), Evaluator(pair, runtime, recipe.kept_aside)
    trackers = trackers_of(folder, environment, display)
    watching = [*own, *trackers, *observers] if ranks.first() else own
    loop = Loop(folder, recipe.training.log_every, watching, environment.run)
    cache = writable_cache(environment.cache, display.say)
    return Job(folder, recipe, pair, runtime, display, loop, metrics, evaluator, environment, cache, networks)


def carry_out(job: Job, report: bool) -> None:
    """The story of a run, whether it begins or goes on. Of several processes all train, and the first does the rest."""
    introduce(job)
    job = keep_inputs(job)
    say_unreadable(job)
    source = train_source(job)
    job = keep_target(job)
    method = adapt(job, source)
    after = predict_last(job, method)
    if ranks.first():
        with ranks.alone():
            job.display.say("  figures and report ...")
            material = measure(job, source, method, after)
            finish(job, material, report)
    ranks.wait()


def introduce(job: Job) -> None:
    """Says what is going to run, on what, with which images."""
    recipe, pair, say = job.recipe, job.pair, job.display.say
    say(f"{recipe.name}: {recipe.method.name}, seed {recipe.seed}, into {job.folder.path}")
    say(f"  on {job.runtime}")
    kinds = ("labelled ", " without labels") if recipe.classifies else ("", "")
    say(f"  source {pair.source.name}: {counted(len(pair.source), f'{kinds[0]}image')} ({pair.source.note})")
    say(f"  target {pair.target.name}: {counted(len(pair.target), 'image')}{kinds[1]} ({pair.target.note})")
    for remark in remarks(recipe, len(pair.target)):
        say(f"  note: {remark}")
    if aside := count_kept_aside(len(pair.target), recipe.kept_aside):
        say(f"  {aside:,} of the target's images are kept aside: no method trains on them; label-free figures read them alone")
    if pair.target_test is not None and pair.target_test.note != pair.target.note:
        say(f"  tested on {pair.target_test.name}: {counted(len(pair.target_test), 'image')} ({pair.target_test.note})")
    if pair.target_unknown is not None:
        say(f"  and on {counted(len(pair.target_unknown), 'image')} of unknown classes, for which no class is the right one")
    if job.classifier is not None and job.classifier.parts:
        say(f"  classifier {recipe.classifier.backbone}: {job.classifier.parts}")
    if job.classifier is not None and job.classifier.start:
        say(f"  it starts from {job.classifier.start}")


def say_unreadable(job: Job) -> None:
    """Says how many images are left out, and writes down which."""
    pair, say = job.pair, job.display.say
    splits = pair.source, pair.source_test, pair.target, pair.target_test, pair.target_unknown
    unreadable = list(dict.fromkeys(line for part in splits if part for line in part.unreadable))  # some are of one folder
    if unreadable:
        job.folder.write_unreadable(unreadable)
        say(f"  {counted(len(unreadable), 'image')} left out that cannot be read; see {job.folder.path / UNREADABLE}")


def finish(job: Job, material: Material, report: bool) -> None:
    """Writes the result and the report."""
    material.result["files"] = job.folder.digests()
    job.folder.write_json(RESULT, material.result)
    close(job.folder, material, report, job.display, job.loop.observers)


def close(folder: RunFolder, material: Material, report: bool, display: Display, observers: Sequence[Observer]) -> None:
    """What is left to do where there is a result: the report, and to say what came out. The checkpoint goes last.

    Trackers hear of the result after the report is there. Until they have been told, one can resume.
    """
    result = material.result
    if report:
        write_report(material, folder.path / "report.html")
    for observer in observers:
        observer.result(result)
    folder.delete_checkpoint()
    display.show(result_table(result))
    for warning in result.get("warnings", []):
        display.say(f"warning: {Diagnostic(**warning)}")
    display.say(f"{duration(result['seconds']['total'])}; everything is in {folder.path}")
