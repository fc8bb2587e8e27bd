"""The stages of a run, one function each, in the order in which `uda.training.fit` calls them."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

import uda
from uda import ranks
from uda.collectives import copy_from_first
from uda.console import Display
from uda.data.augment import to_float
from uda.data.batches import Batches
from uda.data.domain import HELD_OUT, TRAINED_ON, LabelledDomain, Pair, count_kept_aside
from uda.data.files import read
from uda.errors import UserError
from uda.evaluation.diagnostics import class_not_kept, class_not_kept_back, hardly_better_than_guessing, numerical_trouble
from uda.evaluation.evaluator import Evaluator, Examples
from uda.evaluation.outputs import Outputs
from uda.evaluation.results import Result, Row, classifier_results, describe, select
from uda.evaluation.selection import entropy, information_maximization, label_free
from uda.evaluation.shares import Shares, estimate_shares
from uda.evaluation.translation import evaluate_translation, judge_by_source, judge_without_labels
from uda.evaluation.witnesses import contradiction
from uda.methods import find_method
from uda.methods.base import Method
from uda.methods.source_only import SourceOnly
from uda.methods.translating import Drawing, PairDrawing, Translating
from uda.models.backbones import Classifier
from uda.models.custom import whole_state_dict
from uda.models.frozen import Body
from uda.models.layers import convert_domain_batch_norm, learn_statistics
from uda.models.weights import save_tensors
from uda.players import Players
from uda.recipe.schema import Recipe
from uda.report.grids import draw_translations
from uda.report.page import Material
from uda.runs.build import Networks, build_method
from uda.runs.cache import WEIGHTS, Cache, digest, digest_of_images, versions_of, write_about
from uda.runs.environment import Environment
from uda.runs.folder import RunFolder
from uda.runtime import Runtime, evaluating, machine, seed_everything
from uda.training.keep import Keeper, learn_target
from uda.training.loop import Loop, Metrics

FEATURES_STAGE = "features"
SOURCE_STAGE, REFINING_STAGE, ADAPTATION_STAGE = "source classifier", "refining on the augmented source", "adaptation"


@dataclass(frozen=True)
class Job:
    """What all stages of one run have at hand.

    Attributes:
        folder: where the run is written.
        recipe: resolved, with the images' size and channels.
        pair: the data, on the runtime's device.
        runtime: what to compute with.
        display: where to say how it goes.
        loop: what takes the steps.
        metrics: what the loop has written down.
        evaluator: what says how good a classifier is.
        environment: versions, machine and device, as in ``environment.json``.
        cache: what earlier runs have kept.
        networks: the source classifier, and what is frozen before it; None where the method does not classify.
    """

    folder: RunFolder
    recipe: Recipe
    pair: Pair
    runtime: Runtime
    display: Display
    loop: Loop
    metrics: Metrics
    evaluator: Evaluator
    environment: Environment
    cache: Cache
    networks: Networks | None

    @property
    def classifier(self) -> Classifier | None:
        """The source classifier."""
        return self.networks and self.networks.classifier


@dataclass(frozen=True)
class SourceStage:
    """The source classifier's figures, and the class shares of the target as it reads them."""

    accuracy: float
    before: Outputs
    shares: Shares
    refined: float | None


def labelled_images(recipe: Recipe, pair: Pair) -> LabelledDomain | None:
    """The labelled images that a method's batches hold: the source's, or none, or (of an upper bound, alone) the target's."""
    if not find_method(recipe.method.name).reads_target_labels:
        return pair.source if recipe.reads_source else None
    if not isinstance(pair.target, LabelledDomain):
        raise UserError(f"{recipe.method.name} trains on target labels, and {pair.target.name} has none; choose another --method")
    return pair.target


def keep_inputs(job: Job) -> Job:
    """Where a body is frozen, what it makes of all images; methods and evaluations then read that in place of images."""
    if job.networks is None or job.networks.body is None:
        return job
    folder, body = job.folder, job.networks.body
    if folder.has_weights("body"):
        folder.read_weights("body", body)
    else:
        folder.write_weights("body", body)
    with _features(job):
        keeper = Keeper(body, job.recipe.data, job.runtime, job.display, job.cache, job.recipe.reads_pixels)
        pair = keeper.keep_pair(job.pair)
    return replace(job, pair=pair, evaluator=Evaluator(pair, job.runtime, job.recipe.kept_aside))


