"""The study behind a run's estimate: many runs on many shifts, what each says of itself without labels, and what is true.

    export UDA_DATA=digits/:photos/          # MNIST, SVHN, USPS; MNIST-M, Office-31 and PACS where they are at hand
    python benchmarks/trust.py run --backbone-weights tf_efficientnet_lite0.safetensors      # hours; goes on where it stopped
    python benchmarks/trust.py rows          # what each run's stored outputs say, image by image, and the truth, into
                                             # benchmarks/evidence.npz, where runs whose folders are gone stay
    python benchmarks/trust.py fit           # of these, the trees and the table that uda/evaluation/ ships
    python benchmarks/trust.py table         # how well the estimate holds on targets and kinds of images not fitted on

A shift is a pair of domains, perhaps with its target corrupted, without some classes, uneven or small. Three methods run on
each, chosen by turns. Target labels are read where the truth is written down, and nowhere before.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from uda.atomic import atomic_write
from uda.console import Display
from uda.data.datasets.digits import Split
from uda.data.domain import LabelledDomain, Pair, count_kept_aside
from uda.data.files import read_in
from uda.data.load import load_named, load_pair
from uda.data.names import data_roots, join_roots
from uda.evaluation.estimation import average_thresholded_confidence, mean_confidence
from uda.evaluation.study import LIKELY, TABLE, Numbers, Study, Verdict, read_rows
from uda.evaluation.trees import FILE, Trees
from uda.evaluation.witnesses import OF_RUN, all_agree, beside, evidence, likely, run_evidence
from uda.recipe.load import resolve
from uda.recipe.schema import Recipe
from uda.runs.build import build_checked, published_frame
from uda.runs.cache import user_cache
from uda.runs.environment import describe_environment
from uda.runs.folder import RunFolder
from uda.runtime import choose_runtime, scoped_seed
from uda.training.fit import new_job
from uda.training.keep import Keeper
from uda.training.stages import adapt, measure, predict_last, train_source

METHODS = ("im", "shot", "mcc", "dann", "mean_teacher", "aad", "fixmatch", "supcon", "mcd", "adabn", "cdan", "dan", "deep_coral")
EACH = 3  # methods on a shift
KEPT = 400  # images of a run whose evidence is kept
DRAWN = 200  # of these, for the trees
DIGIT_PAIRS = (
    ("svhn", "mnist"), ("svhn", "usps"), ("svhn", "mnist-m"), ("svhn", "synth"), ("mnist", "svhn"), ("mnist", "usps"),
    ("mnist", "mnist-m"), ("mnist", "synth"), ("usps", "mnist"), ("usps", "svhn"), ("usps", "mnist-m"), ("mnist-m", "svhn"),
    ("mnist-m", "usps"), ("mnist-m", "mnist"), ("synth", "mnist"), ("synth", "usps"), ("synth", "svhn"), ("synth", "digits"),
)  # fmt: skip
CORRUPTED = (
    ("svhn", "mnist"), ("mnist", "usps"), ("usps", "mnist"), ("mnist-m", "svhn"), ("mnist", "mnist-m"), ("svhn", "synth"),
    ("synth", "digits"),
)  # fmt: skip
OFFICE = tuple(itertools.permutations(("amazon", "dslr", "webcam"), 2))
PACS = tuple(itertools.permutations(("photo", "art_painting", "cartoon", "sketch"), 2))
CORRUPTED_PHOTOGRAPHS = ("office31/amazon", "office31/webcam"), ("pacs/photo", "pacs/art_painting")
DIGITS: dict[str, Any] = {
    "data.size": 32, "data.channels": 3, "classifier.width": 16, "classifier.steps": 300, "classifier.batch": 128,
    "training.steps": 150, "training.batch": 64, "training.target_batch": 128, "training.evaluate_every": 75,
}  # fmt: skip
PAIRS, TARGETS, KINDS = "every pair", "every pair with its target", "all digits, or all photographs"
KIN: dict[str, Callable[[str], str]] = {
    PAIRS: lambda pair: pair, TARGETS: lambda pair: pair.split()[-1], KINDS: lambda pair: str("/" in pair),
}  # fmt: skip
"""what is left out with a run: by name, the group of its pair"""
SPLITS: tuple[Split, ...] = ("train", "test")
TESTED = 2000  # images of each domain
CORRUPTED_IMAGES = 500  # of a corrupted target of photographs: what a frozen body makes of them takes long
NONE = "none"  # of a run without warnings
PLAIN = {f"augment.{role}.{name}": 0.0 for role in ("source", "target") for name in
         ("rotate", "translate", "scale", "shear", "colour", "invert", "erase")}  # fmt: skip


def noisy(images: Tensor) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 60 * noise).clamp(0, 255).byte()


def occluded(images: Tensor) -> Tensor:
    images = images.clone()
    side = images.shape[-1]
    images[..., side // 4 : side // 2, side // 4 : side // 2 + 4] = 128
    return images


def patches_shuffled(images: Tensor) -> Tensor:
    """Nobody can read these."""
    top, bottom = images.chunk(2, 2)
    return torch.cat([torch.cat(half.chunk(2, 3)[::-1], 3) for half in (bottom, top)], 2)


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": noisy,
    "blur": lambda images: transforms.gaussian_blur(images, [7, 7], [1.8, 1.8]),
    "contrast": lambda images: transforms.adjust_contrast(images, 0.25),
    "inverted": lambda images: 255 - images,
    "turned": lambda images: transforms.rotate(images, 30),
    "upside down": lambda images: images.flip(2, 3),
    "occluded": occluded,
    "shuffled": patches_shuffled,
}


class Shift(NamedTuple):
    """A pair, and what is done to its target: a corruption, ``lacks``, ``uneven``, or a number of images."""

    source: str
    target: str
    change: str | int = ""

    @property
    def name(self) -> str:
        return "-".join(str(part).replace("/", ".").replace(" ", "_") for part in self if part != "")


def all_shifts() -> list[Shift]:
    """Every shift of the study: photographs, digits, then digits changed, mixed so that any part of them is of all kinds."""
    photographs = [Shift(f"office31/{a}", f"office31/{b}") for a, b in OFFICE] + [
        Shift(f"pacs/{a}", f"pacs/{b}") for a, b in PACS
    ]
    changed = [photographs[number] for number in (1, 4, 6, 8, 12)]
    photographs += [pair._replace(change=change) for pair in changed for change in ("lacks", "uneven", 200, 50)]
    photographs += [Shift(*pair, change) for pair in CORRUPTED_PHOTOGRAPHS for change in CORRUPTIONS]
    of_digits: list[str | int] = ["lacks", "uneven", 1000, 200, 50, 20, *CORRUPTIONS]
    digits = [Shift(*pair, change) for change in of_digits for pair in CORRUPTED]
    mixed = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    return [*photographs, *(Shift(*pair) for pair in DIGIT_PAIRS), *(digits[number] for number in mixed)]


def methods_of(shift: Shift) -> list[str]:
    """By turns, so that each method meets shifts of every kind."""
    first = zlib.crc32(shift.name.encode())
    able = [name for name in METHODS if "/" in shift.source or name != "adabn"]  # which needs batch norm
    return [able[(first + 4 * turn) % len(able)] for turn in range(EACH)]


def chosen(labels: Tensor, change: str | int, generator: torch.Generator, classes: int) -> Tensor:
    """Which of a target's images stay, int64 (n,)."""
    order = torch.randperm(len(labels), generator=generator)
    if isinstance(change, int):
        return order[:change]
    if change == "lacks":
        gone = torch.randperm(classes, generator=torch.Generator().manual_seed(0))[: round(0.3 * classes)]
        return order[~torch.isin(labels[order], gone)]
    shares = 36 ** -torch.linspace(0, 1, classes)  # from 36 to 1
    counts = torch.bincount(labels, minlength=classes)
    wanted = (shares * (counts / shares).min().clamp_min(counts.max() / 4)).long().clamp(2)
    return torch.cat([order[labels[order] == k][: int(wanted[k])] for k in range(classes)])


