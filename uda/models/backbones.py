"""Backbones: a stem that a domain may own, a trunk that domains share, and the feature vectors they end in."""

from __future__ import annotations

from torch import Tensor, nn

from uda.models.layers import ImageNorm


class Backbone(nn.Module):
    """stem -> trunk: images (N, C, H, W) in -1..1 to features (N, feature_dim).

    UNIT gives each domain a stem of its own and ties the trunk; other methods use both as one network.
    """

    def __init__(self, stem: nn.Module, trunk: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.stem, self.trunk, self.feature_dim = stem, trunk, feature_dim

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(self.stem(images))
        return features


class Classifier(nn.Module):
    """A backbone and a head: images (N, C, H, W) in -1..1 to logits (N, K).

    `parts`: where a network that was not written for this was taken apart, in words.
    `start`: which published or given weights its backbone began with, in words.
    """

    start = ""

    def __init__(self, backbone: Backbone, head: nn.Module, parts: str = "") -> None:
        super().__init__()
        self.backbone, self.head, self.parts = backbone, head, parts

    @property
    def classes(self) -> int:
        """How many outputs the head has."""
        return [module.out_features for module in self.head.modules() if isinstance(module, nn.Linear)][-1]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


def lenet(channels: int, size: int, width: int = 20) -> Backbone:
    """LeCun et al. 1998 in its usual modern form: two 5x5 convolutions with max-pooling and one dense layer of 500."""
    side = ((size - 4) // 2 - 4) // 2
    wide = width * 5 // 2
    stem = nn.Sequential(nn.Conv2d(channels, width, 5), nn.MaxPool2d(2), nn.ReLU())
    trunk = nn.Sequential(
        nn.Sequential(nn.Conv2d(width, wide, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(wide * side * side, 500), nn.ReLU()),
    )
    return Backbone(stem, trunk, 500)


def strided(channels: int, size: int, width: int = 32) -> Backbone:
    """A small net for digits: stride-2 convolutions down to 4x4, `ImageNorm`, then a dense layer of 8 x width features."""

    def layer(before: int, after: int, kernel: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=False), ImageNorm(after), nn.LeakyReLU(0.1))

    stem = layer(channels, width, 5)
    layers: list[nn.Module] = []
    side, now = (size + 1) // 2, width
    while side > 4:
        layers.append(layer(now, 2 * now, 3))
        side, now = (side + 1) // 2, 2 * now
    dense = nn.Sequential(nn.Flatten(), nn.Linear(now * side * side, 8 * width), nn.LeakyReLU(0.1))
    return Backbone(stem, nn.Sequential(*layers, dense), 8 * width)


def unit_discriminator(channels: int, size: int, width: int = 64) -> Backbone:
    """The discriminator of Liu et al. 2017's digit experiments: four 5x5 convolutions, each with ReLU, 2x2 max-pool and dropout.

    Widths w (the private stem), 2w, 4w, 8w. The last dropout, 0.5, belongs to the heads. Features: the last map, flattened.
    """

    def layer(before: int, after: int, *last: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2), *last)

    stem = layer(channels, width, nn.Dropout(0.1))
    trunk = nn.Sequential(
        layer(width, 2 * width, nn.Dropout(0.3)),
        layer(2 * width, 4 * width, nn.Dropout(0.5)),
        layer(4 * width, 8 * width, nn.Flatten()),
    )
    return Backbone(stem, trunk, 8 * width * (size // 16) ** 2)