def keep_target(job: Job) -> Job:
    """Where target images have a body of their own, it learns their statistics, and methods read what it makes of them.

    What the source's body makes of them, which half of it is, is at hand already.
    """
    if job.networks is None or (body := job.networks.target_body) is None:
        return job
    folder, pair, runtime = job.folder, job.pair, job.runtime
    with _features(job):
        if ranks.agreed(folder.has_weights("target_body")):
            folder.read_weights("target_body", body)
        else:
            own, both = learn_target(body, pair.target, job.recipe.data.frame, runtime, job.cache)
            if job.recipe.classifier.target_norm == "auto" and not _surer(job, own, both):
                return replace(job, networks=job.networks._replace(target_body=None))
            folder.write_weights("target_body", body)
        pair = Keeper(Body(body.adapted), job.recipe.data, runtime, job.display, job.cache).blend_target(pair, body)
    return replace(job, pair=pair, evaluator=Evaluator(pair, runtime, job.recipe.kept_aside))


def _surer(job: Job, own: Tensor, both: Tensor) -> bool:
    """Whether the source classifier is surer, and of more classes, of what both statistics make of target images.

    It reads each by its own statistics, as methods begin. No label is looked at.
    """
    scores = []
    for inputs in (own, both):
        classifier = convert_domain_batch_norm(copy.deepcopy(cast(Classifier, job.classifier)))
        with torch.no_grad(), evaluating(classifier):
            learn_statistics(classifier, classifier, [inputs])
            scores.append(information_maximization(classifier(inputs).float()))
    better = ranks.agreed(bool(scores[1] > scores[0]))
    job.display.say(
        f"  target features: by {'both statistics' if better else 'the statistics that the body came with'} "
        f"(information maximization {scores[1]:.3f} by both, {scores[0]:.3f} by its own alone)"
    )
    return better


@contextmanager
def _features(job: Job) -> Iterator[None]:
    """Counts the seconds in which features are computed."""
    began = time.perf_counter()
    yield
    job.loop.seconds[FEATURES_STAGE] = job.loop.seconds.get(FEATURES_STAGE, 0.0) + time.perf_counter() - began


def train_source(job: Job) -> SourceStage | None:
    """Supervised training on the source alone, unless the classifier comes trained; then, where it is asked for, refining."""
    if job.classifier is None:
        return None
    wanted, folder, classifier = job.recipe.classifier, job.folder, job.classifier
    if not ranks.agreed(folder.has_weights("source")):
        if not wanted.comes_trained:
            _kept_or_trained(job, classifier)
        folder.write_weights("source", classifier)
    else:
        folder.read_weights("source", classifier)
    accuracy, before = job.evaluator.source_accuracy(classifier), job.evaluator.outputs(classifier)
    _say_source_accuracy(job, accuracy, before)
    refined = None
    if wanted.comes_trained and wanted.refine_steps and job.recipe.reads_source:
        if not ranks.agreed(folder.has_weights("refined")):
            _supervised(job, REFINING_STAGE, wanted.refine_steps)
            folder.write_weights("refined", classifier)
        else:
            folder.read_weights("refined", classifier)
        refined = job.evaluator.target_accuracy(classifier)
    shares = ranks.from_first(lambda: estimate_shares(before, contradiction(before)))
    return SourceStage(accuracy, before, shares, refined)


