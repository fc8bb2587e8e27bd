"""Tables, arrays and names of any kind: read as they were written, in their order, or refused in one line."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable
from os.path import normpath
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests.conftest import DRAWING
from uda import UserError
from uda.console import Display, new_console
from uda.data.folders import Found, find, pack
from uda.data.frame import Frame
from uda.inference.predict import evaluation_table, write_predictions
from uda.paths import distinct
from uda.runs.run import Run

QUIET = Display(quiet=True)
Read = TypeVar("Read")
FEW = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refused(read: Callable[[], Read]) -> Read | None:
    """What was read; None where it was refused, which takes one line."""
    try:
        return read()
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    return None


def names_of(found: Found) -> list[str]:
    return [found.name(position) for position in range(len(found))]


# Tables

CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMED = st.tuples(st.text("ab/.é ;,\"'\t$", max_size=8), st.sampled_from(("n.png", "n.JPG", "n.tiff"))).map("".join)
WRITTEN = st.tuples(NAMED, st.one_of(st.text("ab 1é,;\"'-", min_size=1, max_size=6), CELL))
ENCODINGS = "utf-8", "utf-8-sig", "utf-16", "latin-1"


def find_table(rows: list[tuple[str, ...]], encoding: str, labelled: bool, **dialect: Any) -> Found:
    text = io.StringIO()
    csv.writer(text, **dialect).writerows(rows)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "table.csv").write_bytes(text.getvalue().encode(encoding, "replace"))
        return find(Path(folder) / "table.csv", labelled)


@given(
    rows=st.lists(WRITTEN, min_size=1, max_size=6), header=st.sampled_from(((), ("path", "label"), ("file", "class"))),
    encoding=st.sampled_from(ENCODINGS), quoting=st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    end=st.sampled_from(("\n", "\r\n", "\r")), delimiter=st.sampled_from((",", ",", ";", "\t")), labelled=st.booleans(),
)  # fmt: skip
@example(
    rows=[("a.png", "cat\0")], header=(), encoding="utf-8", quoting=csv.QUOTE_ALL, end="\n", delimiter=",", labelled=True
)  # numpy would drop the zero byte
@settings(max_examples=100)
def test_a_table_is_read_as_it_is_written_or_refused(
    rows: list[tuple[str, str]], header: tuple[str, ...], encoding: str, quoting: Any, end: str, delimiter: str, labelled: bool
) -> None:
    """What another encoding makes of letters it lacks is not what was written; nor are spaces around a cell."""
    dialect = {"quoting": quoting, "lineterminator": end, "delimiter": delimiter}
    found = read_or_refused(lambda: find_table([header, *rows] if header else rows, encoding, labelled, **dialect))
    if found is not None:
        wanted = [(name.strip(), label.strip()) for name, label in rows]
        if labelled:  # an image counts once
            wanted = [row for at, row in enumerate(wanted) if normpath(row[0]) not in {normpath(name) for name, _ in wanted[:at]}]
        labels = wanted if found.labels is None else list(zip(names_of(found), found.labels.tolist(), strict=True))
        assert names_of(found) == [name for name, _ in wanted]
        assert labels == wanted


LABELLED = st.tuples(NAMED, st.text("abc é", min_size=1).filter(str.strip))
RIGHT = st.lists(LABELLED, min_size=1, max_size=6, unique_by=lambda row: normpath(row[0].strip()))


@given(rows=RIGHT, bom=st.booleans())
@FEW
def test_a_right_table_is_read(rows: list[tuple[str, str]], bom: bool) -> None:
    found = find_table(rows, "utf-8-sig" if bom else "utf-8", labelled=True)
    assert len(found) == len(rows)


# Arrays

IMAGES = st.one_of(
    arrays.arrays(np.uint8, st.sampled_from([(3, 4, 5), (3, 1, 4, 5), (3, 4, 5, 3), (3, 3, 2, 2), (3, 4, 5, 1), (0, 4, 4)])),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)),
)
LABELS = st.one_of(
    arrays.arrays(st.sampled_from(["i8", "u8", "i1", "f4", "f8", "?"]), 3),
    arrays.arrays("U4", 3, elements=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)),
    arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)),
)
KEYS = st.sampled_from(("images", "labels", "note", "Images", "images.npy", "a/b", "é"))


@given(images=IMAGES, labels=LABELS, more=st.dictionaries(KEYS, st.integers(0, 9), max_size=2), labelled=st.booleans())
@settings(max_examples=100)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_arrays_are_read_as_they_are_written_or_refused(
    images: np.ndarray, labels: np.ndarray, more: dict[str, int], labelled: bool
) -> None:
    given = {"images": images, "labels": labels} | {key: np.array(value) for key, value in more.items()}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "a.npz", **given)
        found = read_or_refused(lambda: find(Path(folder) / "a.npz", labelled))
    if found is None:
        return
    assert found.pixels is not None
    images, labels = given["images"], given["labels"]
    assert (images.dtype, len(found)) == (np.uint8, len(images))
    assert np.array_equal(np.sort(found.pixels.numpy(), None), np.sort(images, None))
    if found.labels is not None:
        assert found.labels.tolist() == [str(int(value)) if labels.dtype.kind in "fb" else str(value) for value in labels]


# Names

ODD = b"$\\foo$", b"[/red]", b"<script>", b"=1+1", b"a\nb", b"\x1b[2J", b"\xff\xfe", b"x" * 251, "é".encode() * 125
NAME = st.one_of(st.binary(min_size=1, max_size=40), st.sampled_from(ODD)).filter(
    lambda name: not set(b"/\0") & set(name) and not name.startswith(b".")
)


def write_image(folder: bytes, name: bytes, grey: int) -> None:
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        Image.new("L", (8, 8), grey).save(file, "PNG")


@given(names=st.lists(NAME, min_size=1, max_size=5, unique=True), classes=st.lists(NAME, min_size=2, max_size=2, unique=True))
@FEW
def test_files_of_any_name_are_found_packed_and_found_again(names: list[bytes], classes: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as made:
        root, wanted = Path(made) / "in", {}
        for number, name in enumerate(names):
            inner = classes[number % 2]
            write_image(os.path.join(os.fsencode(root), inner), name + b".png", 10 * number)
            wanted[os.fsdecode(inner + b"/" + name + b".png")] = 10 * number
        found = find(root, labelled=False)
        assert shown(found) == wanted
        if (labelled := read_or_refused(lambda: find(root, labelled=True))) is not None and labelled.labels is not None:
            assert labelled.labels.tolist() == [name.partition("/")[0] for name in names_of(labelled)]
        packed = find(Path(pack(root, Path(made) / "out", 3, 0, QUIET)), labelled=False)
        assert {name.split(".tar/", 1)[1]: value for name, value in shown(packed).items()} == wanted


def shown(found: Found) -> dict[str, int]:
    """The grey of each image, by its name."""
    values = {}
    for positions, images, unreadable in found.decoded(Frame(8, 1)):
        assert unreadable == []
        values |= {found.name(position): int(image[0, 0, 0]) for position, image in zip(positions, images, strict=True)}
    return values


@given(names=st.lists(NAME, min_size=1, max_size=5, unique=True))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_predictions_have_a_row_for_every_name(names: list[bytes], tiny_run: Run) -> None:
    with tempfile.TemporaryDirectory() as made:
        for name in names:
            write_image(os.fsencode(made), name + b".png", 0)
        table = Path(made) / "table.csv"
        count = write_predictions(tiny_run, Path(made), table, "last", QUIET)
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [row["path"].removeprefix("'") for row in csv.DictReader(file)]
    assert count == len(names)
    assert sorted(os.fsencode(row) for row in rows) == sorted(name.removeprefix(b"'") + b".png" for name in names)


@given(st.lists(st.tuples(st.text("aAbé/", max_size=3), st.sampled_from(("", ".png", ".PNG", ".jpg", "-2.png"))), max_size=8))
def test_no_two_outputs_have_one_name(names: list[tuple[str, str]]) -> None:
    given = [Path(f"{stem}x{ending}") for stem, ending in names]
    made = [str(path).casefold() for path in distinct(given)]
    assert len(set(made)) == len(given)


@given(names=st.lists(st.text(min_size=1).filter(str.isprintable), min_size=2, max_size=3, unique=True))
@example(["猫", "$\\foo$"])
@settings(max_examples=8)
@pytest.mark.filterwarnings("error")
def test_classes_of_any_name_are_drawn_and_shown(names: list[str]) -> None:
    assert "<svg" in DRAWING["draw_classes"](names, [0.5] * len(names), [0.25] * len(names))
    matrix = np.eye(len(names), dtype=int).tolist()
    result = {
        "accuracy": 0.5, "images": 2, "data": names[0], "note": names[-1], "classes": names, "per_class": [0.5] * len(names),
        "confusion": matrix,
    }  # fmt: skip
    console = new_console()
    with console.capture() as captured:
        console.print(evaluation_table(result))
    assert "\x1b[2J" not in captured.get()
