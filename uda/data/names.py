"""Data sets that go by name, and the folders they are looked for in. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uda.errors import NoHome, UserError
from uda.paths import cache_home, like

DATA_SETS = ("mnist", "usps", "svhn", "svhn-extra", "mnist-m", "fashion-mnist", "synth", "digits", "aerial", "map")
"""data sets that go by name; a folder of the same name is written ./mnist"""
OTHERWISE = "a folder, a .csv, an .npz, shards/{0000..0999}.tar or photographs as SET/DOMAIN"
"""what may stand in the place of such a name"""
HOLD_IMAGES = ".csv", ".npz", ".tar"
"""endings of files that hold, or list, many images"""


@dataclass(frozen=True)
class PhotographSet:
    """A published set of photographs in several domains.

    Attributes:
        title: its name and the paper it is of.
        domains: as the archive spells them.
        classes: how many there are.
        page: where it is to be had.
        folders: what its archive unpacks to, where that is not the set's own name.
    """

    title: str
    domains: tuple[str, ...]
    classes: int
    page: str
    folders: tuple[str, ...] = ()


PHOTOGRAPH_SETS = {
    "office31": PhotographSet(
        "Office-31 (Saenko et al., ECCV 2010)",
        ("amazon", "dslr", "webcam"),
        31,
        "https://faculty.cc.gatech.edu/~judy/domainadapt/",
        ("domain_adaptation_images",),
    ),
    "pacs": PhotographSet(
        "PACS (Li et al., ICCV 2017)",
        ("photo", "art_painting", "cartoon", "sketch"),
        7,
        "https://domaingeneralization.github.io/#data",
        ("kfold",),
    ),
    "office-home": PhotographSet(
        "Office-Home (Venkateswara et al., CVPR 2017)",
        ("Art", "Clipart", "Product", "Real World"),
        65,
        "https://www.hemanthdv.org/officeHomeDataset.html",
        ("OfficeHomeDataset_10072016",),
    ),
    "visda-2017": PhotographSet(
        "VisDA-2017 (Peng et al. 2017)",
        ("train", "validation", "test"),
        12,
        "https://github.com/VisionLearningGroup/taskcv-2017-public",
        ("visda", "visda17"),
    ),
    "domainnet": PhotographSet(
        "DomainNet (Peng et al., ICCV 2019)",
        ("clipart", "infograph", "painting", "quickdraw", "real", "sketch"),
        345,
        "https://ai.bu.edu/M3SDA/",
    ),
}
"""sets whose domains go by name, ``office31/amazon``; any other SET/DOMAIN that lies under a data root does, too"""


def is_domain(name: str) -> bool:
    """Whether a name is SET/DOMAIN, photographs to be looked for under the data roots; a folder of that name here is not."""
    parts = name.split("/")
    plain = len(parts) == 2 and all(part not in ("", ".", "..", "~") for part in parts)
    return plain and not name.endswith((".npz", ".csv", ".tar")) and not is_url(name) and not os.path.exists(name)


def is_url(name: str) -> bool:
    """Whether shards lie behind a URL, or behind a command (``pipe:``) that writes them out."""
    return "://" in name or name.startswith("pipe:")


def is_shards(name: str) -> bool:
    """Whether images lie in tar shards."""
    return name.endswith(".tar") or is_url(name)


def absolute(name: str) -> str:
    """A path made absolute; a data set's name, or a URL, as it is."""
    return str(Path(name).absolute()) if is_path(name) and not is_url(name) else name


def shards_root() -> Path:
    """Where it is kept what lies where in shards: ``uda/shards`` in the user's cache."""
    return cache_home() / "uda" / "shards"


def is_path(name: str) -> bool:
    """Whether images are given by their place, and not by a data set's name."""
    if name in DATA_SETS or is_domain(name):
        return False
    return name.endswith((".npz", ".csv", ".tar")) or is_url(name) or "/" in name or os.sep in name or os.path.exists(name)


def nowhere(name: str) -> UserError:
    """For a name that is neither a data set's nor that of anything here; offers what lies beside it before a data set."""
    if near := like(Path(name), HOLD_IMAGES):
        return UserError(f"there is no folder {name!r} here, nor a data set of this name; did you mean {near!r}?")
    return UserError.unknown("folder or data set", name, DATA_SETS, OTHERWISE)


def split_roots(text: str) -> tuple[Path, ...]:
    """Folders that are written in one line as PATH is: separated by a colon (on Windows, a semicolon)."""
    return tuple(Path(part).absolute() for part in text.split(os.pathsep) if part)


def join_roots(roots: Iterable[Path]) -> str:
    """The other way round."""
    return os.pathsep.join(map(str, roots))


def _own_root() -> Path:
    """The folder in the user's cache; of a user without a home, ``data`` here."""
    try:
        return (cache_home() / "uda").absolute()
    except NoHome:
        return Path("data").absolute()


def data_roots(given: str | Path | None) -> tuple[Path, ...]:
    """Where data sets lie: what was given, else $UDA_DATA, else a folder of the user's own, which the first download makes.

    Args:
        given: one folder, or several as in `split_roots`. The first that holds a data set wins; downloads go to the first.

    Raises:
        UserError: for one that is not there.
    """
    said_by, text = ("--data-root", str(given)) if given is not None else ("$UDA_DATA", os.environ.get("UDA_DATA", ""))
    roots = split_roots(text)
    if not roots:
        return (_own_root(),)
    for root in roots:
        if not root.is_dir() and root != _own_root():
            raise UserError(
                f"{said_by}: {root} is not a folder; name one that holds data sets, or several with {os.pathsep!r} between"
            )
    return roots


def listed(roots: Iterable[Path]) -> str:
    """The folders, for a sentence."""
    return ", ".join(map(str, roots))
