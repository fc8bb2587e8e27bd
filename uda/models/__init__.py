"""Classifiers by name."""

from __future__ import annotations

from torch import nn

from uda.errors import UserError
from uda.models.backbones import Classifier, lenet, strided, timm_network, unit_discriminator
from uda.models.custom import is_own, load_network
from uda.models.layers import Normalize

BACKBONES = {"strided": strided, "lenet": lenet, "unit": unit_discriminator}
GIVEN_IN_PYTHON = "given in Python"
"""stands for the name of a network that was handed over as a module"""


def build_classifier(name: str, channels: int, size: int, classes: int, width: int | None = None) -> Classifier:
    """A backbone in `BACKBONES` for images (N, channels, size, size), with a linear head on top.

    Raises:
        UserError: for a name that is not known.
    """
    if name not in BACKBONES:
        raise UserError.unknown("backbone", name, [*BACKBONES, "timm:resnet18"], "your own: --model FILE.py:FACTORY")
    build = BACKBONES[name]
    backbone = build(channels, size) if width is None else build(channels, size, width)
    head: nn.Module = nn.Linear(backbone.feature_dim, classes)
    if name == "unit":
        head = nn.Sequential(nn.Dropout(0.5), head)  # the published network's last dropout
    return Classifier(backbone, head)


def build_foreign(
    name: str, channels: int, size: int, classes: int, width: int | None = None, pretrained: bool = False
) -> tuple[nn.Module, Normalize] | None:
    """The network behind ``timm:NAME`` or ``FILE.py:FACTORY`` as its author wrote it, and the preprocessing that it expects.

    That is timm's own for pretrained weights, images in -1..1 for a timm network from scratch, and images in 0..1 (torchvision's
    ToTensor) for a user's. None for a backbone of ours.

    Raises:
        UserError: for a network that cannot be made, or a setting that it does not have.
    """
    if not (name.startswith("timm:") or is_own(name)):
        if pretrained:
            raise UserError(f"there are no pretrained weights for {name}; only timm:NAME networks have some")
        return None
    if width is not None:
        raise UserError(f"{name} has no base width; leave classifier.width out")
    if is_own(name):
        return load_network(name), Normalize((0.0,) * channels, (1.0,) * channels)
    network = timm_network(name.removeprefix("timm:"), channels, size, classes, pretrained)
    mean: tuple[float, ...] = (0.5,) * channels
    std = mean
    if pretrained:
        mean, std = (tuple(network.pretrained_cfg[key]) for key in ("mean", "std"))  # type: ignore[index]
        if len(mean) != channels:
            mean, std = (sum(mean) / len(mean),) * channels, (sum(std) / len(std),) * channels
    return network, Normalize(mean, std)
