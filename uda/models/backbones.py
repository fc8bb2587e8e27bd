"""Backbones: a stem that a domain may own, a trunk that domains share, and the feature vectors they end in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from uda.errors import UserError
from uda.models.layers import ImageNorm


class Backbone(nn.Module):
    """stem -> trunk: images (N, C, H, W) in -1..1 to features (N, feature_dim).

    UNIT gives each domain a stem of its own and ties the trunk; other methods use both as one network.
    """

    def __init__(self, stem: nn.Module, trunk: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.stem, self.trunk, self.feature_dim = stem, trunk, feature_dim

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(self.stem(images))


class Classifier(nn.Module):
    """A backbone and a head: images (N, C, H, W) in -1..1 to logits (N, K)."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


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

    Widths w (the private stem), 2w, 4w, 8w. The last dropout, 0.5, belongs to the class head, so that feature matching
    compares features without noise and needs no second pass. Features: the last map, flattened.
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


def timm_backbone(name: str, channels: int, size: int, pretrained: bool = False) -> Backbone:
    """Any timm network. The stem is the layer that reads the image (`conv1`, `patch_embed`, ...); the trunk is the rest.

    A network that starts from scratch gets `ImageNorm` in place of batch norm, whose statistics would mix the two domains
    and the generated images. Weights are downloaded only with `pretrained`.

    Raises:
        UserError: for a name that timm does not know, or a network that cannot take images of this size.
    """
    import timm

    if name not in timm.list_models(name):
        raise UserError.unknown("timm network", name, timm.list_models())
    options: dict[str, Any] = {"img_size": size} if "vit" in name or "swin" in name or "deit" in name else {}
    network = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels, **options)
    if not pretrained:
        replace_batch_norm(network)
    try:
        backbone = split_first_layer(network, channels, size)
    except RuntimeError as error:
        raise UserError(
            f"timm:{name} cannot take {size}x{size} images ({str(error).splitlines()[0]}); set data.size higher"
        ) from error
    return backbone


def replace_batch_norm(network: nn.Module) -> None:
    """Puts `ImageNorm` (and the activation that timm fuses with batch norm) where a network has 2-d batch norm."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            parts = [getattr(child, "drop", None), getattr(child, "act", None)]
            setattr(network, name, nn.Sequential(ImageNorm(child.num_features), *(part for part in parts if part is not None)))
        else:
            replace_batch_norm(child)


def split_first_layer(network: nn.Module, channels: int, size: int) -> Backbone:
    """Splits a network (images to feature vectors) behind the first child that reads the image itself.

    The trunk is the network with that child replaced by an identity, so its own `forward` runs unchanged.
    """
    probe = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    readers: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs and inputs[0] is probe:
                readers.append(name)

        return hook

    hooks = [child.register_forward_pre_hook(note(name)) for name, child in network.named_modules() if name]
    mode = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(probe)
            # The outermost reader is a whole container (`stem`, `patch_embed`); that is the natural private part.
            stem = network.get_submodule(readers[0])
            network.set_submodule(readers[0], nn.Identity())
            again = network(stem(probe))
    finally:
        for hook in hooks:
            hook.remove()
        network.train(mode)
    if again.shape != features.shape or not torch.allclose(again, features, atol=1e-4):
        raise RuntimeError("its first layer cannot be taken apart from the rest")
    return Backbone(stem, network, features.shape[1])
