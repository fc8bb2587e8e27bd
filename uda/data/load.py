"""Data sets by name, and the four splits of an adaptation problem."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from uda.console import Display
from uda.data.arrays import read_note
from uda.data.datasets.city import DRAWN_NOTE, REAL_NOTE, UNLABELLED, View, load_city, real_files
from uda.data.datasets.digits import NAMES, NOTES, Split, classes_in, load_digits, locate
from uda.data.datasets.mnist_m import NOTE as MNIST_M_NOTE
from uda.data.datasets.mnist_m import load_mnist_m, published_file, read_published_note
from uda.data.datasets.photographs import require
from uda.data.datasets.synthetic import HANDWRITTEN_NOTE, STREET_NOTE, load_handwritten_digits, load_street_digits
from uda.data.domain import TRAINED_ON, Domain, LabelledDomain, Pair
from uda.data.folders import (
    Found,
    check_classes,
    class_names,
    find_at,
    hold_out,
    load_labelled,
    load_unlabelled,
    own_size,
    peek,
    split_classes,
)
from uda.data.frame import Frame
from uda.data.names import DATA_SETS, is_domain, is_path, nowhere
from uda.errors import UserError

if TYPE_CHECKING:
    from uda.data.settings import DataSettings

VIEWS: dict[str, View] = {"aerial": "aerial", "map": "map"}
GREY = ("mnist", "usps", "fashion-mnist", "digits")
EMBEDDED = {"synth": load_street_digits, "digits": load_handwritten_digits}
EMBEDDED_NOTES = {"synth": STREET_NOTE, "digits": HANDWRITTEN_NOTE}
DAMAGED = "damaged"
Role = Literal["source", "source_test", "target", "target_test"]
ROLES: tuple[Role, ...] = get_args(Role)


def resolve_frame(
    wanted: DataSettings,
    source: Found | None,
    target: Found | None,
    published: Frame | None = None,
    channels: int | None = None,
) -> Frame:
    """The frame of a run's images, where `wanted` leaves it open; None stands for a data set known by name.

    The side: 32 for a known source; else the `published` one of a network that comes with one; else a user's own images decide
    for themselves (`own_size`). Where a side is asked for, nothing is cut off but what makes images square. Channels: what the
    network takes, where that is known (`channels`, or 3 of a published one); else 1 where both domains are grey (of a user's
    images, up to 1,000 are asked, evenly spaced), and 3 otherwise.
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
    chosen = wanted.channels or channels or (1 if not colour and all_grey() else 3)
    return Frame(size, chosen, resize, interpolation or "bilinear")


def find_frame(
    wanted: DataSettings,
    roots: Sequence[Path],
    classifies: bool = True,
    published: Frame | None = None,
    channels: int | None = None,
) -> Frame:
    """As `resolve_frame`, for images that are still to be found (see `find_all`)."""
    found = find_all(wanted, roots, classifies)
    return resolve_frame(wanted, found.get("source"), found.get("target"), published, channels)


def load_named(name: str, split: Split, roots: Sequence[Path], size: int, channels: int) -> LabelledDomain:
    """One split of a data set by name, which is looked for under the `roots` (see `uda.data.names.data_roots`)."""
    if name in EMBEDDED:
        return EMBEDDED[name](split, size, channels)
    if name in VIEWS:
        return load_city(VIEWS[name], split, roots, size, channels)
    if name == "mnist-m":
        return load_mnist_m(split, roots, size, channels)
    if name not in NAMES:
        raise nowhere(name)
    return load_digits(name, split, roots, size, channels)


def load_named_test(name: str, classes: tuple[str, ...], roots: Sequence[Path], size: int, channels: int) -> LabelledDomain:
    """A data set's test split by name.

    Raises:
        UserError: where its classes are not `classes`.
    """
    check_named_classes(name, classes)
    return load_named(name, "test", roots, size, channels)


def named_classes(name: str) -> tuple[str, ...]:
    """The classes of a data set by name, of which nothing is read."""
    return UNLABELLED if name in VIEWS else classes_in(name)


def check_named_classes(name: str, classes: tuple[str, ...]) -> None:
    """Raises `UserError` where a data set by name has other classes than `classes`."""
    if (its := named_classes(name)) != classes:
        raise UserError(
            f"{name} has the classes {', '.join(its)}, not {', '.join(classes)}; source and target must have the same: give "
            "images of the latter, as a folder CLASS/IMAGE.png, a .csv of path,label or an .npz"
        )