def changed(domain: LabelledDomain, change: str | int, seed: int) -> LabelledDomain:
    """A labelled target after its change; kept features of its images go with them."""
    if change in CORRUPTIONS:
        assert isinstance(domain.images, Tensor)
        return replace(domain, images=CORRUPTIONS[str(change)](domain.images))
    if change == "":
        return domain
    return domain.only(chosen(domain.labels, change, torch.Generator().manual_seed(seed), len(domain.classes)).sort().values)


@functools.lru_cache(2)
def digits(source: str, target: str) -> Pair:
    roots = data_roots(None)
    loaded = [load_named(name, split, roots, 32, 3) for name in (source, target) for split in SPLITS]
    return Pair(*(domain if "train" in domain.name else domain.only(domain.sampled(TESTED)) for domain in loaded))


@functools.lru_cache(1)
def photographs(source: str, target: str, weights: Path) -> tuple[Recipe, Keeper, Pair]:
    """The recipe in its frame, and all images of a pair with what the body makes of them, which the keeper computes."""
    settings = {
        "data.source": source, "data.target": target, "data.target_held_out": 0.1,
        "classifier.backbone_weights": str(weights.absolute()), "classifier.target_norm": "own",
    }  # fmt: skip
    recipe = resolve("office31" if source.startswith("office31") else "pacs", settings).recipe
    roots, runtime, display = data_roots(None), choose_runtime(), Display(quiet=True)
    frame = published_frame(recipe.classifier)
    assert frame is not None
    recipe = recipe.with_frame(frame)
    pair = load_pair(recipe.data, roots, display, look=False)
    networks = build_checked(recipe, len(pair.source.classes), runtime)
    assert networks is not None
    assert networks.body is not None
    keeper = Keeper(networks.body, recipe.data, runtime, display, user_cache())
    return recipe, keeper, keeper.keep_pair(pair)


