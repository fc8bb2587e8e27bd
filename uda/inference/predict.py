"""What a finished run is for: class names for new images, and accuracy on labelled ones."""

from __future__ import annotations

import csv
import math
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import Tensor

from uda.atomic import atomic_write
from uda.console import Display
from uda.data.datasets.photographs import require
from uda.data.domain import LabelledDomain
from uda.data.folders import Found, check_classes, find, find_at, load_labelled, load_unlabelled, split_classes
from uda.data.load import load_named_test, with_missing_classes
from uda.data.names import data_roots, is_domain, is_path
from uda.errors import UserError
from uda.evaluation.domains import domain_auc
from uda.evaluation.evaluator import on_labelled, predict
from uda.evaluation.outputs import accuracy, confusion, per_class_accuracy
from uda.evaluation.unknown import looks_unknown, open_set
from uda.methods import find_method
from uda.report.tables import open_set_told
from uda.runs.run import Run
from uda.text import counted

COMPARED = 2000  # new images that are compared with the target
FEWEST_COMPARED = 20  # of fewer images, nothing is said
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""what a cell starts with that spreadsheets take for a formula"""
UNLIKE = 0.7  # the area under the ROC curve of a classifier of the domain


class Row(NamedTuple):
    """A line of the table of predictions."""

    path: str
    named: str
    """the class; empty where the image is left unnamed"""
    probability: float
    """of the likeliest class, calibrated: 0..1"""
    unnamed: str = ""
    """why: ``"unknown"`` or ``"doubtful"``"""


class Spaced:
    """Evenly spaced ones of however many images, half of `most` to `most` where there are more: logits, to be compared."""

    def __init__(self, most: int) -> None:
        self.most, self.every, self.seen = most, 1, 0
        self.kept: list[Tensor] = []

    def add(self, logits: Tensor) -> None:
        """Takes some of the next images' logits (B, K)."""
        self.kept += logits[-self.seen % self.every :: self.every].float().cpu().clone()  # a view would hold the block
        self.seen += len(logits)
        while len(self.kept) > self.most:
            self.kept, self.every = self.kept[::2], 2 * self.every


@dataclass(frozen=True)
class Seen:
    """What is to be said of the images beside their classes."""

    unreadable: list[str] = field(default_factory=list)
    """a line for each that cannot be read"""
    compared: Spaced = field(default_factory=lambda: Spaced(COMPARED))
    """those that are compared with the target that was adapted to"""


def write_predictions(
    run: Run, images: Path, out: Path, which: str, display: Display, reject: float = 0.0, unknown: bool = False
) -> int:
    """Classifies the images at a path (folder, .csv, .npz, one file) and writes a CSV: path, class, probability (calibrated).

    Images are decoded in worker processes and classified block by block, so memory does not grow with their number. Those
    that cannot be read have no row, and are named. The path of an image in an .npz is its number. Where images may be left
    unnamed, their class is empty, and a fourth column, unnamed, says why. It is said where they are
    unlike the target that was adapted to.

    Args:
        run: finished.
        images: where they are.
        out: the table.
        which: as for `Run.load_classifier`.
        display: shows how it goes on.
        reject: the share of the images, 0..1, that is left unnamed: those of the lowest probability.
        unknown: whether images that look to be of no known class (`uda.evaluation.unknown.looks_unknown`) are left unnamed.

    Returns:
        How many images were classified, or left unnamed.

    Raises:
        UserError: where none can be read, or `reject` is no share.
    """
    if not 0 <= reject <= 1:
        raise UserError(f"--reject is {reject:g}; it is the share of images that are left unnamed, from 0 to 1")
    found, seen, count, unnamed = find(images, labelled=False), Seen(), 0, 0
    display.say(f"  {counted(len(found), 'image')}, {found.note}")
    display.say(run.by(which))
    if unknown and (note := not_for_unknown(run, which)):
        display.say(note)
    target = adapted_to(run, which)
    rows = _classified(run, found, which, unknown, seen, display)
    columns = 4 if reject or unknown else 3
    with (
        atomic_write(out) as path,
        path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names of files need not be text
    ):
        table = csv.writer(file)
        table.writerow(("path", "class", "probability", "unnamed")[:columns])
        for row in _without_doubtful(rows, reject) if reject else rows:
            table.writerow((as_cell(row.path), as_cell(row.named), f"{row.probability:.4f}", row.unnamed)[:columns])
            count += 1
            unnamed += bool(row.unnamed)
        if not count:
            example = seen.unreadable[0]
            raise UserError(f"none of the images at {images} can be read, for example {example}; mend them or give others")
    if columns == 4:
        display.say(f"  left unnamed: {unnamed:,} of {counted(count, 'image')}")
    if seen.unreadable:
        display.say(
            f"  no row for {counted(len(seen.unreadable), 'image')} that cannot be read: {', '.join(seen.unreadable[:3])}"
        )
    if note := unlike(target, seen.compared.kept):
        display.say(note)
    return count