def find_all(wanted: DataSettings, roots: Sequence[Path], classifies: bool = True) -> dict[Role, Found]:
    """What a recipe's images are, where they do not go by a data set's name alone. None is decoded.

    They have labels (where nobody `classifies`, all the same one), except those of a target that is given by its path. Sets of
    photographs that bring lists of test images give these where the recipe names no others.

    Raises:
        UserError: where there are none, their labels are missing, or a name is neither a path nor a data set's.
    """
    if _lies_within(wanted.target, wanted.source):
        raise UserError(f"{wanted.target} lies in {wanted.source}, and would be one of its classes; have both beside each other")
    found: dict[Role, Found] = {}
    for role in ROLES:
        name = _name(wanted, role)
        if name is None or name in DATA_SETS:
            continue
        if is_path(name):
            labelled = classifies and role != "target"
            found[role] = find_at(name, labelled)
        elif is_domain(name):
            place = require(name, roots)
            if getattr(wanted, role) is not None or place.has_lists:
                found[role] = place.find("test" if role.endswith("test") else "train")
        else:
            raise nowhere(name)
    if classifies:
        return found
    unlabelled = {role for role, part in found.items() if role == "target" and part.labels is None}
    return {r: f if r in unlabelled else replace(f, labels=np.full(len(f), *UNLABELLED)) for r, f in found.items()}


def _lies_within(inner: str, outer: str) -> bool:
    """Whether one folder of images lies in another."""
    if not (is_path(inner) and is_path(outer) and os.path.isdir(inner) and os.path.isdir(outer)):
        return False
    inside, around = Path(inner).resolve(), Path(outer).resolve()
    return inside != around and inside.is_relative_to(around)


def _name(wanted: DataSettings, role: Role) -> str | None:
    """What the recipe says of a role; where it says nothing of test images, a set that may bring its own."""
    name: str | None = getattr(wanted, role)
    if name is None:
        name = getattr(wanted, role.removesuffix("_test"))
        return name if name is not None and is_domain(name) else None
    return name


def check_all_classes(found: dict[Role, Found], classes: Iterable[str], unknown: bool = False) -> None:
    """Compares all labels with the source's `classes`; of the target some may be missing, and with `unknown` others may be there.

    Raises:
        UserError: where they differ.
    """
    for role, part in found.items():
        of_target = role.startswith("target")
        if part.labels is not None and not (of_target and unknown):
            whose = "data.classes names" if role == "source" else "the source has"
            check_classes(part, classes, not of_target, "data.unknown=class" if of_target else None, whose)


def load_pair(wanted: DataSettings, roots: Sequence[Path], display: Display, classifies: bool = True, look: bool = True) -> Pair:
    """Train and test splits of both domains, in one frame.

    Data sets go by name, or by the path of a user's own images. A target that is given by its path has no labels, and its test
    images are `wanted.target_test`, if any. Photographs as SET/DOMAIN have labels: where they come in one part, all are adapted
    to and tested on, as in the papers; the method is given none of the labels (see `Pair`). A source without test images gives
    every tenth of a class to testing, or, without `wanted.held_out`, is tested on what it was trained on. Where nobody
    `classifies`, images need no labels: all are of the one class ``image``.

    Args:
        wanted: which images, and how they are framed.
        roots: folders that data sets are looked for in, and downloaded to the first of.
        display: shows how reading goes on.
        classifies: whether labels have a meaning.
        look: whether every file is decoded once, so that a damaged one is known; else none is: a frozen body will read them.

    Raises:
        UserError: for an unknown name (with the nearest right one), or files that are missing or damaged.
    """
    # All that can be known without decoding images is looked at before any is decoded.
    found = find_all(wanted, roots, classifies)
    settled = resolve_frame(wanted, found.get("source"), found.get("target"))
    size, channels, memory = settled.size, settled.channels, int(wanted.memory * 2**30) if look else None
    frame = settled, memory, display, wanted.looked_at
    named = None if "source" in found else load_named(wanted.source, "train", roots, size, channels)
    classes = named.classes if named is not None else tuple(wanted.classes or class_names(found["source"]))
    check_all_classes(found, classes, wanted.unknown == "class")
    found, further = split_target(found, classes)

    def own(role: Role) -> LabelledDomain:
        return _titled(load_labelled(found[role], classes, *frame), _name(wanted, role))

    def test(role: Role, name: str) -> LabelledDomain:
        return own(role) if role in found else load_named_test(name, classes, roots, size, channels)

    source = named if named is not None else own("source")
    if wanted.source_test is not None or "source_test" in found or named is not None:
        source_test = test("source_test", wanted.source_test or wanted.source)
    elif wanted.held_out:
        source, source_test = hold_out(source)
    else:
        source = source_test = replace(source, note=f"{source.note}, {TRAINED_ON}")
    target: Domain
    target_test: LabelledDomain | None = None
    if "target" not in found:
        target = load_named(wanted.target, "train", roots, size, channels)
        target_test = test("target_test", wanted.target_test or wanted.target)
    elif found["target"].labels is None:
        target = load_unlabelled(found["target"], classes, *frame)
        tested = wanted.target_test is not None or "target_test" in found
        target_test = test("target_test", wanted.target_test or wanted.target) if tested else None
    elif wanted.target_test is not None or "target_test" in found:
        target, target_test = own("target"), test("target_test", wanted.target_test or wanted.target)
    else:
        whole = own("target")
        target = target_test = replace(whole, note=f"{whole.note}, all of them adapted to and tested on (transductive)")
    unknown = None if further is None else load_unlabelled(further, classes, *frame)
    return Pair(source, source_test, target, target_test and with_missing_classes(target_test), unknown)


