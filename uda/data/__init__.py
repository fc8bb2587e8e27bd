"""Data sets by name, and the four splits of an adaptation problem."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from uda.data.digits import NAMES, NOTES, Split, load_digits, locate, read_note
from uda.data.domain import LabelledDomain, Pair
from uda.data.synthetic import HANDWRITTEN_NOTE, STREET_NOTE, load_handwritten_digits, load_street_digits
from uda.errors import UserError

EMBEDDED = {"synth": load_street_digits, "digits": load_handwritten_digits}
EMBEDDED_NOTES = {"synth": STREET_NOTE, "digits": HANDWRITTEN_NOTE}


def data_root(given: Path | None) -> Path:
    """Where data sets lie: what was given, else $UDA_DATA, else a folder in the user's cache (which downloads fill)."""
    if given is not None:
        if not given.is_dir():
            raise UserError(f"--data-root {given} is not a folder; give one that holds the data sets")
        return given
    if os.environ.get("UDA_DATA"):
        root = Path(os.environ["UDA_DATA"])
        if not root.is_dir():
            raise UserError(f"$UDA_DATA is {root}, which is not a folder; point it to one that holds the data sets, or unset it")
        return root
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uda"


def load(name: str, split: Split, root: Path, size: int, channels: int) -> LabelledDomain:
    """One split of a data set by name."""
    if name in EMBEDDED:
        return EMBEDDED[name](split, size, channels)
    return load_digits(name, split, root, size, channels)


def load_pair(source: str, target: str, root: Path, size: int, channels: int) -> Pair:
    """Train and test splits of both domains, at one size and channel count.

    Raises:
        UserError: for an unknown name (with the nearest right one), or files that are missing or damaged.
    """
    for name in (source, target):
        if name not in (*NAMES, *EMBEDDED):
            raise UserError.unknown("data set", name, [*NAMES, *EMBEDDED])
    return Pair(*(load(name, split, root, size, channels) for name in (source, target) for split in ("train", "test")))


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
    return [*rows, *((name, split, "made on the spot", note) for name, note in EMBEDDED_NOTES.items() for split in splits)]
