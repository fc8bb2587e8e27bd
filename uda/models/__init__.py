"""Classifiers by name."""

from __future__ import annotations

from torch import nn

from uda.errors import UserError
from uda.models.backbones import Backbone, Classifier, lenet, strided, timm_backbone, unit_discriminator

BACKBONES = {"strided": strided, "lenet": lenet, "unit": unit_discriminator}


def build_backbone(name: str, channels: int, size: int, width: int | None = None, pretrained: bool = False) -> Backbone:
    """A backbone for images (N, channels, size, size): a name in `BACKBONES`, or ``timm:NAME`` for any timm network.

    Raises:
        UserError: for a name that neither knows, or a setting that the network does not have.
    """
    if name.startswith("timm:"):
        if width is not None:
            raise UserError(f"{name} has no base width; leave classifier.width out")
        return timm_backbone(name.removeprefix("timm:"), channels, size, pretrained)
    if name not in BACKBONES:
        raise UserError.unknown("backbone", name, [*BACKBONES, "timm:resnet18"])
    if pretrained:
        raise UserError(f"there are no pretrained weights for {name}; only timm:NAME networks have some")
    build = BACKBONES[name]
    return build(channels, size) if width is None else build(channels, size, width)


def build_classifier(
    name: str, channels: int, size: int, classes: int, width: int | None = None, pretrained: bool = False
) -> Classifier:
    """A backbone by name with a linear head on top."""
    backbone = build_backbone(name, channels, size, width, pretrained)
    head: nn.Module = nn.Linear(backbone.feature_dim, classes)
    if name == "unit":
        head = nn.Sequential(nn.Dropout(0.5), head)  # the published network's last dropout
    return Classifier(backbone, head)
