"""The whole story of a run: data -> source classifier -> method steps -> selection -> evaluation -> run folder."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uda.console import Display, duration
from uda.data.augment import to_float
from uda.data.batches import Batches
from uda.data.domain import LabelledDomain, Pair
from uda.data.files import read
from uda.data.load import data_root as find_data_root
from uda.data.load import load_pair
from uda.errors import UserError
from uda.evaluation.diagnostics import Diagnostic
from uda.evaluation.evaluator import Evaluator
from uda.evaluation.results import describe, figures, looks_of, select
from uda.evaluation.translation import judge
from uda.methods import find_method, source_only
from uda.methods.translating import Translating
from uda.models import GIVEN_IN_PYTHON
from uda.models.custom import whole_state_dict
from uda.models.layers import SOURCE, TARGET
from uda.recipe.load import resolve
from uda.recipe.schema import Recipe
from uda.report.grids import draw_translations
from uda.report.page import write_report
from uda.report.tables import result_table
from uda.runs.build import build_method, build_source_classifier, build_translation
from uda.runs.environment import versions
from uda.runs.folder import RunFolder, default_path
from uda.runs.run import Run
from uda.runtime import Runtime, choose_runtime, machine, seed_everything
from uda.training.check import check_networks
from uda.training.loop import Look, Loop

SOURCE_STAGE, REFINING_STAGE, ADAPTATION_STAGE = "source classifier", "refining on the augmented source", "adaptation"


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
    overrides: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Runs a recipe from data to report.

    Args:
        recipe: a shipped recipe's name, a path to a TOML file, or a `Recipe`.
        model: a classifier that is already trained on the source, in place of the recipe's; it is left as it is. Its own
            preprocessing is ``classifier__mean`` and ``classifier__std`` (left out: images in 0..1).
        out: the run folder; left out, ``runs/RECIPE-METHOD-SEED-TIME``.
        data_root: where data sets lie; left out, $UDA_DATA, else a folder in the user's cache.
        device: ``"auto"`` or a torch device.
        precision: ``"auto"`` (a probe decides), ``"bf16"`` or ``"fp32"``.
        display: who tells the user; left out, nobody.
        report: whether to write ``report.html``, which takes some seconds; `uda.report.page.write_report` can do it later.
        overrides: dotted keys of the recipe, such as ``{"method.feature_norm": "l2"}``.
        settings: the same as keywords, two underscores for the dot: ``seed=1, method__feature_norm="l2"``.

    Raises:
        UserError: for wrong input, in one line that says what to do.
        Interrupted: after SIGINT or SIGTERM; the run folder then holds all that `resume` needs.
    """
    keywords = {key.replace("__", "."): value for key, value in settings.items()}
    display = display or Display(quiet=True)
    wanted = asked_for(recipe, model, {**(overrides or {}), **keywords}, display)
    root = find_data_root(Path(data_root) if data_root is not None else None).absolute()
    runtime = choose_runtime(device, precision)
    pair = load_pair(wanted.data, root, display, wanted.classifies)
    return start(wanted, pair, runtime, display, out=out, data_root=root, model=model, report=report)


def asked_for(recipe: str | Path | Recipe, model: nn.Module | None, overrides: dict[str, Any], display: Display) -> Recipe:
    """The recipe with its overrides; where a `model` is given, with that in place of its source classifier."""
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
    data_root: Path | None = None,
    model: nn.Module | None = None,
    report: bool = True,
) -> Run:
    """Runs a checked recipe on data at hand, in a new run folder."""
    recipe = recipe.with_image_size(*pair.source.images.shape[1:3])
    # Before the folder is made, all that can be wrong is tried: it leaves nothing behind and costs no time.
    check_networks(recipe, len(pair.source.classes), runtime, model)
    if recipe.classifies:
        _read_labels(recipe, pair)
    if recipe.data.paired_test and (pair.target_test is None or len(pair.source_test) != len(pair.target_test)):
        raise UserError("data.paired_test: the test images of both domains are not as many; give pairs, in one order")
    if out is None:
        stem = default_path(recipe, str(recipe.seed))
        out = next(path for path in (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 99))) if not path.exists())
    folder = RunFolder.create(
        Path(out),
        recipe,
        {
            "device": str(runtime.device),
            "precision": runtime.precision,
            "data_root": str(data_root),
            "images": counts(pair),
            "versions": versions(),
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "started": datetime.now().isoformat(timespec="seconds"),
        },
    )
    return _run(folder, recipe, pair, model, runtime, display, report)


