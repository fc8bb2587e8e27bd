"""Photographs in several domains: Office-31, PACS, Office-Home, VisDA-2017, DomainNet, and any other set that is laid out alike.

A domain is ``SET/DOMAIN/CLASS/IMAGE`` or, as in Office-31's archive, ``SET/DOMAIN/images/CLASS/IMAGE`` under a data root. Case,
and what stands between words, do not matter: ``office-home/real_world`` finds ``OfficeHome/Real World``. The folder that an
archive unpacks to may stand in the set's place, or lie in it. All images of a domain are for training and for testing, except
where lists of ``path label`` lines say more:

- ``SET/DOMAIN_train.txt`` and ``SET/DOMAIN_test.txt`` (DomainNet): the two splits, paths from the set's folder;
- ``visda-2017/test/image_list.txt``: the classes of images that lie in folders without a meaning, by number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uda.data.datasets.digits import Split
from uda.data.folders import Found, find
from uda.data.names import PHOTOGRAPH_SETS, PhotographSet, listed
from uda.data.shards import EXTENSIONS, Members
from uda.errors import UserError

VISDA_CLASSES = (
    "aeroplane", "bicycle", "bus", "car", "horse", "knife", "motorcycle", "person", "plant", "skateboard", "train", "truck",
)  # fmt: skip
"""in the order of VisDA-2017's numbers"""
SPLITS: tuple[Split, Split] = ("train", "test")
SPLIT_WORDS = {"train": "training", "test": "test"}


@dataclass(frozen=True)
class Place:
    """Where a domain lies: `name` is SET/DOMAIN as the set spells it, and `folder` the domain's, below the set's."""

    name: str
    folder: Path
    known: PhotographSet | None

    @property
    def has_lists(self) -> bool:
        """Whether the set comes with lists of training and test images."""
        return all(self._list(split).exists() for split in SPLITS)

    def find(self, split: Split) -> Found:
        """The images of one split, or, where there are no lists, all of them; with their labels.

        Raises:
            UserError: where there are no class folders, or a list is damaged.
        """
        names: np.ndarray | Members
        numbered, which = self.folder / "image_list.txt", ""
        if self.has_lists:
            names, labels = _read_list(self._list(split))
            root, which = self.folder.parent, f", the set's own {SPLIT_WORDS[split]} list"
        elif self.name == "visda-2017/test" and numbered.exists():
            names, labels = _read_list(numbered, VISDA_CLASSES)
            root = self.folder
        else:
            below = self.folder / "images"
            root = below if _folders(below) else self.folder
            found = find(root, labelled=True)
            assert found.labels is not None
            names, labels = found.names, found.labels
        return Found(self.folder, names, root, None, labels, self._note(len(np.unique(labels))) + which)

    def _list(self, split: Split) -> Path:
        return self.folder.parent / f"{self.folder.name}_{split}.txt"

    def _note(self, classes: int) -> str:
        if self.known is None:
            return f"{self.name}, {classes} classes"
        whole = "" if classes == self.known.classes else f" of its {self.known.classes}"
        return f"{self.known.title}, {self.name.partition('/')[2]}, {classes}{whole} classes"


def locate(name: str, roots: Sequence[Path]) -> Place | None:
    """Where SET/DOMAIN lies: under the first of the roots that has it."""
    set_name, domain = name.split("/")
    set_name, known = _known(set_name)
    names = set_name, *(known.folders if known else ())
    outer = (folder for root in roots for folder in _matching(root, names))
    within = (inner for folder in outer for inner in (folder, *_matching(folder, names)))
    folder = next((place for inner in within for place in _matching(inner, (domain,)) if _folders(place)), None)
    if folder is None:
        return None
    spelled = [one for one in known.domains if _plain(one) == _plain(domain)] if known else []
    return Place(f"{set_name}/{spelled[0] if spelled else folder.name}", folder, known)


