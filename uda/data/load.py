"""Data sets by name, and the four splits of an adaptation problem."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uda.console import Display
from uda.data.arrays import read_note
from uda.data.datasets.city import DRAWN_NOTE, REAL_NOTE, UNLABELLED, View, load_city, real_files
from uda.data.datasets.digits import NAMES, NOTES, Split, load_digits, locate
from uda.data.datasets.mnist_m import NOTE as MNIST_M_NOTE
from uda.data.datasets.mnist_m import load_mnist_m
from uda.data.datasets.synthetic import HANDWRITTEN_NOTE, STREET_NOTE, load_handwritten_digits, load_street_digits
from uda.data.domain import Domain, LabelledDomain, Pair
from uda.data.folders import Found, check_classes, class_names, find, hold_out, load_labelled, load_unlabelled, own_size, peek
from uda.data.frame import Frame
from uda.data.names import DATA_SETS, is_path
from uda.errors import UserError

if TYPE_CHECKING:
    from uda.data.settings import DataSettings

VIEWS: dict[str, View] = {"aerial": "aerial", "map": "map"}
GREY = ("mnist", "usps", "digits")
EMBEDDED = {"synth": load_street_digits, "digits": load_handwritten_digits}
EMBEDDED_NOTES = {"synth": STREET_NOTE, "digits": HANDWRITTEN_NOTE}


def data_root(given: Path | None) -> Path:
    """Where data sets lie: what was given, else $UDA_DATA, else a folder in the user's cache, which the first download makes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uda"
    if given is not None:
        if not given.is_dir() and given.absolute() != cache.absolute():
            raise UserError(f"--data-root {given} is not a folder; give one that holds the data sets")
        return given
    if os.environ.get("UDA_DATA"):
        root = Path(os.environ["UDA_DATA"])
        if not root.is_dir():
            raise UserError(f"$UDA_DATA is {root}, which is not a folder; point it to one that holds the data sets, or unset it")
        return root
    return cache


def resolve_frame(wanted: DataSettings, source: Found | None, target: Found | None, published: Frame | None = None) -> Frame:
    """The frame of a run's images, where `wanted` leaves it open; None stands for a data set known by name.

    The side: 32 for a known source; else the `published` one of a network that comes with one; else a user's own images decide
    for themselves (`own_size`). Where a side is asked for, nothing is cut off but what makes images square. Channels: 1 where
    both domains are grey (of a user's images, up to 1,000 are asked, evenly spaced) and no published network wants 3.
    """
    size, resize, interpolation = wanted.size, wanted.resize, wanted.interpolation
    if published is not None and source is not None:
        size, resize = (size, resize) if size else (published.size, resize or published.resize)
        interpolation = interpolation or published.interpolation
    size = size or (32 if source is None else own_size(source))
    if resize is not None and resize < size:
        raise UserError(f"data.resize is {resize}, less than the {size} pixels that are cut out of it; set it to {size} or more")
    parts = (wanted.source, source), (wanted.target, target)

    def all_grey() -> bool:
        return all(name in GREY if found is None else peek(found)[1] for name, found in parts)

    colour = published is not None and source is not None
    return Frame(size, wanted.channels or (1 if not colour and all_grey() else 3), resize, interpolation or "bilinear")


def find_frame(wanted: DataSettings, classifies: bool = True, published: Frame | None = None) -> Frame:
    """As `resolve_frame`, for images that are still to be found (see `find_all`)."""
    labelled, unlabelled = find_all(wanted, classifies)
    return resolve_frame(wanted, labelled.get(wanted.source), unlabelled, published)


def load_named(name: str, split: Split, root: Path, size: int, channels: int) -> LabelledDomain:
    """One split of a data set by name."""
    if name in EMBEDDED:
        return EMBEDDED[name](split, size, channels)
    if name in VIEWS:
        return load_city(VIEWS[name], split, root, size, channels)
    if name == "mnist-m":
        return load_mnist_m(split, root, size, channels)
    if name not in NAMES:
        raise UserError.unknown("data set", name, DATA_SETS, "a folder, a .csv or an .npz")
    return load_digits(name, split, root, size, channels)


def load_named_test(name: str, classes: tuple[str, ...], root: Path, size: int, channels: int) -> LabelledDomain:
    """A data set's test split by name.

    Raises:
        UserError: where its classes are not `classes`.
    """
    domain = load_named(name, "test", root, size, channels)
    if domain.classes != classes:
        raise UserError(f"{name} has the classes {', '.join(domain.classes)}, not {', '.join(classes)}")
    return domain