def _kept_or_trained(job: Job, classifier: Classifier) -> None:
    """The same source classifier that an earlier run has trained, or else a new one, which is kept."""
    recipe, pair, runtime = job.recipe, job.pair, job.runtime
    body = digest(job.networks and job.networks.body, recipe.data.views) if recipe.classifier.freezes else ""
    images = digest_of_images(pair.source.images), digest(pair.source.labels), body
    how = recipe.classifier, recipe.augment.source, recipe.data.frame, recipe.seed, torch.get_num_threads(), ranks.world_size()
    versions = versions_of("torch", "torchvision"), uda.__version__
    numbers = runtime.device, runtime.precision, runtime.channels_last
    key = digest("source classifier", classifier, *images, *how, *numbers, machine(), *versions)
    waiting = "  source classifier: another run is training it; waiting"
    with job.cache.alone(key, lambda: job.display.say(waiting)) if ranks.first() else nullcontext():
        if ranks.agreed(ranks.first() and job.cache.load(key, classifier)):  # whose cache others may not see
            copy_from_first(classifier)
            job.display.say("  source classifier: trained by an earlier run, and kept (--no-cache trains it anew)")
            return
        _supervised(job, SOURCE_STAGE, recipe.classifier.steps)
        if not ranks.first():
            return
        with job.cache.writing(key) as kept:
            save_tensors(classifier.state_dict(), kept / WEIGHTS)
            write_about(kept, {"what": f"source classifier {recipe.classifier.backbone} of {recipe.name}, seed {recipe.seed}"})


def _supervised(job: Job, stage: str, steps: int) -> None:
    assert job.classifier is not None
    recipe, wanted, players = job.recipe, job.recipe.classifier, Players(job.runtime, steps)
    method = SourceOnly(wanted.training, job.classifier, recipe.data.shape, steps, job.runtime)
    players.slow_down(method)
    method.setup(job.pair.target.without_labels(), players)
    batches = Batches(job.pair.source, None, wanted.batch, 0, recipe.augment.source, recipe.augment.target, job.runtime)
    job.loop.train(stage, method, players, batches, table="classifier.training")
    copy_from_first(job.classifier)  # statistics of batch norm are of each process's own images


def _say_source_accuracy(job: Job, accuracy: float, before: Outputs) -> None:
    pair = job.pair
    on_target = f", {before.test_accuracy:.4f} on {pair.target_test.name}" if pair.target_test else ""
    job.display.say(f"  source classifier: {accuracy:.4f} on {pair.source_test.name}{on_target}")
    if (sign := hardly_better_than_guessing(accuracy, len(pair.source.classes))) is not None:
        job.display.say(f"  warning: {sign}")


def adapt(job: Job, source: SourceStage | None) -> Method:
    """The method's steps. It is handed the target without its labels."""
    recipe, training, runtime = job.recipe, job.recipe.training, job.runtime
    seed_everything(recipe.seed + 1)
    method, players = build_method(recipe, job.networks, runtime), Players(runtime, training.steps)
    unlabelled = job.pair.target.without_labels()
    aside, trained_on = unlabelled.kept_aside(recipe.kept_aside)
    if len(aside):
        unlabelled = unlabelled.only(trained_on)
    if recipe.data.target_inverted_copies:
        unlabelled = unlabelled.with_inverted_copies()
    players.slow_down(method)
    method.target_shares = _target_shares(job, source)
    method.setup(unlabelled, players)
    sizes = training.batch, training.target_batch or training.batch
    augments = recipe.augment.source, recipe.augment.target
    labelled = labelled_images(recipe, job.pair)
    batches = Batches(labelled, unlabelled, *sizes, *augments, runtime, _class_shares(job, source, method))
    evaluate = Evaluate(job, method) if method.classifies else None
    job.loop.train(ADAPTATION_STAGE, method, players, batches, evaluate)
    job.folder.write_weights("method", method)
    return method


def _target_shares(job: Job, source: SourceStage | None) -> Tensor | None:
    """The class shares that the method is to expect of the target (K,); None: even ones. It says which, and why."""
    if source is None:
        return None
    wanted, shares = job.recipe.training.target_shares, source.shares
    estimated = shares.uneven if wanted == "auto" else wanted == "estimated"
    why = shares.describe(job.pair.source.classes) if wanted == "auto" else "as training.target_shares says"
    job.display.say(f"  class shares of the target: taken {'as they are estimated' if estimated else 'for even'}, {why}")
    return shares.expected.to(job.runtime.device) if estimated else None


