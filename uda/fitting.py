"""The whole story of a run: data -> source classifier -> method steps -> selection -> evaluation -> run folder."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from uda import losses
from uda.data import data_root, load_pair
from uda.data.augment import to_float
from uda.data.batches import Batches
from uda.data.domain import Domain, Pair
from uda.display import Display, duration, result_table
from uda.errors import UserError
from uda.evaluation import Evaluator, label_free_sample, per_class_accuracy, predict
from uda.methods import Method, source_only
from uda.recipe import Recipe, load_recipe
from uda.report.plots import draw_confusions, draw_curves, draw_translations
from uda.runs import Run, RunFolder, build_method, build_source_classifier, load_weights, versions
from uda.runtime import Runtime, choose_runtime, machine, random_state, restore_random_state, seed_everything
from uda.selection import SCORES

SAVE_EVERY = 30.0  # seconds between two checkpoints
SOURCE_STAGE, ADAPTATION_STAGE = "source classifier", "adaptation"


class Interrupted(Exception):
    """The run was asked to stop; its state is saved in the run folder `path`."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def fit(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    display: Display | None = None,
    overrides: dict[str, Any] | None = None,
    **settings: Any,
) -> Run:
    """Runs a recipe from data to report.

    Args:
        recipe: a shipped recipe's name, a path to a TOML file, or a `Recipe`.
        out: the run folder; left out, ``runs/RECIPE-METHOD-SEED-TIME``.
        data_root: where data sets lie; left out, $UDA_DATA, else a folder in the user's cache.
        device: ``"auto"`` or a torch device.
        precision: ``"auto"`` (a probe decides), ``"bf16"`` or ``"fp32"``.
        display: who tells the user; left out, nobody.
        overrides: dotted keys of the recipe, such as ``{"method.feature_norm": "l2"}``.
        settings: the same as keywords, two underscores for the dot: ``seed=1, method__feature_norm="l2"``.

    Raises:
        UserError: for wrong input, in one line that says what to do.
        Interrupted: after SIGINT or SIGTERM; the run folder then holds all that `resume` needs.
    """
    display = display or Display(quiet=True)
    keywords = {key.replace("__", "."): value for key, value in settings.items()}
    resolved = load_recipe(recipe, {**(overrides or {}), **keywords})
    runtime = choose_runtime(device, precision)
    root = _root(data_root)
    # Before the folder is made, all that can be wrong is tried: it leaves nothing behind and costs no time.
    pair = _load(resolved, root)
    network = build_source_classifier(resolved, len(pair.source.classes), runtime)
    if resolved.classifier.weights is not None:
        load_weights(Path(resolved.classifier.weights), network)
    build_method(resolved, network, runtime)
    if out is None:
        stem = Path("runs") / f"{resolved.name}-{resolved.method.name}-{resolved.seed}-{datetime.now():%Y%m%d-%H%M%S}"
        out = next(path for path in (stem, *(stem.with_name(f"{stem.name}-{n}") for n in range(2, 99))) if not path.exists())
    folder = RunFolder.create(
        Path(out),
        resolved,
        {
            "device": str(runtime.device),
            "precision": runtime.precision,
            "data_root": str(root),
            "versions": versions(),
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "started": datetime.now().isoformat(timespec="seconds"),
        },
    )
    return _run(folder, resolved, pair, runtime, display)


def resume(run: str | Path, display: Display | None = None) -> Run:
    """Continues an interrupted run to the end it would have had; a finished one is returned as it is.

    Raises:
        UserError: where `run` is not a run folder, or its files are damaged.
    """
    folder = RunFolder.open(Path(run))
    display = display or Display(quiet=True)
    if (folder.path / "result.json").exists():
        display.say(f"{folder.path} is finished; nothing to do")
        return Run(folder.path)
    setting = folder.read_json("setting.json")
    recipe = folder.recipe
    runtime = choose_runtime(setting["device"], setting["precision"])
    return _run(folder, recipe, _load(recipe, Path(setting["data_root"])), runtime, display)


def _root(given: str | Path | None) -> Path:
    return data_root(Path(given) if given is not None else None).absolute()


def _load(recipe: Recipe, root: Path) -> Pair:
    return load_pair(recipe.data.source, recipe.data.target, root, recipe.data.size, recipe.data.channels)