def find_all(wanted: DataSettings, classifies: bool = True) -> tuple[dict[str, Found], Found | None]:
    """A user's own images, of which none is decoded: the labelled ones by what the recipe calls them, and the target's.

    Raises:
        UserError: where there are none, their labels are missing, or a name is neither a path nor a data set's.
    """
    tests = [name for name in (wanted.source_test, wanted.target_test) if name is not None]
    labelled = {name: find(Path(name), labelled=classifies) for name in (wanted.source, *tests) if is_path(name)}
    if not classifies:
        labelled = {name: replace(found, labels=np.full(len(found), *UNLABELLED)) for name, found in labelled.items()}
    for name in (wanted.source, wanted.target, *tests):
        if not (is_path(name) or name in DATA_SETS):
            raise UserError.unknown("data set", name, DATA_SETS, "a folder, a .csv or an .npz")
    return labelled, find(Path(wanted.target), labelled=False) if is_path(wanted.target) else None


def load_pair(wanted: DataSettings, root: Path, display: Display, classifies: bool = True, look: bool = True) -> Pair:
    """Train and test splits of both domains, in one frame, which `wanted` holds (see `find_frame`).

    Data sets go by name, or by the path of a user's own images. Of those, the target's are read without labels, and its test
    images are `wanted.target_test`, if any; a source without `source_test` gives every tenth image of a class to testing. Where
    nobody `classifies`, a user's own source and test images need no labels either: all are of the one class ``image``.

    With `look`, every file is decoded once, so that a damaged one is known; without, none is: a frozen body will read them.

    Raises:
        UserError: for an unknown name (with the nearest right one), or files that are missing or damaged.
    """
    # All that can be known without decoding images is looked at before any is decoded.
    labelled, unlabelled = find_all(wanted, classifies)
    channels, size, _ = wanted.shape
    frame = wanted.frame, int(wanted.memory * 2**30) if look else None, display
    named = None if wanted.source in labelled else load_named(wanted.source, "train", root, size, channels)
    classes = named.classes if named is not None else tuple(wanted.classes or class_names(labelled[wanted.source]))
    for found in labelled.values():
        check_classes(found, classes)
    source = named if named is not None else load_labelled(labelled[wanted.source], classes, *frame)

    def test(name: str) -> LabelledDomain:
        if name in labelled:
            return load_labelled(labelled[name], classes, *frame)
        return load_named_test(name, classes, root, size, channels)

    if wanted.source_test is not None:
        source_test = test(wanted.source_test)
    elif wanted.source in labelled:
        source, source_test = hold_out(source)
    else:
        source_test = test(wanted.source)
    target: Domain
    if unlabelled is not None:
        target = load_unlabelled(unlabelled, classes, *frame)
        target_test = test(wanted.target_test) if wanted.target_test is not None else None
    else:
        target = load_named(wanted.target, "train", root, size, channels)
        target_test = test(wanted.target_test or wanted.target)
    return Pair(source, source_test, target, target_test)


def describe(given_root: Path | None) -> list[tuple[str, str, str, str]]:
    """(name, split, state, what it is) of every data set, for `uda data`. Reads notes, not images."""
    root = data_root(given_root)
    rows: list[tuple[str, str, str, str]] = []
    splits: tuple[Split, ...] = ("train", "test")
    for name, split in itertools.product(NAMES, splits):
        place = locate(name, split, root)
        if place.kind == "arrays":
            rows.append((name, split, f"here: {place.path}", read_note(place.path)))
        elif place.kind == "official":
            rows.append((name, split, f"here: {root}, official files", NOTES[name]))
        else:
            rows.append((name, split, f"not here; would be downloaded to {root}", NOTES[name]))
    rows += [("mnist-m", split, "made of mnist and photographs", MNIST_M_NOTE) for split in splits]
    for view, split in itertools.product(VIEWS, splits):
        here = bool(real_files(split, root))
        rows.append((view, split, f"here: {root / 'maps'}" if here else "made on the spot", REAL_NOTE if here else DRAWN_NOTE))
    return [*rows, *((name, split, "made on the spot", note) for name, note in EMBEDDED_NOTES.items() for split in splits)]
