"""`uda check`: a number that holds, from a few target images that a person looks at.

The images are drawn so that their probabilities are known (`uda.evaluation.sampling`); the answers are a table of path, predicted
class and label, which is `RUN/check.csv` while a page asks, or the user's own file. They judge the adapted classifier and the
source's alike, and nothing else reads them.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from uda.atomic import atomic_write
from uda.data.domain import Domain
from uda.data.files import ImageFiles
from uda.errors import UserError
from uda.evaluation.sampling import FEWEST, Estimate, accuracy_of, difference_of, doubt, order, stratify
from uda.inference.predict import as_cell
from uda.paths import regular
from uda.runs.folder import CHECK
from uda.runs.run import Run

NONE = "none of them"
"""the answer for an image of no known class: it is wrong, whatever was predicted"""
UNSURE = "cannot tell"
"""the answer for an image that was looked at in vain: it may be any class; in a table, ``?`` says so, too"""
ALIKE = 0.02  # two accuracies that are no farther apart
COLUMNS = ("path", "predicted", "label")
TABLE = "check.csv"
"""in the run folder: what the page has been told"""


@dataclass(frozen=True)
class Drawn:
    """The images that are to be looked at, in that order.

    Attributes:
        target: all target images.
        classes: the class names, in label order.
        positions: of the drawn images in `target`, int64 (n,).
        names: their paths below the target's folder; of images that are not files, their numbers.
        before, after: the classes that the source classifier and the adapted one predict, int64 (n,).
        strata: of all images that were drawn from, int64 (M,).
        of: which of these were drawn, int64 (n,).
    """

    target: Domain
    classes: tuple[str, ...]
    positions: Tensor
    names: tuple[str, ...]
    before: Tensor
    after: Tensor
    strata: Tensor
    of: Tensor

    @property
    def predicted(self) -> list[str]:
        """The adapted classifier's class of each image, by name."""
        return [self.classes[number] for number in self.after.tolist()]

    @property
    def fewest(self) -> int:
        """How many answers an interval takes: all, of a target that has fewer images than that."""
        return min(FEWEST, len(set(self.names)))


Answers = dict[str, str]
"""the label of an image, `NONE` or `UNSURE`, by the image's path; of an image that nobody looked at, nothing"""


def draw(run: Run, labels: int, seed: int) -> Drawn:
    """Draws target images of a finished run; those of a smaller `labels` are the first of them.

    Raises:
        UserError: where the run does not classify, or its target images are not to be found.
    """
    if labels < FEWEST:
        raise UserError(f"--labels {labels} is too few for an interval, which takes {FEWEST}; give 50 or 100")
    before, after = (run.outputs(which).target_logits for which in ("source_only", "last"))
    if len(before) != len(after):
        raise UserError(f"the files in {run.path / 'outputs'} are of {len(before):,} and of {len(after):,} images; fit again")
    target, sampled = run.target()
    strata = stratify(doubt(before, after))
    of = order(strata, seed)[:labels]
    positions, images = sampled[of], target.images
    if isinstance(images, ImageFiles):
        names = tuple(os.fsdecode(bytes(images.names[number])) for number in positions.tolist())
    else:
        names = tuple(map(str, positions.tolist()))
    return Drawn(target, run.classes, positions, names, before[of].argmax(1), after[of].argmax(1), strata, of)


def write_table(drawn: Drawn, answers: Answers, out: Path) -> None:
    """Writes a CSV of path, predicted, label, whole or not at all; an image without an answer has an empty label.

    No cell starts a formula (`uda.inference.predict.as_cell`), and names keep their bytes, which need not be text.
    """
    with atomic_write(out) as path, path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = zip(drawn.names, drawn.predicted, (answers.get(name, "") for name in drawn.names), strict=True)
        csv.writer(file).writerows([COLUMNS, *(map(as_cell, row) for row in rows)])


