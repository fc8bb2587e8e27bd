"""MNIST, USPS, SVHN, Fashion-MNIST: official files, or arrays, or a download; one size, one value range, one polarity rule.

Where a set comes from, in this order, of the first data root that has it:
1. the official files, as torchvision lays them out, under the root;
2. ``{name}_{split}.npz`` under the root: ``images`` uint8 (N, H, W) or (N, H, W, 3), ``labels`` (N,), and ``note``, a sentence
   that says what the file is and that every table shows;
3. torchvision's download into the first root.

MNIST and USPS are light digits on dark ground, 0..255 both. SVHN has both polarities, as found. Fashion-MNIST
(Xiao, Rasul, Vollgraf 2017), light clothes on dark ground, comes in MNIST's form and has names for its classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from uda.data.arrays import as_pixels, fit_frame, open_arrays, read_note
from uda.data.domain import LabelledDomain
from uda.data.names import listed
from uda.errors import UserError

Split = Literal["train", "test"]
DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
IDX_FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}  # torchvision's, below the root; files have the same names
NAMES = ("mnist", "usps", "svhn", "svhn-extra", "fashion-mnist")
NOTES = {
    "mnist": "MNIST, official split: 60,000 train, 10,000 test, 28x28 grey",
    "usps": "USPS, official split: 7,291 train, 2,007 test, 16x16 grey",
    "svhn": "SVHN, official split (cropped digits): 73,257 train, 26,032 test, 32x32 colour",
    "fashion-mnist": "Fashion-MNIST, official split: 60,000 train, 10,000 test, 28x28 grey",
    "svhn-extra": "SVHN, its extra split for training (531,131) and its official test split (26,032), 32x32 colour",
}


@dataclass(frozen=True)
class Location:
    """Where one split of a data set is: `kind` is ``official``, ``arrays`` or ``missing`` (`path`: where it would go)."""

    kind: Literal["official", "arrays", "missing"]
    path: Path


def official_files(name: str, split: Split, root: Path) -> list[list[Path]]:
    """The files that torchvision reads, each with its accepted spellings (packed or unpacked)."""
    if name in IDX_FOLDERS:  # torchvision wants both splits' files to be there
        raw = root / IDX_FOLDERS[name] / "raw"
        stems = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        return [[raw / stem, raw / f"{stem}.gz"] for stem in stems]
    if name == "usps":
        return [[root / ("usps.bz2" if split == "train" else "usps.t.bz2")]]
    return [[root / f"{_svhn_split(name, split)}_32x32.mat"]]


def _svhn_split(name: str, split: Split) -> str:
    return "extra" if name == "svhn-extra" and split == "train" else split


def locate(name: str, split: Split, roots: Sequence[Path]) -> Location:
    """Finds one split under the first of the `roots` that has it, without reading it."""
    for root in roots:
        if all(any(path.exists() for path in spellings) for spellings in official_files(name, split, root)):
            return Location("official", root)
        arrays = root / f"{name}_{split}.npz"
        if arrays.exists():
            return Location("arrays", arrays)
    return Location("missing", roots[0])


def load_digits(name: str, split: Split, roots: Sequence[Path], size: int = 32, channels: int = 3) -> LabelledDomain:
    """One split as uint8 (N, channels, size, size) with labels 0..9 (also for SVHN's 0), which Fashion-MNIST has names for.

    Raises:
        UserError: where the files are neither there nor to be had, or are damaged.
    """
    place = locate(name, split, roots)
    if place.kind == "arrays":
        with open_arrays(place.path) as file:
            pixels, labels = file.images(), file.labels().astype(np.int64)
        note = read_note(place.path)
    else:
        images, labels = _read_official(name, split, place, roots)
        pixels, note = as_pixels(images, name), NOTES[name]
    named = f"{name} {split}"
    return LabelledDomain(named, fit_frame(pixels, size, channels), classes_in(name), note, torch.from_numpy(labels))


def classes_in(name: str) -> tuple[str, ...]:
    """The classes of a data set, of which nothing is read."""
    return CLOTHES if name == "fashion-mnist" else DIGITS


def _read_official(name: str, split: Split, place: Location, roots: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Reads the official files by torchvision, which downloads what is not there."""
    from torchvision import datasets

    train, root = split == "train", place.path
    try:
        if name in IDX_FOLDERS:
            read = datasets.MNIST if name == "mnist" else datasets.FashionMNIST
            mnist = read(str(root), train=train, download=True)
            return mnist.data.numpy(), mnist.targets.numpy().astype(np.int64)
        if name == "usps":
            usps = datasets.USPS(str(root), train=train, download=True)
            return np.asarray(usps.data), np.asarray(usps.targets, dtype=np.int64)
        svhn = datasets.SVHN(str(root), split=_svhn_split(name, split), download=True)
        return svhn.data.transpose(0, 2, 3, 1), svhn.labels.astype(np.int64)
    except Exception as error:  # torchvision raises whatever its reader or the network stack raised
        files = ", ".join(str(spellings[0].relative_to(root)) for spellings in official_files(name, split, root))
        if place.kind == "official":
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{name} {split}: {files} in {root} cannot be read ({reason}); delete and download again") from error
        raise UserError(
            f"no {name} {split} data: looked for {files} and {name}_{split}.npz in {listed(roots)}, and the download failed "
            f"({type(error).__name__}); put one there, give --data-root, or run offline with: uda fit --recipe synth2digits"
        ) from error