def corrupted_photographs(domain: LabelledDomain, change: str, keeper: Keeper) -> LabelledDomain:
    """Some of a domain's photographs, squares of them, after a corruption, with what the body makes of these.

    The squares are those that the frame cuts its centre from, and are seen whole: a little more of them than of other images.
    """
    some, frame = domain.only(domain.sampled(CORRUPTED_IMAGES).sort().values), keeper.data.frame
    squares = torch.cat(list(read_in(frame._replace(size=frame.resize or frame.size), some.images)))
    return keeper.keep(replace(some, images=CORRUPTIONS[change](squares), kept=None), keeper.data.views.all)


def recipe_and_pair(shift: Shift, method: str, seed: int, weights: Path) -> tuple[Recipe, Pair]:
    """What a run trains on; a third of the digit runs do without augmentation, as a newcomer's would."""
    if "/" in shift.source:
        recipe, keeper, pair = photographs(shift.source, shift.target, weights)
        recipe = resolve(recipe, {"method.name": method, "seed": seed}).recipe
        assert isinstance(pair.target, LabelledDomain)
        if shift.change in CORRUPTIONS:
            target = corrupted_photographs(pair.target, str(shift.change), keeper)
        else:
            target = changed(pair.target, shift.change, seed)
        return recipe, Pair(pair.source, pair.source_test, target, target)
    settings = DIGITS | {"data.source": shift.source, "data.target": shift.target, "method.name": method, "seed": seed}
    settings |= PLAIN if zlib.crc32(f"{shift.name}-{method}".encode()) % 3 == 0 else {}
    pair = digits(shift.source, shift.target)
    assert isinstance(pair.target, LabelledDomain)
    assert pair.target_test is not None
    target = changed(pair.target, shift.change, seed)
    test = pair.target_test if isinstance(shift.change, int) else changed(pair.target_test, shift.change, seed)
    return resolve("svhn2mnist", settings).recipe, Pair(pair.source, pair.source_test, target, test)


def run(folder: Path, recipe: Recipe, pair: Pair) -> None:
    """The stages of a run, from images or features that are at hand, into a run folder; nothing where it lies there already."""
    if (folder / "result.json").exists():
        return
    runtime = choose_runtime()
    with scoped_seed(recipe.seed), runtime.computing():
        networks = build_checked(recipe, len(pair.source.classes), runtime)
        environment = describe_environment(recipe, pair, runtime, join_roots(data_roots(None)), True)
        opened = RunFolder.create(folder, recipe, environment) if not folder.exists() else RunFolder.open(folder)
        with opened.locked():
            job = new_job(opened, recipe, pair, runtime, Display(quiet=True), networks, ())
            source = train_source(job)
            method = adapt(job, source)
            material = measure(job, source, method, predict_last(job, method))
            opened.write_json("result.json", material.result)
            opened.delete_checkpoint()