def _class_shares(job: Job, source: SourceStage | None, method: Method) -> Tensor | None:
    """How often each class is to come among the labelled images (K,); None: as there are of it."""
    wanted = job.recipe.training.class_shares
    if wanted == "own" or source is None:
        return None
    if wanted == "target" and method.target_shares is not None:
        return method.target_shares.cpu()
    if wanted in ("even", "target"):
        return torch.ones(len(job.pair.source.classes))
    return ranks.agreed(source.before.target_logits.softmax(1).mean(0).cpu())  # a rounding apart, and epochs part


class Evaluate:
    """Evaluates the method while it trains: its label-free scores, and beside them, for the eyes alone, target accuracy.

    The weights of each evaluation are kept until one of all is selected.
    """

    def __init__(self, job: Job, method: Method) -> None:
        self.job, self.method = job, method

    def __call__(self, step: int) -> Row | None:
        training = self.job.recipe.training
        if step % training.evaluate_every and step != training.steps:
            return None
        evaluator, wanted = self.job.evaluator, self.job.recipe.selection
        classifier = _alike(self.method.classifier())
        outputs = evaluator.outputs(classifier, wanted.reads_source or wanted.keep, test=False)
        accuracy = evaluator.target_accuracy(classifier)
        return ranks.from_first(lambda: self._row(step, classifier, outputs, accuracy))

    def _row(self, step: int, classifier: nn.Module, outputs: Outputs, accuracy: float | None) -> Row:
        folder, wanted = self.job.folder, self.job.recipe.selection
        folder.write_weights(f"evaluation-{step}", classifier)
        if wanted.keep:
            folder.write_outputs(f"evaluation-{step}", outputs)
        scores = label_free(wanted.score, outputs, self.method.target_shares)
        row: Row = {"scores": scores, "target_mean_entropy": entropy(outputs.target_logits)}
        return row if accuracy is None else row | {"target_test_accuracy": accuracy}


def _alike(classifier: nn.Module) -> nn.Module:
    """The same in all processes: statistics of batch norm are of each one's own images, and the first's count."""
    copy_from_first(classifier)
    return classifier


def predict_last(job: Job, method: Method) -> Outputs | None:
    """What the adapted classifier says of the images, after the last step; None where the method does not classify."""
    return job.evaluator.outputs(_alike(method.classifier())) if method.classifies else None


def measure(job: Job, source: SourceStage | None, method: Method, after: Outputs | None) -> Material:
    """All figures of the run, and what its report shows; what they were taken from is written down.

    `after` is what `predict_last` has returned.
    """
    recipe, pair, folder = job.recipe, job.pair, job.folder
    folder.write_sample(pair.target)
    rows = job.metrics.of(ADAPTATION_STAGE)
    figures, outputs, examples = _measure_classifier(job, source, method, rows, after) if source and after else ({}, {}, None)
    translations = _measure_translations(job, method)
    if source and translations:
        signs = class_not_kept(translations["translation"]), class_not_kept_back(translations["translation"])
        figures["warnings"] += [asdict(sign) for sign in signs if sign is not None]
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "method": recipe.method.name,
        "seed": recipe.seed,
        "source": {**describe(pair.source, pair.source_test), **(_seen_before(recipe, pair.source_test) if source else {})},
        "target": {**describe(pair.target, pair.target_test), "held_out": count_kept_aside(len(pair.target), recipe.kept_aside)},
        **figures,
        **_described_shares(source, method),
        "steps": recipe.training.steps,
        "device": str(job.runtime.device),
        "precision": job.runtime.precision,
        **({"target_norm": "own" if job.networks.target_body is None else "both"} if job.networks and job.networks.body else {}),
        **translations,
        "seconds": _seconds(job),
    }
    if troubles := [asdict(numerical_trouble(stage, what)) for stage, what in job.loop.troubles.items()]:
        result["warnings"] = troubles + result.get("warnings", [])
    if source and (guessing := hardly_better_than_guessing(source.accuracy, len(pair.source.classes))) is not None:
        result["warnings"] = [asdict(guessing), *result["warnings"]]
    return Material(
        cast(Result, result),
        job.environment.model_dump(),
        recipe.to_toml(),
        rows,
        outputs,
        examples,
        _draw_translations(job, method),
    )


