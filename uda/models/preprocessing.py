"""How published networks expect their images: the figures that timm and torchvision give beside the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

from uda.errors import UserError

Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a network reads it, as in the evaluation that its published accuracy is of.

    Attributes:
        size: side of the central square that is cut out, pixels.
        resize: what the short side is brought to before that, pixels; at least `size`.
        interpolation: how pixels between pixels are found.
        mean, std: subtracted from each channel of images in 0..1, and divided by.
    """

    size: int
    resize: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]


def preprocessing_of(backbone: str) -> Preprocessing | None:
    """The published preprocessing of ``timm:NAME`` or ``torchvision:NAME``; None for any other network.

    No network is built and nothing is downloaded.

    Raises:
        UserError: for a name that the library does not know.
    """
    library, _, name = backbone.partition(":")
    if library == "timm":
        return _of_timm(name)
    return _of_torchvision(name) if library == "torchvision" else None


def _of_timm(name: str) -> Preprocessing:
    found = timm_description(name)
    size = int(found.input_size[-1])
    interpolation = cast(Interpolation, found.interpolation)
    return Preprocessing(size, math.floor(size / found.crop_pct), interpolation, tuple(found.mean), tuple(found.std))


def _of_torchvision(name: str) -> Preprocessing:
    found = torchvision_weights(name).transforms()
    interpolation = cast(Interpolation, found.interpolation.value)
    return Preprocessing(found.crop_size[0], found.resize_size[0], interpolation, tuple(found.mean), tuple(found.std))


def timm_description(name: str) -> Any:
    """timm's own description (a `PretrainedCfg`) of ``NAME`` or ``NAME.TAG``: where its weights lie and what they expect.

    Raises:
        UserError: for a name or a tag that timm does not know.
    """
    import timm

    try:
        found = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        names = timm.list_pretrained(f"{name.partition('.')[0]}.*") if timm.is_model(name) else timm.list_models()
        raise UserError.unknown("timm network", name, names) from None
    return found


def torchvision_weights(name: str) -> Any:
    """torchvision's best published weights (a `WeightsEnum` member) of the classifier ``NAME``, not downloaded.

    Raises:
        UserError: for a name that is no classifier of torchvision's.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise UserError.unknown("torchvision network", name, names)
    return models.get_model_weights(name).DEFAULT