def run_all(out: Path, weights: Path, only: str, seeds: list[int], evidence_file: Path) -> None:
    """Every run that is neither there yet nor among the evidence, one line each."""
    done = read_evidence(evidence_file) if evidence_file.exists() else {}
    for seed, turn, shift in itertools.product(seeds, range(EACH), all_shifts()):
        method = methods_of(shift)[turn]
        folder = out / f"{shift.name}-{method}-{seed}"
        if not fnmatch(folder.name, only) or folder.name in done or (folder / "result.json").exists():
            continue
        began = time.perf_counter()
        recipe, pair = recipe_and_pair(shift, method, seed, weights)
        run(folder, recipe, pair)
        result = json.loads((folder / "result.json").read_text())
        figures = [result["accuracy"]["source_only"], result["accuracy"]["last"], result["estimated"]["accuracy"]]
        print(folder.name, *(f"{figure:.4f}" for figure in figures), f"{time.perf_counter() - began:.0f} s", flush=True)


class Evidence(NamedTuple):
    """What is kept of a run: its line of the table without what is likely, and some images' evidence and truth."""

    row: dict[str, Any]
    images: Numbers
    """`uda.evaluation.witnesses.COLUMNS` of up to `KEPT` images, (n, 31)"""
    outcomes: NDArray[np.uint8]
    """(n,): 0 where the adapted classifier is right, 1 where the source classifier alone is, 2 where neither is"""

    @property
    def beside(self) -> Numbers:
        """What trees read of the images, (n, 64)."""
        of_run = torch.tensor([self.row[name] for name in OF_RUN])
        return np.asarray(beside(torch.from_numpy(self.images), of_run).numpy())


def write_evidence(outs: list[Path], weights: Path, file: Path) -> None:
    """What each finished run says of itself without labels, and the truth, which is read here alone.

    What the file has of other runs stays, whose folders may be gone by now.
    """
    kept = read_evidence(file) if file.exists() else {}
    for folder in sorted(path.parent for out in outs for path in out.glob("*/result.json")):
        if folder.name in kept:
            continue
        opened, result = RunFolder.open(folder), json.loads((folder / "result.json").read_text())
        before, after = opened.read_outputs("source_only"), opened.read_outputs("last")
        images, labels = evidence(before, after), true_labels(opened, weights)
        assert len(labels) == len(images), folder
        right, was_right = (of.target_logits.cpu().argmax(1) == labels for of in (after, before))
        outcomes = torch.where(right, 0, torch.where(was_right, 1, 2))
        classes = before.target_logits.shape[1]
        row = {
            "run": folder.name,
            "pair": f"{result['source']['name']} {result['target']['name']}",
            "true_before": result["accuracy"]["source_only"],
            "true_after": result["accuracy"]["last"],
            "aside": int(result["target"]["held_out"] > 0),
            "warnings": " + ".join(sign["name"] for sign in result["warnings"]) or NONE,
            "atc": average_thresholded_confidence(*after.source, after.target_logits),
            "confidence": mean_confidence(*after.source, after.target_logits),
            "all_agree": all_agree(images),
        }
        row |= dict(zip(OF_RUN, run_evidence(images, classes).tolist(), strict=True))
        row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
        some = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:KEPT]
        kept[folder.name] = Evidence(row, images[some].numpy(), outcomes[some].to(torch.uint8).numpy())
        print(folder.name, flush=True)
    keep_evidence(list(kept.values()), file)
    print(f"{len(kept)} runs of {len({run.row['pair'] for run in kept.values()})} pairs; see {file}")


def true_labels(opened: RunFolder, weights: Path) -> Tensor:
    """The labels of the target images that a run's stored outputs are of, int64 (M,)."""
    recipe, name = opened.recipe, opened.path.name
    shift = {shift.name: shift for shift in all_shifts()}.get(name.rsplit("-", 2)[0])
    if shift is None:
        pair = load_pair(recipe.data, data_roots(None), Display(quiet=True), look=False)
    else:
        pair = recipe_and_pair(shift, recipe.method.name, recipe.seed, weights)[1]
    assert isinstance(pair.target, LabelledDomain)
    return pair.target.sample_labels(count_kept_aside(len(pair.target), recipe.kept_aside) or TESTED).cpu()