def resume(run: str | Path, display: Display | None = None, model: nn.Module | None = None, report: bool = True) -> Run:
    """Continues an interrupted run to the end it would have had; a finished one is returned as it is.

    Args:
        run: the run folder.
        display: who tells the user; left out, nobody.
        model: the network, where the run was given one in Python.
        report: whether to write ``report.html``.

    Raises:
        UserError: where `run` is not a run folder, its files are damaged, or the images have changed in number.
    """
    folder = RunFolder.open(Path(run))
    display = display or Display(quiet=True)
    if (folder.path / "result.json").exists():
        display.say(f"{folder.path} is finished; nothing to do")
        return Run(folder.path, model)
    setting = folder.read_json("environment.json")
    recipe = folder.recipe
    runtime = choose_runtime(setting["device"], setting["precision"])
    pair = load_pair(recipe.data, Path(setting["data_root"]), display, recipe.classifies)
    if counts(pair) != setting["images"]:
        raise UserError(f"the images have changed since {folder.path} began ({setting['images']}, now {counts(pair)}); fit anew")
    return _run(folder, recipe, pair, model, runtime, display, report)


def counts(pair: Pair) -> dict[str, int]:
    """Images in each split."""
    splits = {"source": pair.source, "source_test": pair.source_test, "target": pair.target, "target_test": pair.target_test}
    return {name: len(domain) for name, domain in splits.items() if domain is not None}


def _run(
    folder: RunFolder, recipe: Recipe, pair: Pair, model: nn.Module | None, runtime: Runtime, display: Display, report: bool
) -> Run:
    """Everything from images to figures, in a folder that is made; an interrupted run goes on."""
    began = time.perf_counter()
    display.say(f"{recipe.name}: {recipe.method.name}, seed {recipe.seed}, into {folder.path}")
    display.say(f"  on {runtime}")
    kinds = ("labelled images", "images without labels") if recipe.classifies else ("images", "images")
    for role, domain, kind in zip(("source", "target"), (pair.source, pair.target), kinds, strict=True):
        display.say(f"  {role} {domain.name}: {len(domain):,} {kind} ({domain.note})")
    unreadable = [
        line for part in (pair.source, pair.source_test, pair.target, pair.target_test) if part for line in part.unreadable
    ]
    if unreadable:
        folder.write_text("unreadable.txt", "".join(f"{line}\n" for line in dict.fromkeys(unreadable)))
        display.say(f"  {len(unreadable)} images cannot be read and are left out; see {folder.path / 'unreadable.txt'}")
    pair = pair.to(runtime.device)
    loop = Loop(folder, recipe, display)
    if not recipe.classifies:
        return _translate(loop, pair, runtime, report, began)
    evaluator = Evaluator(pair, runtime)

    # 1. The source classifier: supervised training on the source alone, unless it comes trained.
    wanted, trained = recipe.classifier, folder.has_weights("source")
    comes_trained = wanted.weights is not None or wanted.steps == 0
    given = Path(wanted.weights) if wanted.weights is not None and not trained else None
    seed_everything(recipe.seed)
    classifier = build_source_classifier(recipe, len(pair.source.classes), runtime, model, given)
    if classifier.parts:
        display.say(f"  classifier {wanted.backbone}: {classifier.parts}")

    def train_on_source(stage: str, steps: int) -> None:
        supervised = source_only.Method(wanted.training, classifier, recipe.data.shape, steps, runtime)
        batches = Batches(pair.source, None, wanted.batch, 0, recipe.augment.source, recipe.augment.target, runtime)
        loop.train(stage, supervised, batches, steps)

    if not trained:
        if not comes_trained:
            train_on_source(SOURCE_STAGE, wanted.steps)
        folder.write_weights("source", classifier)
    folder.read_weights("source", classifier)
    source, before = evaluator.on_source(classifier).accuracy, evaluator.see(classifier)
    display.say(
        f"  source classifier: {source:.4f} on {pair.source_test.name}"
        + (f", {before.test.accuracy:.4f} on {pair.target_test.name}" if before.test and pair.target_test else "")
    )
    if source < 1 / len(pair.source.classes) + 0.1:
        display.say(
            "  warning: that is hardly better than guessing; are its preprocessing (classifier.mean, classifier.std, --size) "
            "and the order of its classes (data.classes) right?"
        )
    refined = None
    if comes_trained and wanted.refine_steps and recipe.reads_source:
        if not folder.has_weights("refined"):
            train_on_source(REFINING_STAGE, wanted.refine_steps)
            folder.write_weights("refined", classifier)
        folder.read_weights("refined", classifier)
        refined = evaluator.on_target(classifier)

    # 2. The method: it is handed the target without its labels.
    seed_everything(recipe.seed + 1)
    method = build_method(recipe, classifier, runtime)
    unlabelled = pair.target.without_labels()
    if recipe.data.target_inverted_copies:
        unlabelled = unlabelled.with_inverted_copies()
    if hasattr(method, "prepare"):
        method.prepare(unlabelled)
    training = recipe.training
    sizes = training.batch, training.target_batch or training.batch
    augments = recipe.augment.source, recipe.augment.target
    shares = None
    if training.class_shares == "even":
        shares = torch.ones(len(pair.source.classes))
    elif training.class_shares == "predicted":
        shares = before.evidence.target_logits.softmax(1).mean(0).cpu()
    batches = Batches(_read_labels(recipe, pair), unlabelled, *sizes, *augments, runtime, shares)
    look = Look(folder, recipe, method, evaluator)
    rows = loop.train(ADAPTATION_STAGE, method, batches, training.steps, look)
    adapted = method.classifier()
    folder.write_weights("last", adapted)
    folder.write_weights("method", method.networks())
    folder.keep_weights(f"look-{select(looks_of(rows))['step']}", "selected")
    folder.write_sample(pair.target)

    # 3. The figures.
    after = evaluator.see(adapted)
    folder.write_seen("source_only", before)
    folder.write_seen("last", after)
    result = figures(recipe, pair, source, before, refined, after, rows)
    result |= {"device": str(runtime.device), "precision": runtime.precision}
    folder.write_examples(*evaluator.examples(after))
    if isinstance(method, Translating):
        result["translation"] = judge(pair, lambda images: method.translate(images, SOURCE, TARGET), runtime)
    if hasattr(method, "decode") or hasattr(method, "draw_pairs"):
        _draw(method, pair, folder)
    if state := whole_state_dict(adapted, classifier):
        folder.write_state("adapted.pt", state)
        display.say(f"  {folder.path / 'adapted.pt'} is a state dict for {wanted.backbone}, as its author wrote it")
    result["seconds"] = {
        "total": round(loop.spent_before + time.perf_counter() - began, 1),
        "source_classifier": round(loop.seconds.get(SOURCE_STAGE, 0.0) + loop.seconds.get(REFINING_STAGE, 0.0), 1),
        "adaptation": round(loop.seconds.get(ADAPTATION_STAGE, 0.0), 1),
    }
    folder.write_json("result.json", result)
    if report:
        write_report(folder.path)
    (folder.path / "checkpoint.pt").unlink(missing_ok=True)
    display.show(result_table(result))
    for concern in result["warnings"]:
        display.say(f"warning: {Diagnostic(**concern)}")
    display.say(f"{duration(result['seconds']['total'])}; everything is in {folder.path}")
    return Run(folder.path, model, device=str(runtime.device))


