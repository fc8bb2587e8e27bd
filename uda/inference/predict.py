"""What a finished run is for: class names for new images, and accuracy on labelled ones."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from uda.atomic import atomic_write
from uda.console import Display
from uda.data.datasets.photographs import require
from uda.data.domain import LabelledDomain
from uda.data.folders import check_classes, find, load_labelled
from uda.data.load import load_named_test
from uda.data.names import data_roots, is_domain, is_path
from uda.errors import UserError
from uda.evaluation.domains import domain_auc
from uda.evaluation.evaluator import on_labelled, predict
from uda.evaluation.outputs import accuracy, confusion, per_class_accuracy
from uda.runs.run import Run

COMPARED = 2000  # new images that are compared with the target
FEWEST = 20  # with fewer, nothing is said
UNLIKE = 0.7  # the area under the ROC curve of a classifier of the domain


def write_predictions(run: Run, images: Path, out: Path, which: str, display: Display) -> int:
    """Classifies the images at a path (folder, .csv, .npz, one file) and writes a CSV: path, class, probability (calibrated).

    Images are decoded in worker processes and classified block by block, so memory does not grow with their number. Those
    that cannot be read have no row, and are named. The path of an image in an .npz is its number. It is said where they are
    unlike the target that was adapted to.

    Returns:
        How many images were classified.
    """
    classifier, found, temperature = run.load_classifier(which), find(images, labelled=False), run.temperature(which)
    if note := run.note_on(which):
        display.say(note)
    unreadable: list[str] = []
    compared: list[Tensor] = []
    done, every = 0, -(-len(found) // COMPARED)
    with (
        atomic_write(out) as path,
        path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,  # names of files need not be text
        display.stage("images", 0, len(found)) as bar,
    ):
        table = csv.writer(file)
        table.writerow(("path", "class", "probability"))
        for positions, part, failed in found.decoded(run.recipe.data.frame):
            logits = predict(classifier, part.to(run.runtime.device), run.runtime)
            compared.append(logits[[position % every == 0 for position in positions]].cpu())
            probabilities, classes = (logits / temperature).softmax(1).max(1)
            for position, probability, number in zip(positions, probabilities.tolist(), classes.tolist(), strict=True):
                table.writerow((as_cell(found.name(position)), as_cell(run.classes[number]), f"{probability:.4f}"))
            unreadable += failed
            done += len(positions) + len(failed)
            bar.update(done, f"{done:,} images")
        if len(unreadable) == len(found):
            raise UserError(f"none of the images at {images} can be read, for example {unreadable[0]}; mend them or give others")
    if unreadable:
        display.say(f"  {len(unreadable)} images cannot be read and have no row: {', '.join(unreadable[:3])}")
    if note := unlike(run.outputs("source_only" if run.chosen(which) == "source" else "last").target_logits, torch.cat(compared)):
        display.say(note)
    return len(found) - len(unreadable)


def unlike(adapted_to: Tensor, new: Tensor) -> str:
    """What is to be said of new images that the classifier reads otherwise than those that were adapted to; nothing, else.

    Logits (N, K) and (M, K). Measured by how well a linear classifier tells the two apart, which does not grow with their number,
    as the p-value of a test would; less two of its standard errors (Hanley and McNeil 1982, were they alike), for a few images.
    """
    n, m = len(adapted_to), len(new)
    if min(n, m) < FEWEST:
        return ""
    apart = domain_auc(adapted_to.cpu(), new)
    if apart - 2 * math.sqrt((n + m + 1) / (12 * n * m)) < UNLIKE:
        return ""
    return (
        f"  note: these images are unlike the target that was adapted to (one of each can be told apart {apart:.0%} of the time; "
        "50%: they are alike), so what was estimated does not hold for them; fit again with these as the target, or look at some"
    )


def as_cell(text: str) -> str:
    """A cell of a table that no spreadsheet takes for a formula: behind an apostrophe where it starts like one.

    Source: OWASP, "CSV Injection". A number stays one, whatever its sign.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not text[1:].isdecimal() else text


def evaluate(run: Run, data: str, which: str, data_root: str | Path | None, display: Display) -> dict[str, Any]:
    """Accuracy of a run's classifier on labelled images: a folder, .csv, .npz, a data set's test images by name, or SET/DOMAIN.

    Returns:
        ``data``, ``note``, ``images``, ``accuracy``, ``per_class`` (None for a class without images), ``confusion`` (row = true
        class), ``classes``.

    Raises:
        UserError: for labels that the run's classes do not have.
    """
    if note := run.note_on(which):
        display.say(note)
    classifier = run.load_classifier(which)
    channels, size, _ = run.recipe.data.shape
    domain: LabelledDomain
    if is_path(data) or is_domain(data):
        own = is_path(data)
        found = find(Path(data), labelled=True) if own else require(data, data_roots(data_root)).find("test")
        check_classes(found, run.classes, every_class=False)
        domain = load_labelled(found, run.classes, run.recipe.data.frame, int(run.recipe.data.memory * 2**30), display)
        domain = domain if own else replace(domain, name=data)
    else:
        domain = load_named_test(data, run.classes, data_roots(data_root), size, channels)
    logits, labels = on_labelled(classifier, domain.to(run.runtime.device), run.runtime)
    matrix = confusion(logits, labels)
    return {
        "data": domain.name,
        "note": domain.note,
        "images": len(domain),
        "accuracy": accuracy(logits, labels),
        "per_class": per_class_accuracy(matrix),
        "confusion": matrix.tolist(),
        "classes": list(run.classes),
    }


def evaluation_table(result: dict[str, Any]) -> Table:
    """Per class: how many images, how many of them right, and what the others were taken for."""
    table = Table(
        title=f"accuracy {result['accuracy']:.4f} on {result['images']:,} images of {result['data']}",
        caption=result["note"], title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
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