def keep_evidence(runs: list[Evidence], file: Path) -> None:
    """Writes it, each number as one of 256 steps from a column's least to its most."""
    images = np.concatenate([run.images for run in runs])
    low, high = images.min(0), images.max(0)
    steps = np.round(255 * (images - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
    with atomic_write(file) as path, path.open("wb") as opened:
        np.savez_compressed(
            opened, rows=json.dumps([run.row for run in runs]), counts=[len(run.images) for run in runs], low=low, high=high,
            steps=steps, outcomes=np.concatenate([run.outcomes for run in runs]),
        )  # fmt: skip


def read_evidence(file: Path) -> dict[str, Evidence]:
    """What was kept, by name of the run."""
    with np.load(file) as kept:
        images = (kept["low"] + kept["steps"] * ((kept["high"] - kept["low"]) / 255)).astype(np.float32)
        ends, rows, outcomes = np.cumsum(kept["counts"])[:-1], json.loads(str(kept["rows"])), kept["outcomes"]
    parts = zip(rows, np.split(images, ends), np.split(outcomes, ends), strict=True)
    return {row["run"]: Evidence(row, *of_run) for row, *of_run in parts}


def fit_trees(runs: list[Evidence]) -> Trees:
    """Boosted trees of whether classes are right, each run as weighty as any other."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    generator = np.random.default_rng(0)
    chosen = [generator.integers(len(run.images), size=DRAWN) for run in runs]
    x = np.concatenate([run.beside[rows] for run, rows in zip(runs, chosen, strict=True)])
    y = np.concatenate([run.outcomes[rows] for run, rows in zip(runs, chosen, strict=True)])
    boosted = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=16, min_samples_leaf=200, l2_regularization=5.0, max_features=0.3, early_stopping=False,
        random_state=0,
    )  # fmt: skip
    return as_trees(boosted.fit(x, y))


def as_trees(boosted: Any) -> Trees:
    """scikit-learn's boosted trees as tensors; what it keeps of them has no public name."""
    all_nodes = [tree.nodes for trees in boosted._predictors for tree in trees]
    most = max(map(len, all_nodes))
    shape = len(all_nodes), most
    feature, left, right = (torch.zeros(shape, dtype=torch.int16) for _ in range(3))
    threshold, value = torch.zeros(shape), torch.zeros(shape)
    for t, nodes in enumerate(all_nodes):
        own, leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
        feature[t, : len(nodes)] = torch.from_numpy(np.where(leaf, 0, nodes["feature_idx"]).astype(np.int16))
        threshold[t, : len(nodes)] = torch.from_numpy(np.where(leaf, 0, nodes["num_threshold"]).astype(np.float32))
        left[t, : len(nodes)] = torch.from_numpy(np.where(leaf, own, nodes["left"]).astype(np.int16))
        right[t, : len(nodes)] = torch.from_numpy(np.where(leaf, own, nodes["right"]).astype(np.int16))
        value[t, : len(nodes)] = torch.from_numpy(nodes["value"].astype(np.float32))
    start = torch.from_numpy(boosted._baseline_prediction.ravel().astype(np.float32))
    depth = torch.tensor([max(int(nodes["depth"].max()) for nodes in all_nodes)], dtype=torch.int16)
    return Trees(feature, threshold, left, right, value, start, depth)


def likely_of(runs: list[Evidence], kin: Callable[[str], str]) -> list[dict[str, float]]:
    """What is likely of each run, by trees that were fitted to those runs alone that share nothing of this kind with it.

    By the images that are kept of it, `KEPT` at most; a run's own estimate is of all that were looked at.
    """
    groups = [kin(run.row["pair"]) for run in runs]
    trees = {
        left: fit_trees([run for run, group in zip(runs, groups, strict=True) if group != left]) for left in sorted(set(groups))
    }
    found = []
    for run, group in zip(runs, groups, strict=True):
        images = torch.from_numpy(run.images)
        figures = likely(trees[group](torch.from_numpy(run.beside)), images)
        found.append({name: round(figure, 4) for name, figure in zip(LIKELY, figures, strict=True)})
    return found


def fit_study(file: Path, table: Path) -> None:
    """The table of runs, and the trees of them all."""
    runs = list(read_evidence(file).values())
    rows = [run.row | of_run for run, of_run in zip(runs, likely_of(runs, KIN[TARGETS]), strict=True)]
    fit_trees(runs).save(table.with_name(FILE.name))
    with atomic_write(table) as path, path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} runs; see {table}")


def judged(
    rows: list[dict[str, Any]], kin: Callable[[str], str], by_others: list[dict[str, float]] | None = None
) -> list[Verdict]:
    """What is believed of each run by a study of those runs alone that share nothing of this kind with it.

    The study's own runs are judged without their targets, as in the shipped one. `by_others`: what is likely of each run, by
    trees that were fitted without its kind; left out, it is what the table says, by trees without its target.
    """
    groups = [kin(row["pair"]) for row in rows]
    others = {g: Study([row for row, group in zip(rows, groups, strict=True) if group != g]) for g in set(groups)}
    judged_rows = rows if by_others is None else [row | of_run for row, of_run in zip(rows, by_others, strict=True)]
    return [
        study.judge({name: float(row[name]) for name in (*study.names, *LIKELY)})
        for row, study in zip(judged_rows, map(others.__getitem__, groups), strict=True)
    ]


def print_table(file: Path, table: Path) -> None:
    """How far estimates are off, on runs of what they were not fitted on; how often intervals cover; what is caught."""
    rows, runs = read_rows(table), list(read_evidence(file).values())
    before, after = column(rows, "true_before"), column(rows, "true_after")
    assert [row["run"] for row in rows] == [run.row["run"] for run in runs], "fit first"
    by_kin = {name: judged(rows, kin, None if name == TARGETS else likely_of(runs, kin)) for name, kin in KIN.items()}
    verdicts, pairs = by_kin[TARGETS], np.array([row["pair"] for row in rows])
    estimates = {
        "the study's": np.array([verdict.accuracy for verdict in verdicts]),
        "average thresholded confidence": column(rows, "atc"),
        "mean confidence": column(rows, "confidence"),
        "agreement with the source classifier": column(rows, "agreement"),
    }
    kept = np.array([verdict.recommended == "adapted" for verdict in verdicts])
    adapts = np.array(["adabn" not in row["run"] for row in rows])
    photographs = np.array(["/" in row["pair"] for row in rows])
    everything = np.ones(len(rows), dtype=bool)
    of_images = {"photographs": photographs, "digits": ~photographs}
    kinds = {"recommended": kept & adapts, **of_images}
    shown = {"all": everything, **kinds}
    print(f"{len(rows)} runs of {len(set(pairs))} pairs, {len({row['run'].rsplit('-', 2)[0] for row in rows})} shifts\n")
    print(f"| mean of abs(estimated - true), points | {' | '.join(f'{kind} ({there.sum()})' for kind, there in shown.items())} |")
    print("|---|" + "---|" * len(shown))
    for name, estimate in estimates.items():
        off = 100 * abs(estimate - after)
        print(f"| {name} | {' | '.join(f'{off[there].mean():.1f}' for there in shown.values())} |")
    off = 100 * abs(np.array([verdict.source_only for verdict in verdicts]) - before)
    print(f"| the study's, of the source classifier | {' | '.join(f'{off[there].mean():.1f}' for there in shown.values())} |")

    back = "lose more than 3, sent back | more than 1, sent back | nothing, sent back | the gain's cover"
    print(
        f"\n| left out, and of which runs | runs | cover, of 100 | median width | off by | {back} | unlike |\n|---|" + "---|" * 9
    )
    for name, found in by_kin.items():
        print(f"| {name} | {held(found, before, after, everything)} |")
    for name, there in of_images.items():
        print(f"| all {name}, these | {held(by_kin[KINDS], before, after, there)} |")
    targets = np.array([KIN[TARGETS](pair) for pair in pairs])
    onto = {f"it is {target}": targets == target for target in sorted(set(targets))}
    for name, there in (kinds | changes(rows) | onto).items():
        print(f"| the target: {name} | {held(verdicts, before, after, there)} |")
    gain = after - before
    of = by_loss(gain)
    print(f"\n| warning, of {len(rows)} runs | {' | '.join(f'{name} ({there.sum()})' for name, there in of.items())} |")
    print("|---|---|---|---|")
    for name, given in warned(rows, verdicts).items():
        print(f"| {name} | {' | '.join(str((given & there).sum()) for there in of.values())} |")
    taken = np.where(kept, after, before)
    print(f"\nruns that lose nothing and are sent back lose {100 * gain[of['nothing'] & ~kept].mean():.1f} points by it")
    print(
        f"\nmean accuracy: source {before.mean():.4f}, adapted {after.mean():.4f}, recommended {taken.mean():.4f}, "
        f"the better of both {np.maximum(before, after).mean():.4f}"
    )


def by_loss(gain: Numbers) -> dict[str, NDArray[np.bool_]]:
    """Which runs (N,) lose so many points by adaptation, or none."""
    return {"lose more than 3": gain < -0.03, "more than 1": gain < -0.01, "nothing": gain >= 0}


def held(verdicts: list[Verdict], before: Numbers, after: Numbers, there: NDArray[np.bool_]) -> str:
    """A row's figures, of some runs: whether intervals cover, and what of harm and of good is sent back to the source."""
    low, high = np.array([verdict.interval for verdict in verdicts]).T
    back = np.array([verdict.recommended == "source" for verdict in verdicts])
    gain, off = after - before, abs(np.array([verdict.accuracy for verdict in verdicts]) - after)
    least, most = np.array([verdict.gain_interval for verdict in verdicts]).T
    of = [there & losing for losing in by_loss(gain).values()]
    figures = [
        str(there.sum()), f"{100 * ((low <= after) & (after <= high))[there].mean():.0f}",
        f"{100 * np.median((high - low)[there]):.0f}", f"{100 * off[there].mean():.1f}",
        *(f"{(some & back).sum()} of {some.sum()}" for some in of),
        f"{100 * ((least <= gain) & (gain <= most))[there].mean():.0f}",
        f"{sum(verdict.unlike for verdict, is_there in zip(verdicts, there, strict=True) if is_there)}",
    ]  # fmt: skip
    return " | ".join(figures)


def warned(rows: list[dict[str, str]], verdicts: list[Verdict]) -> dict[str, NDArray[np.bool_]]:
    """Which runs (N,) each warning comes for: those of a study without the run's target, and the rest as its folder tells."""
    told = [set(row["warnings"].split(" + ")) for row in rows]
    by_study = {
        "worse than before": np.array([verdict.recommended == "source" for verdict in verdicts]),
        "unlike the study": np.array([verdict.unlike for verdict in verdicts]),
    }
    of_others = sorted(set().union(*told) - {*by_study, NONE})
    found = by_study | {name: np.array([name in names for names in told]) for name in of_others}
    return found | {"any of these": np.any([*found.values()], axis=0)}


def changes(rows: list[dict[str, str]]) -> dict[str, NDArray[np.bool_]]:
    """Which runs are on targets that were changed, by how."""

    def of(*changes: str) -> NDArray[np.bool_]:
        return np.array([any(f"-{change.replace(' ', '_')}-" in row["run"] for change in changes) for row in rows])

    found = {"lacks classes": of("lacks"), "uneven": of("uneven"), "corrupted": of(*CORRUPTIONS)}
    return found | {f"{count} images": of(str(count)) for count in (20, 50, 200, 1000)}


def column(rows: list[dict[str, str]], name: str) -> Numbers:
    return np.array([float(row[name]) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "rows", "fit", "table"])
    parser.add_argument("--out", type=Path, default=Path("runs/trust"))
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of other finished runs, for the rows")
    parser.add_argument("--evidence", type=Path, default=Path(__file__).parent / "evidence.npz")
    parser.add_argument("--table", type=Path, default=TABLE, help="the trees lie beside it")
    parser.add_argument("--backbone-weights", type=Path, default=Path("tf_efficientnet_lite0.safetensors"))
    parser.add_argument("--only", default="*", help="runs of such names, as office31*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    if given.what == "run":
        run_all(given.out, given.backbone_weights, given.only, given.seeds, given.evidence)
    elif given.what == "rows":
        write_evidence([given.out, *given.others], given.backbone_weights, given.evidence)
    elif given.what == "fit":
        fit_study(given.evidence, given.table)
    else:
        print_table(given.evidence, given.table)


if __name__ == "__main__":
    main()