def _run(folder: RunFolder, recipe: Recipe, pair: Pair, runtime: Runtime, display: Display) -> Run:
    began = time.perf_counter()
    display.say(f"{recipe.name}: {recipe.method.name}, seed {recipe.seed}, into {folder.path}")
    display.say(f"  on {runtime}")
    display.say(f"  source {pair.source.name}: {len(pair.source):,} labelled images ({pair.source.note})")
    display.say(f"  target {pair.target.name}: {len(pair.target):,} images without labels ({pair.target.note})")
    pair = pair.to(runtime.device)
    evaluator = Evaluator(pair, runtime)
    loop = Loop(folder, recipe, display)
    classes = len(pair.source.classes)

    # 1. The source classifier: supervised training on the source alone.
    seed_everything(recipe.seed)
    classifier = build_source_classifier(recipe, classes, runtime)
    wanted = recipe.classifier
    shape = (recipe.data.channels, recipe.data.size, recipe.data.size)
    if not folder.has_weights("source"):
        if wanted.weights is not None:
            load_weights(Path(wanted.weights), classifier)
        else:
            supervised = source_only.Method(wanted.training, classifier, shape, wanted.steps, runtime)
            batches = Batches(pair.source, None, wanted.batch, 0, recipe.augment.source, recipe.augment.target, runtime)
            loop.train(SOURCE_STAGE, supervised, batches, wanted.steps)
        folder.write_weights("source", classifier)
    folder.read_weights("source", classifier)
    source, source_only_accuracy = evaluator.source_accuracy(classifier), evaluator.target_accuracy(classifier)
    before = evaluator.target_confusion(classifier)
    display.say(
        f"  source classifier: {source:.4f} on {pair.source_test.name}, {source_only_accuracy:.4f} on {pair.target_test.name}"
    )

    # 2. The method: it is handed the target without its labels.
    seed_everything(recipe.seed + 1)
    method = build_method(recipe, classifier, runtime)
    unlabelled = pair.target.without_labels()
    if recipe.data.target_inverted_copies:
        unlabelled = unlabelled.with_inverted_copies()
    sizes = recipe.training.batch, recipe.training.target_batch or recipe.training.batch
    batches = Batches(pair.source, unlabelled, *sizes, recipe.augment.source, recipe.augment.target, runtime)
    look = Look(folder, recipe, method, unlabelled, evaluator, runtime)
    rows = loop.train(ADAPTATION_STAGE, method, batches, recipe.training.steps, look)
    folder.write_weights("last", method.classifier())
    folder.write_weights("method", method.networks())

    # 3. The figures. `selected` is picked by the label-free score; `oracle` by target labels, to be compared with papers.
    looks = [row for row in rows if "score" in row]
    selected = max(looks, key=lambda row: row["score"])
    oracle = max(looks, key=lambda row: row["target_test_accuracy"])
    after = evaluator.target_confusion(method.classifier())
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "method": recipe.method.name,
        "seed": recipe.seed,
        "device": str(runtime.device),
        "precision": runtime.precision,
        "source": _describe(pair.source, pair.source_test),
        "target": _describe(pair.target, pair.target_test),
        "classes": list(pair.target.classes),
        "accuracy": {
            "source": source,
            "source_only": source_only_accuracy,
            "last": looks[-1]["target_test_accuracy"],
            "selected": selected["target_test_accuracy"],
            "oracle": oracle["target_test_accuracy"],
        },
        "selection": {"score": recipe.selection.score, "selected_step": selected["step"], "oracle_step": oracle["step"]},
        "per_class": {"source_only": per_class_accuracy(before), "last": per_class_accuracy(after)},
        "confusion": {"source_only": before.tolist(), "last": after.tolist()},
        "steps": recipe.training.steps,
    }
    if hasattr(method, "translate"):
        result["translation"] = evaluator.class_consistency(lambda images: method.translate(images, 0, 1))
        draw_translations(folder, method, to_float(pair.source_test.images[:12]), to_float(pair.target_test.images[:12]))
    draw_curves(folder, rows)
    draw_confusions(folder, result)
    result["seconds"] = {
        "total": round(loop.spent_before + time.perf_counter() - began, 1),
        "source_classifier": round(loop.seconds.get(SOURCE_STAGE, 0.0), 1),
        "adaptation": round(loop.seconds.get(ADAPTATION_STAGE, 0.0), 1),
    }
    folder.write_json("result.json", result)
    (folder.path / "checkpoint.pt").unlink(missing_ok=True)
    display.show(result_table(result))
    display.say(f"{duration(result['seconds']['total'])}; everything is in {folder.path}")
    return Run(folder.path, device=str(runtime.device))


def _describe(train: Domain, test: Domain) -> dict[str, Any]:
    return {"name": train.name.split()[0], "note": train.note, "train": len(train), "test": len(test)}