def require(name: str, roots: Sequence[Path]) -> Place:
    """As `locate`.

    Raises:
        UserError: where it is not there; the line says where that was looked at, and where the set is to be had.
    """
    place = locate(name, roots)
    if place is not None:
        return place
    set_name, domain = name.split("/")
    set_name, known = _known(set_name)
    if known is None:
        sets = ", ".join(PHOTOGRAPH_SETS)
        raise UserError(
            f"no images at {name}: it is neither a folder here nor {name}/CLASS/IMAGE under {listed(roots)}; give a folder, "
            f"another --data-root, or a domain of {sets}"
        )
    if _plain(domain) not in map(_plain, known.domains):
        raise UserError.unknown(f"domain of {set_name}", domain, known.domains)
    raise UserError(
        f"no {set_name}/{domain}/CLASS/IMAGE under {listed(roots)}; {known.title} is to be had at {known.page}: unpack it there, "
        "or give --data-root"
    )


def describe(roots: Sequence[Path]) -> Iterator[tuple[str, str, str, str]]:
    """(name, split, state, what it is) of the domains that lie under the roots, and of the known ones that do not."""
    for set_name, known in PHOTOGRAPH_SETS.items():
        places = {domain: locate(f"{set_name}/{domain}", roots) for domain in known.domains}
        for place in places.values():
            if place is not None:
                yield from _describe(place)
        missing = [domain for domain, place in places.items() if place is None]
        if missing:
            yield f"{set_name}/", "", f"not here; to be had at {known.page}", f"{known.title}: {', '.join(missing)}"
    theirs = {_plain(name) for set_name, known in PHOTOGRAPH_SETS.items() for name in (set_name, *known.folders)}
    others = (folder for root in roots for folder in _folders(root) if _plain(folder.name) not in theirs)
    seen: set[str] = set()
    for domain in (domain for folder in others for domain in _folders(folder)):
        name = f"{domain.parent.name}/{domain.name}"
        if name not in seen and _holds_classes(domain):
            seen.add(name)
            yield from _describe(Place(name, domain, None))


def _describe(place: Place) -> Iterator[tuple[str, str, str, str]]:
    for split in SPLITS if place.has_lists else SPLITS[:1]:
        try:
            found = place.find(split)
        except UserError as error:  # one that is damaged does not keep the others from being listed
            yield place.name, "", "cannot be read", str(error)
        else:
            what = f"{found.note}, {len(found):,} images"
            yield place.name, split if place.has_lists else "all", f"here: {place.folder}", what


def _known(set_name: str) -> tuple[str, PhotographSet | None]:
    """A set's name as it is spelled here, and what is known of it."""
    spelled = next((name for name in PHOTOGRAPH_SETS if _plain(name) == _plain(set_name)), set_name)
    return spelled, PHOTOGRAPH_SETS.get(spelled)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))


def _matching(folder: Path, names: Sequence[str]) -> list[Path]:
    """Its folders of these names, in any spelling; the very names first."""
    plain = {_plain(name) for name in names}
    return sorted((one for one in _folders(folder) if _plain(one.name) in plain), key=lambda one: one.name not in names)


def _holds_classes(domain: Path) -> bool:
    """Whether two folders or more lie in it, the first of which has an image."""
    folders = _folders(domain / "images") or _folders(domain)
    return len(folders) > 1 and any(os.path.splitext(entry.name)[1].lower() in EXTENSIONS for entry in os.scandir(folders[0]))


def _read_list(path: Path, classes: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Lines of ``path label``: the paths, bytes (N,), and the classes, strings (N,): by number, or else each image's folder.

    Raises:
        UserError: for a line of another kind.
    """
    names, labels = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        folder = name.strip().rpartition("/")[0].rpartition("/")[2]
        if not folder or not label.isdecimal() or (classes and int(label) >= len(classes)):
            raise UserError(f"{path}, line {number}: not FOLDER/IMAGE and the number of a class; mend it or remove the list")
        names.append(os.fsencode(name.strip()))
        labels.append(classes[int(label)] if classes else folder)
    return np.array(names, dtype=np.bytes_), np.array(labels)