def adapted_to(run: Run, which: str) -> Tensor | None:
    """What a classifier, as for `Run.load_classifier`, says of the target that was adapted to: logits (N, K).

    None of `selected`, of which that is not known.
    """
    kept = {"last": "last", "source": "source_only"}.get(run.chosen(which))
    return run.outputs(kept).target_logits if kept else None


def not_for_unknown(run: Run, which: str) -> str:
    """What is to be said where a classifier, as for `Run.load_classifier`, was not made for unknown classes; nothing, else."""
    method = find_method(run.recipe.method.name)
    if run.chosen(which) == "source" or method.for_unknown or not method.adapts:
        return ""
    return (
        f"  note: {run.recipe.method.name} is not made for unknown classes, and may have made the classifier sure of them; "
        "fit with --method label_propagation, or take --which source"
    )


def _classified(run: Run, found: Found, which: str, unknown: bool, seen: Seen, display: Display) -> Iterator[Row]:
    """A row for each image that can be read; what else is to be said of them is added to `seen`."""
    classifier, temperature = run.load_classifier(which), run.temperature(which)
    done = 0
    with display.stage("images", 0, len(found)) as bar:
        for positions, part, failed in found.decoded(run.recipe.data.frame):
            logits = predict(classifier, part.to(run.runtime.device), run.runtime)
            seen.compared.add(logits)
            probabilities, classes = (logits / temperature).softmax(1).max(1)
            strange = looks_unknown(logits).tolist() if unknown else [False] * len(logits)
            for position, probability, number, left in zip(
                positions, probabilities.tolist(), classes.tolist(), strange, strict=True
            ):
                named, why = ("", "unknown") if left else (run.classes[number], "")
                yield Row(found.name(position), named, probability, why)
            seen.unreadable.extend(failed)
            done += len(positions) + len(failed)
            bar.update(done, f"{done:,} images")


def _without_doubtful(rows: Iterator[Row], share: float) -> Iterator[Row]:
    """The rows; of the least probable, as many as the share says, without their class. They wait in a temporary file."""
    with tempfile.TemporaryFile("w+", newline="", encoding="utf-8", errors="surrogateescape") as file:
        waiting, probabilities = csv.writer(file), array("d")
        for row in rows:
            waiting.writerow(row)
            probabilities.append(row.probability)
        doubtful = set(np.argsort(probabilities, kind="stable")[: round(share * len(probabilities))].tolist())
        file.seek(0)
        for number, (path, named, probability, why) in enumerate(csv.reader(file)):
            left = number in doubtful
            yield Row(path, "" if left else named, float(probability), why or ("doubtful" if left else ""))


def unlike(target: Tensor | None, new: Sequence[Tensor]) -> str:
    """What is to be said of new images that the classifier reads otherwise than those that were adapted to; nothing, else.

    Logits (N, K) of the target, None where they are not known, and (K,) of each new image. Measured by how well a linear
    classifier tells the two apart, which does not grow with their number, as the p-value of a test would; less two of its
    standard errors (Hanley and McNeil 1982, were they alike), for a few images.
    """
    if target is None or min(n := len(target), m := len(new)) < FEWEST_COMPARED:
        return ""
    apart = domain_auc(target.cpu(), torch.stack(tuple(new)))
    if apart - 2 * math.sqrt((n + m + 1) / (12 * n * m)) < UNLIKE:
        return ""
    return (
        f"  note: these images are unlike the target that was adapted to (one of each can be told apart {apart:.0%} of the time; "
        "50%: they are alike), so what was estimated does not hold for them; fit again with these as the target, or look at some"
    )


