"""MNIST-M: MNIST's digits blended over patches of photographs (Ganin et al. 2016). The published images, or made here.

Published: ``mnist-m_{split}.npz`` under a data root or in its folder ``mnist-m``: ``images`` uint8 (N, 32, 32, 3), ``labels``
(N,), ``note``. It took its patches from BSDS500. Where it is not at hand, patches are cut from eight sample photographs that
scikit-learn and scikit-image come with, at half their size: for training images from the left two thirds, for test images from
the right third, so no background is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uda.data.arrays import fit_frame, open_arrays
from uda.data.datasets.digits import DIGITS, Split, load_digits
from uda.data.domain import LabelledDomain
from uda.errors import UserError

NOTE = "made here: MNIST blended over patches of 8 sample photographs of scikit-learn and scikit-image, NOT the published MNIST-M"
TRAIN_SHARE = 2 / 3  # of each photograph's width


def load_photographs() -> list[Tensor]:
    """The photographs at half their size, uint8 (3, H, W).

    Raises:
        UserError: where scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise UserError('mnist-m is made with sample photographs of scikit-image; pip install "uda-toolkit[mnist-m]"') from None
    from sklearn.datasets import load_sample_images

    ours = (data.astronaut, data.chelsea, data.coffee, data.rocket, data.immunohistochemistry)
    pictures = [*load_sample_images().images, *(load() for load in ours), data.stereo_motorcycle()[0]]
    floats = [torch.tensor(picture[..., :3]).permute(2, 0, 1).float() for picture in pictures]
    return [F.avg_pool2d(picture, 2).round().byte() for picture in floats]


def blend(digits: Tensor, photographs: list[Tensor], split: Split, seed: int) -> Tensor:
    """|patch - digit| in each channel, a patch for each digit: uint8 (N, 3, S, S), of grey digits as copies, to the same."""
    draws = torch.Generator().manual_seed(seed)
    count, _, size, _ = digits.shape
    which = torch.randint(len(photographs), (count,), generator=draws)
    down, along = torch.rand(2, count, generator=draws)
    offsets = torch.arange(size)
    blended = torch.empty_like(digits)
    for number, photograph in enumerate(photographs):
        _, height, width = photograph.shape
        border = int(width * TRAIN_SHARE)
        first, last = (0, border - size) if split == "train" else (border, width - size)
        rows = (which == number).nonzero().squeeze(1)
        for part in rows.split(4096):
            top = (down[part] * (height - size + 1)).long()
            left = first + (along[part] * (last - first + 1)).long()
            y, x = top[:, None] + offsets, left[:, None] + offsets
            patches = photograph[:, y[:, :, None], x[:, None, :]].transpose(0, 1)
            blended[part] = (patches.short() - digits[part].short()).abs().byte()
    return blended


def published_file(split: Split, roots: Sequence[Path]) -> Path | None:
    """The published images of one split, of the first root that has them."""
    places = (root / folder / f"mnist-m_{split}.npz" for root in roots for folder in ("mnist-m", ""))
    return next((place for place in places if place.exists()), None)


def read_published_note(path: Path) -> str:
    """How many images are published here, and which, without reading them."""
    with open_arrays(path) as file:
        which = f": {file.note()}" if file.note() else ""
        return f"published MNIST-M, {file.count():,} images{which}"


def load_mnist_m(split: Split, roots: Sequence[Path], size: int, channels: int) -> LabelledDomain:
    """One split: the published images that are at hand, else as many made here as MNIST has."""
    path = published_file(split, roots)
    if path is not None:
        with open_arrays(path) as file:
            images, labels = file.images(), torch.from_numpy(file.labels().astype(np.int64))
        return LabelledDomain(f"mnist-m {split}", fit_frame(images, size, channels), DIGITS, read_published_note(path), labels)
    mnist = load_digits("mnist", split, roots, size, 3)
    assert isinstance(mnist.images, Tensor)
    images = blend(mnist.images, load_photographs(), split, seed=0 if split == "train" else 1)
    return LabelledDomain(
        f"mnist-m {split}", fit_frame(images, size, channels), mnist.classes, f"{NOTE}; {mnist.note}", mnist.labels
    )