class Look:
    """A look at the method while it trains: its label-free score, and beside it what the evaluator sees."""

    def __init__(
        self, folder: RunFolder, recipe: Recipe, method: Method, target: Domain, evaluator: Evaluator, runtime: Runtime
    ) -> None:
        self.folder, self.method, self.evaluator, self.runtime = folder, method, evaluator, runtime
        self.score, self.every = SCORES[recipe.selection.score], recipe.training.evaluate_every
        self.images: Tensor = label_free_sample(target)

    def __call__(self, earlier: list[dict[str, Any]]) -> dict[str, float]:
        """The figures to write down; the weights are kept if the score beats those of all `earlier` rows."""
        classifier = self.method.classifier()
        logits = predict(classifier, self.images, self.runtime)
        score = self.score(logits)
        if score > max((row["score"] for row in earlier if "score" in row), default=-math.inf):
            self.folder.write_weights("selected", classifier)
        return {
            "score": score,
            "target_mean_entropy": float(losses.entropy(logits)),
            "target_test_accuracy": self.evaluator.target_accuracy(classifier),
        }


class Loop:
    """Takes a method's steps, writes down its losses, and saves enough to go on after an interruption."""

    def __init__(self, folder: RunFolder, recipe: Recipe, display: Display) -> None:
        self.folder, self.recipe, self.display = folder, recipe, display
        self.began = time.perf_counter()
        self.checkpoint = folder.read_checkpoint()
        self.spent_before: float = self.checkpoint["spent"] if self.checkpoint else 0.0
        self.seconds: dict[str, float] = dict(self.checkpoint["seconds"]) if self.checkpoint else {}
        self.stop = False

    def train(self, stage: str, method: Method, batches: Batches, steps: int, look: Look | None = None) -> list[dict[str, Any]]:
        """Steps until `steps`; returns all rows of this stage, those of an interrupted part included."""
        start = 0
        if self.checkpoint and self.checkpoint["stage"] == stage:
            method.load_state_dict(self.checkpoint["method"])
            batches.load_state_dict(self.checkpoint["batches"])
            restore_random_state(self.checkpoint["random"])
            start = self.checkpoint["step"]
            self.display.say(f"  {stage}: going on after step {start}")
        done = [row for row in self.folder.read_metrics() if row["stage"] != stage or row["step"] <= start]
        self.folder.write_metrics(done)
        rows = [row for row in done if row["stage"] == stage]
        before, began = self.seconds.get(stage, 0.0) if start else 0.0, time.perf_counter()
        saved = warm = began

        def save(step: int) -> None:
            self.seconds[stage] = before + time.perf_counter() - began
            self.folder.write_checkpoint(
                {
                    "stage": stage,
                    "step": step,
                    "method": method.state_dict(),
                    "batches": batches.state_dict(),
                    "random": random_state(),
                    "seconds": self.seconds,
                    "spent": self.spent_before + time.perf_counter() - self.began,
                }
            )

        with self.display.stage(stage, start, steps) as progress, _signals(self._ask_to_stop):
            for step in range(start + 1, steps + 1):
                values = method.step(batches.next())
                if step == start + 1:  # it also pays for compiling kernels, so the estimate is made from the next five
                    warm = time.perf_counter()
                if step == start + 6 and steps - step > 20:
                    progress.estimate((time.perf_counter() - warm) / 5 * (steps - start))
                note = ""
                row: dict[str, Any] = {}
                if step % self.recipe.training.log_every == 0 or step == steps:
                    row = {name: float(value) for name, value in values.items()}
                    self._refuse_nan(stage, step, row)
                    note = "  ".join(f"{name} {value:.3g}" for name, value in row.items() if name in SHOWN)
                if look and (step % look.every == 0 or step == steps):
                    row |= look(rows)
                    note += f"  label-free score {row['score']:.3f}"
                if row:
                    row = {"stage": stage, "step": step, "seconds": round(before + time.perf_counter() - began, 2), **row}
                    rows.append(row)
                    self.folder.append_metrics(row)
                progress.update(step, note)
                if self.stop or time.perf_counter() - saved > SAVE_EVERY or step == steps:
                    save(step)
                    saved = time.perf_counter()
                if self.stop:
                    raise Interrupted(f"interrupted after step {step} of {steps} ({stage})", self.folder.path)
        return rows

    def _ask_to_stop(self) -> None:
        self.stop = True

    def _refuse_nan(self, stage: str, step: int, row: dict[str, float]) -> None:
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            raise UserError(
                f"{stage}: the {bad[0]} loss is {row[bad[0]]} at step {step}; lower method.learning_rate, or try --precision fp32"
            )


SHOWN = ("class", "generator_adversarial", "reconstruction", "target_entropy", "pseudo_label", "generator_class")


class _signals:
    """SIGINT and SIGTERM ask for a stop after the step; outside the main thread they cannot be caught, and are not."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self.ask = ask

    def __enter__(self) -> None:
        self.old: dict[int, Any] = {}

        def handler(number: int, frame: FrameType | None) -> None:
            self.ask()

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self.old[number] = signal.signal(number, handler)
            except ValueError:
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
