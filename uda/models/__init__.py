"""Classifiers by name."""

from __future__ import annotations

from torch import nn

from uda.errors import UserError
from uda.models.backbones import Classifier, lenet, strided, unit_discriminator
from uda.models.custom import is_own, load_network
from uda.models.layers import Normalize
from uda.models.preprocessing import preprocessing_of
from uda.models.published import LIBRARIES, in_library, timm_network, torchvision_network

BACKBONES = {"strided": strided, "lenet": lenet, "unit": unit_discriminator}
GIVEN_IN_PYTHON = "given in Python"
"""stands for the name of a network that was handed over as a module"""


def build_classifier(name: str, channels: int, size: int, classes: int, width: int | None = None) -> Classifier:
    """A backbone in `BACKBONES` for images (N, channels, size, size), with a linear head on top.

    Raises:
        UserError: for a name that is not known.
    """
    if name not in BACKBONES:
        if (published := in_library(name)) is not None:
            raise UserError(f"unknown backbone {name!r}; did you mean {published!r}?")
        if name.endswith(".py"):
            raise UserError(f"{name} is a file; name what in it returns your network, too: --model {name}:NAME")
        raise UserError.unknown(
            "backbone", name, [*BACKBONES, "timm:resnet18", "torchvision:resnet18"], "your own: --model FILE.py:FACTORY"
        )
    build = BACKBONES[name]
    backbone = build(channels, size) if width is None else build(channels, size, width)
    head: nn.Module = nn.Linear(backbone.feature_dim, classes)
    if name == "unit":
        head = nn.Sequential(nn.Dropout(0.5), head)  # the published network's last dropout
    return Classifier(backbone, head)


def build_foreign(
    name: str, channels: int, size: int, classes: int, width: int | None = None, pretrained: bool = False
) -> tuple[nn.Module, Normalize] | None:
    """The network behind ``timm:NAME``, ``torchvision:NAME`` or ``FILE.py:FACTORY``, and the preprocessing that it expects.

    The network is as its author wrote it. The preprocessing is the published one, also of a network with random weights, and
    images in 0..1 (torchvision's ToTensor) for a user's own. None for a backbone of ours.

    Raises:
        UserError: for a network that cannot be made, a setting that it does not have, or published weights that cannot be had.
    """
    published = name.startswith(LIBRARIES)
    if pretrained and not published:
        raise UserError(f"there are no pretrained weights for {name}; only timm:NAME and torchvision:NAME networks have some")
    if not published and not is_own(name):
        return None
    if width is not None:
        raise UserError(f"{name} has no base width; leave classifier.width out")
    figures = preprocessing_of(name)
    if figures is None:
        return load_network(name), Normalize((0.0,) * channels, (1.0,) * channels)
    library, _, plain = name.partition(":")
    if library == "timm":
        network = timm_network(plain, channels, size, classes, pretrained)
    else:
        network = torchvision_network(plain, classes, pretrained)
    mean, std = figures.mean, figures.std
    if len(mean) != channels:
        mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return network, Normalize(mean, std)