def _rows_of(path: Path) -> list[dict[str, str]]:
    """The lines of a table, also as a spreadsheet writes it: with semicolons, or its columns in capitals."""
    if not os.path.lexists(path):
        raise UserError(f"there is no {path}; give the table that --csv wrote")
    try:
        regular(path)
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if ";" in header and "," not in header else ",")
            found = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = found
            rows = list(reader)
    except (OSError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}); make one with --csv FILE") from error
    if not set(COLUMNS) <= set(found):
        there = f"the columns {', '.join(found)}" if found else "no columns"
        raise UserError(f"{path} has {there}; give it {', '.join(COLUMNS)}, as --csv writes them")
    if not rows:
        raise UserError(f"{path} lists no images; give the table that --csv wrote")
    return rows


def length(path: Path) -> int:
    """How many images a table lists. A draw of fewer would not know them all.

    Raises:
        UserError: for a file that is no such table.
    """
    return len(_rows_of(path))


def read_table(drawn: Drawn, path: Path) -> Answers:
    """Reads what `write_table` wrote and somebody filled in.

    Raises:
        UserError: for a file that is no such table, other images than the first of this draw, or labels that are no class.
    """
    rows = _rows_of(path)
    names, labels = ({as_cell(text): text for text in texts} for texts in (drawn.names, (*drawn.classes, NONE, UNSURE)))
    labels = {"?": UNSURE} | labels  # a class may have that name
    there = [names.get(row["path"], row["path"]) for row in rows]
    first = list(dict.fromkeys(drawn.names))[: len(set(there))]  # a list of images may name one twice
    if strange := [name for name in there if name not in first]:
        raise UserError(
            f"{path}: {strange[0]} is not among the first {len(first)} images of this draw; give the --seed that the table was"
            " made with and leave all of its rows in, or ask for this draw in another table: --csv FILE"
        )
    filled = [(row["path"], label) for row in rows if (label := (row["label"] or "").strip())]
    answers: Answers = {}
    for name, label in ((names.get(name, name), labels.get(label, label)) for name, label in filled):
        if answers.setdefault(name, label) != label:
            raise UserError(f"{path} says two things of {name}: {answers[name]} and {label}; leave the wrong row out")
        if label not in (NONE, UNSURE, *drawn.classes):
            raise UserError.unknown("class", label, drawn.classes, f"{NONE!r} or {UNSURE!r}, in {path}")
    return answers


def told(drawn: Drawn, answers: Answers) -> list[str]:
    """The answers that count: of all images up to the last that has one, `UNSURE` where one before it has none.

    Only the first images of a draw are a sample (`uda.evaluation.sampling.order`): whoever leaves out what is hard to tell
    leaves out what the classifiers get wrong.
    """
    last = max(map(drawn.names.index, answers), default=-1)  # a list may name an image twice, and the first of them was asked for
    return [answers.get(name, UNSURE) for name in drawn.names[: last + 1]]


def _what_of_blanks(drawn: Drawn, answers: Answers, count: int) -> tuple[int, str]:
    """How many of the first `count` images have no answer, and what is to be said of them."""
    blank = [row for row, name in enumerate(drawn.names[:count]) if name not in answers]
    if not blank:
        return 0, ""
    return len(blank), (
        f"images without an answer before the last one: {len(blank)}, taken for {UNSURE!r}, since which images are answered must"
        f" not depend on how they look; fill in image {blank[0] + 1}, {drawn.names[blank[0]]}, for a narrower interval"
    )