def split_target(found: dict[Role, Found], classes: Iterable[str]) -> tuple[dict[Role, Found], Found | None]:
    """What was found with the images of `classes` alone in the target's labelled test images, and those of further classes.

    Training images that hold further classes lose their labels instead: all are adapted to. Where they are tested on, too, those
    of `classes` are named as test images.
    """
    split = {
        role: split_classes(part, classes)
        for role, part in found.items()
        if role.startswith("target") and part.labels is not None
    }
    of_test, of_target = split.get("target_test"), split.get("target")
    if of_target is not None and of_target[1] is not None:
        found = found | {"target": replace(found["target"], labels=None)}
        of_test = of_test or of_target
    if of_test is None:
        return found, None
    known, further = of_test
    return found | {"target_test": known}, further


def _titled(domain: LabelledDomain, name: str | None) -> LabelledDomain:
    """Photographs are called SET/DOMAIN; a folder of one's own by its own name."""
    return replace(domain, name=name) if name is not None and is_domain(name) else domain


def with_missing_classes(domain: LabelledDomain) -> LabelledDomain:
    """The domain with a note that says which classes it has no image of."""
    present = set(domain.labels.unique().tolist())
    missing = [name for number, name in enumerate(domain.classes) if number not in present]
    if not missing:
        return domain
    which = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
    return replace(domain, note=f"{domain.note}, without images of {len(missing)} of {len(domain.classes)} classes: {which}")


def describe(roots: Sequence[Path]) -> list[tuple[str, str, str, str]]:
    """(name, split, state, what it is) of every data set that has one name, for `uda data`. Reads notes, not images."""
    rows: list[tuple[str, str, str, str]] = []
    splits: tuple[Split, ...] = ("train", "test")
    for name, split in itertools.product(NAMES, splits):
        place = locate(name, split, roots)
        if place.kind == "arrays":
            rows.append((name, split, *_noted(place.path, read_note)))
        elif place.kind == "official":
            rows.append((name, split, f"here: {place.path}, official files", NOTES[name]))
        else:
            rows.append((name, split, f"not here; would be downloaded to {place.path}", NOTES[name]))
    for split in splits:
        path = published_file(split, roots)
        state, note = ("made of mnist and photographs", MNIST_M_NOTE) if path is None else _noted(path, read_published_note)
        rows.append(("mnist-m", split, state, note))
    for view, split in itertools.product(VIEWS, splits):
        files = real_files(split, roots)
        state, note = (f"here: {files[0].parent}", REAL_NOTE) if files else ("made on the spot", DRAWN_NOTE)
        rows.append((view, split, state, note))
    return [*rows, *((name, split, "made on the spot", note) for name, note in EMBEDDED_NOTES.items() for split in splits)]


def _noted(path: Path, read: Callable[[Path], str]) -> tuple[str, str]:
    """Where a file is, and its note; or that it is damaged, and how, for which the others are still to be told of."""
    try:
        return f"here: {path}", read(path)
    except UserError as error:
        return f"{DAMAGED}: {path}", str(error)