def _measure_classifier(
    job: Job, source: SourceStage, method: Method, rows: list[Row], after: Outputs
) -> tuple[dict[str, Any], dict[str, Outputs], Examples]:
    folder, recipe, adapted = job.folder, job.recipe, method.classifier()
    folder.write_weights("last", adapted)
    folder.keep_weights(f"evaluation-{select(rows)['step']}", "selected")
    outputs = {"source_only": source.before.kept(), "last": after.kept()}
    for name, kept in outputs.items():
        folder.write_outputs(name, kept)
    _write_own_network(job, adapted)
    figures = classifier_results(
        job.pair,
        source.accuracy,
        source.before,
        source.refined,
        after,
        rows=rows,
        scores=recipe.selection.score,
        trains=method.adapts,
        shares=None if method.target_shares is None else source.shares,
        leaves_unknown=method.leaves_unknown,
    )
    examples = job.evaluator.examples(after, temperature=figures["calibration"]["temperature"])
    folder.write_examples(examples)
    return figures, outputs, examples


def _seen_before(recipe: Recipe, source_test: LabelledDomain) -> dict[str, str]:
    """``seen``, where the source classifier was trained on source test images: on all of them, or perhaps, before the run."""
    if source_test.note.endswith(TRAINED_ON):
        return {"seen": "all"}
    return {"seen": "perhaps"} if recipe.classifier.comes_trained and source_test.note.endswith(HELD_OUT) else {}


def _described_shares(source: SourceStage | None, method: Method) -> dict[str, Any]:
    """``class_shares``, where there is a classifier that they were estimated by."""
    if source is None:
        return {}
    expected = "even" if method.target_shares is None else "estimated"
    return {"class_shares": {"estimated": source.shares.estimated.tolist(), "expected": expected}}


def _measure_translations(job: Job, method: Method) -> dict[str, Any]:
    """``translation``, where the method translates. Of one that reads no labels in training, none are read here either."""
    if not isinstance(method, Translating):
        return {}
    draws = isinstance(method, Drawing)
    if job.networks is not None and (read_drawn := job.networks.reader(job.recipe)) is not None:
        found = judge_by_source(job.pair, method.translate, job.networks.classifier, read_drawn, job.runtime, draws)
        return {"translation": found}
    paired = job.recipe.data.paired_test and not method.classifies
    classifier = method.classifier() if method.classifies else None
    figures = evaluate_translation(job.pair, method.translate, job.runtime, paired, method.classifies, draws, classifier)
    if classifier is not None:
        figures |= judge_without_labels(job.pair, method.translate, classifier, job.runtime, job.recipe.kept_aside)
    return {"translation": figures}


def _draw_translations(job: Job, method: Method) -> bytes | None:
    """``translations.png``, of test images that are spread over the set: a folder's first ones are all of one class."""
    if not isinstance(method, Translating | PairDrawing):
        return None
    tests = job.pair.source_test, job.pair.target_test or job.pair.target
    source, target = (next(read(part.pixels, [torch.linspace(0, len(part) - 1, 12).long()])) for part in tests)
    out = job.folder.path / "translations.png"
    draw_translations(method, to_float(source), to_float(target), out)
    return out.read_bytes()


def _seconds(job: Job) -> dict[str, float]:
    """Of the whole run and, where a classifier is trained, of its stages."""
    stages = job.loop.seconds
    seconds = {"total": job.loop.spent}
    if FEATURES_STAGE in stages:
        seconds["features"] = stages[FEATURES_STAGE]
    if job.classifier is not None:
        seconds["source_classifier"] = stages.get(SOURCE_STAGE, 0.0) + stages.get(REFINING_STAGE, 0.0)
        seconds["adaptation"] = stages.get(ADAPTATION_STAGE, 0.0)
    return {name: round(value, 1) for name, value in seconds.items()}


def _write_own_network(job: Job, adapted: nn.Module) -> None:
    """``adapted.pt``, for a network that is not ours: a state dict for its author's own code."""
    assert job.classifier is not None
    if state := whole_state_dict(adapted, job.classifier):
        job.folder.write_state("adapted.pt", state)
        of = f"{job.recipe.classifier.backbone}, as its author wrote it"
        job.display.say(f"  {job.folder.path / 'adapted.pt'} is a state dict of the adapted classifier for {of}")