def as_cell(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula: behind an apostrophe where it starts like one, or with one.

    Source: OWASP, "CSV Injection". A number stays one, whatever its sign; the signs of full width are taken for the others.
    """
    return f"'{text}" if text.startswith((*FORMULA, "'")) and not text[1:].isdecimal() else text


def evaluate(
    run: Run, data: str, which: str, data_root: str | Path | None, display: Display, unknown: bool = False
) -> dict[str, Any]:
    """Accuracy of a run's classifier on labelled images: a folder, .csv, .npz, a data set's test images by name, or SET/DOMAIN.

    It is said where they are unlike the target that was adapted to.

    Args:
        run: finished.
        data: the images.
        which: as for `Run.load_classifier`.
        data_root: where data sets lie.
        display: shows how reading goes on.
        unknown: whether images of further classes count as unknown, which they do where the run was asked for it.

    Returns:
        ``data``, ``note``, ``images``, ``which`` (the classifier), ``accuracy``, ``per_class`` (None for a class without images),
        ``confusion`` (row = true class), ``classes``; where there are images of further classes, ``open_set``, and the rest is of
        the others.

    Raises:
        UserError: for labels that the run's classes do not have.
    """
    display.say(run.by(which))
    classifier = run.load_classifier(which)
    channels, size, _ = run.recipe.data.shape
    memory = int(run.recipe.data.memory * 2**30)
    domain: LabelledDomain
    further: Found | None = None
    unknown = unknown or run.recipe.data.unknown == "class"
    if is_path(data) or is_domain(data):
        own = is_path(data)
        found = find_at(data, labelled=True) if own else require(data, data_roots(data_root)).find("test")
        if unknown:
            found, further = split_classes(found, run.classes)
        check_classes(found, run.classes, every_class=False, unknown="--unknown")
        domain = load_labelled(found, run.classes, run.recipe.data.frame, memory, display)
        domain = domain if own else replace(domain, name=data)
    else:
        domain = load_named_test(data, run.classes, data_roots(data_root), size, channels)
    logits, labels = on_labelled(classifier, domain.to(run.runtime.device), run.runtime)
    matrix, told, compared = confusion(logits, labels), {}, Spaced(COMPARED)
    compared.add(logits)
    if further is not None:
        if note := not_for_unknown(run, which):
            display.say(note)
        others = load_unlabelled(further, run.classes, run.recipe.data.frame, memory, display).to(run.runtime.device)
        of_others = predict(classifier, others.inputs, run.runtime).cpu()
        compared.add(of_others)
        told["open_set"] = open_set(logits, labels, of_others)
    if note := unlike(adapted_to(run, which), compared.kept):
        display.say(note)
    return {
        "data": domain.name,
        "note": with_missing_classes(domain).note,
        "images": len(domain),
        "which": run.chosen(which),
        "accuracy": accuracy(logits, labels),
        "per_class": per_class_accuracy(matrix),
        "confusion": matrix.tolist(),
        "classes": list(run.classes),
        **told,
    }


def evaluation_table(result: dict[str, Any]) -> Table:
    """Per class: how many images, how many of them right, and what the others were taken for."""
    told = (
        f"\nopen set: {result['open_set']['harmonic_mean']:.4f}, {open_set_told(result['open_set'])}"
        if "open_set" in result
        else ""
    )
    table = Table(
        title=f"accuracy {result['accuracy']:.4f} on {counted(result['images'], 'image')} of {result['data']}",
        caption=result["note"] + told, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for name in ("class", "images", "right", "taken for"):
        table.add_column(name, justify="right" if name in ("images", "right") else "left")
    classes = result["classes"]
    for number, (row, share) in enumerate(zip(result["confusion"], result["per_class"], strict=True)):
        if share is not None:
            wrong = sorted(((count, other) for other, count in enumerate(row) if count and other != number), reverse=True)
            others = ", ".join(f"{classes[other]} ({count})" for count, other in wrong[:4])
            table.add_row(classes[number], str(sum(row)), f"{share:.4f}", others)
    return table