def _translate(loop: Loop, pair: Pair, runtime: Runtime, report: bool, began: float) -> Run:
    """The story of a run without a classifier: images of both domains -> method steps -> translations -> figures."""
    folder, recipe, display = loop.folder, loop.recipe, loop.display
    seed_everything(recipe.seed + 1)
    method = build_translation(recipe, runtime)
    training = recipe.training
    sizes = training.batch, training.target_batch or training.batch
    batches = Batches(pair.source, pair.target.without_labels(), *sizes, recipe.augment.source, recipe.augment.target, runtime)
    loop.train(ADAPTATION_STAGE, method, batches, training.steps)
    folder.write_weights("method", method.networks())
    folder.write_sample(pair.target)
    _draw(method, pair, folder)
    unlabelled = replace(pair, target=pair.target.without_labels())
    result = {
        "recipe": recipe.name,
        "method": recipe.method.name,
        "seed": recipe.seed,
        "source": describe(pair.source, pair.source_test),
        "target": describe(pair.target, pair.target_test),
        "steps": training.steps,
        "translation": judge(
            unlabelled, lambda images: method.translate(images, SOURCE, TARGET), runtime, recipe.data.paired_test
        ),
        "device": str(runtime.device),
        "precision": runtime.precision,
        "seconds": {"total": round(loop.spent_before + time.perf_counter() - began, 1)},
    }
    folder.write_json("result.json", result)
    if report:
        write_report(folder.path)
    (folder.path / "checkpoint.pt").unlink(missing_ok=True)
    display.show(result_table(result))
    display.say(f"{duration(result['seconds']['total'])}; everything is in {folder.path}")
    return Run(folder.path, device=str(runtime.device))


def _draw(method: Any, pair: Pair, folder: RunFolder) -> None:
    """``translations.png``, of test images that are spread over the set: a folder's first ones are all of one class."""
    tests = pair.source_test, pair.target_test or pair.target
    shown = [next(read(part.images, [torch.linspace(0, len(part) - 1, 12).long()])) for part in tests]
    draw_translations(method, to_float(shown[0]), to_float(shown[1]), folder.path / "translations.png")


def _read_labels(recipe: Recipe, pair: Pair) -> LabelledDomain | None:
    """The labelled images that a method's batches hold: the source's, or none, or (of an upper bound, alone) the target's."""
    if not getattr(find_method(recipe.method.name), "READS_TARGET_LABELS", False):
        return pair.source if recipe.reads_source else None
    if not isinstance(pair.target, LabelledDomain):
        raise UserError(f"{recipe.method.name} trains on target labels, and {pair.target.name} has none; choose another --method")
    return pair.target