def judge(run: Run, drawn: Drawn, answers: Answers, seed: int) -> dict[str, Any]:
    """Both classifiers' accuracies by the answers that count (`told`).

    Where some cannot be told (`UNSURE`), intervals reach from the lower end that they have with all of these wrong to the upper
    end that they have with all right, and accuracies are half-way between both.

    Returns:
        ``accuracy`` and ``interval`` (90 %), each of ``adapted`` and ``source``; ``difference``, both of adapted less source;
        ``better``: ``"adapted"``, ``"source"``, or None where the answers do not tell; ``estimated``, as the run has it without
        labels; ``labels``, how many images have one; ``unsure``, how many others count as `UNSURE`; ``blank``, how many of these
        have no answer, and ``blank_because``, what is to be said of that; ``drawn``, of how many images; ``seed``.

    Raises:
        UserError: where there are too few answers.
    """
    answered = told(drawn, answers)
    count = len(answered)
    if len(answers) < drawn.fewest:
        raise UserError(f"too few answers: {len(answers)}, and an interval takes {drawn.fewest}; answer some more images")
    blank, because = _what_of_blanks(drawn, answers, count)
    number = {name: label for label, name in enumerate(drawn.classes)}
    labels = torch.tensor([number.get(answer, -1) for answer in answered])
    unsure = torch.tensor([answer == UNSURE for answer in answered])
    untold = int(unsure.sum())
    before, after, of = drawn.before[:count], drawn.after[:count], drawn.of[:count]
    source, adapted = before == labels, after == labels
    found = {
        name: _between(*(accuracy_of(values, drawn.strata, of) for values in (right, right | unsure)))
        for name, right in (("adapted", adapted), ("source", source))
    }
    either = unsure & (before != after)  # of these, at most one classifier is right
    ends = (source | either, adapted), (source, adapted | either)
    difference = _between(*(difference_of(*end, drawn.strata, of) for end in ends))
    low, high = difference.interval
    return {
        "accuracy": {name: estimate.value for name, estimate in found.items()},
        "interval": {name: estimate.interval for name, estimate in found.items()},
        "difference": {"accuracy": difference.value, "interval": difference.interval},
        "better": "adapted" if low > 0 else "source" if high < 0 else None,
        "estimated": run.result["estimated"],
        "labels": count - untold,
        "unsure": untold,
        "blank": blank,
        "blank_because": because,
        "drawn": len(drawn.names),
        "seed": seed,
    }


def _between(worst: Estimate, best: Estimate) -> Estimate:
    """What is known where the truth may be anything from the one to the other."""
    return Estimate((worst.value + best.value) / 2, (worst.interval[0], best.interval[1]))


def keep(run: Run, result: dict[str, Any]) -> bool:
    """Writes what `judge` returned as ``RUN/check.json``, unless a check by more labels lies there; says whether it did."""
    try:
        earlier = run.checked
    except UserError:  # a damaged one is replaced
        earlier = None
    if earlier is not None and earlier["labels"] > result["labels"]:
        return False
    with atomic_write(run.path / CHECK) as path:
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return True


def check_table(result: dict[str, Any]) -> Table:
    """The figures that the answers give, beside those that were estimated without them."""
    unsure = f", and {result['unsure']} images that cannot be told" if result["unsure"] else ""
    title = f"by {result['labels']} labels{unsure}; those of images that are drawn less often count for more"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("classifier", "accuracy", "90 % interval", "estimated", "its interval"):
        table.add_column(name, justify="left" if name == "classifier" else "right")
    estimated = result["estimated"]
    without = {"adapted": Estimate(estimated["accuracy"], estimated["interval"])}
    if "source_only" in estimated:  # runs from before the study have no such estimate
        without["source"] = Estimate(estimated["source_only"], estimated["source_only_interval"])
    for name in ("source", "adapted"):
        checked = Estimate(result["accuracy"][name], result["interval"][name])
        table.add_row(name, *_figures(checked, 3), *(_figures(without[name], 2) if name in without else ("", "")))
    return table


def _figures(estimate: Estimate, digits: int) -> tuple[str, str]:
    value, low, high = (f"{figure:.{digits}f}" for figure in (estimate.value, *estimate.interval))
    return value, f"{low} .. {high}"


def verdict(result: dict[str, Any]) -> str:
    """Which classifier is better, and whether the estimate without labels holds, in a sentence each."""
    low, high = result["difference"]["interval"]
    widest = max(-low, high)
    span = f"by {100 * low:+.1f} .. {100 * high:+.1f} points"
    better = {
        "adapted": f"the adapted classifier is better than the source's, {span}",
        "source": f"the source classifier is better than the adapted one, {span} for the adapted: use --which source",
        None: f"source and adapted are equally good, within {100 * widest:.1f} points"
        if widest <= ALIKE
        else f"these labels do not tell whether source or adapted is better: they differ {span}; more of them may",
    }[result["better"]]
    low, high = result["interval"]["adapted"]
    estimated = result["estimated"]["accuracy"]
    holds = "is" if low <= estimated <= high else "is not"
    return f"{better}; the estimate without labels, {estimated:.3f}, {holds} within the interval"
