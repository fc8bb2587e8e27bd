"""Encoders and generators whose code is a map, for images of 32 to 256 pixels: a pair of each, tied towards the code.

The networks of Liu et al. 2017 (translation) and, with a style, of Lee et al. 2018. Encoders have instance norm: what a channel
is on average, an image's colour above all, does not reach the code. Generators have `ImageNorm`, which leaves it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from uda.errors import UserError
from uda.models.layers import ImageNorm
from uda.models.translators import EncoderPair, GeneratorPair


def instance_norm(channels: int) -> nn.Module:
    """Ulyanov et al. 2016: mean and variance of each channel of each image."""
    return nn.InstanceNorm2d(channels, affine=True)


class ResidualBlock(nn.Module):
    """x + convolution(convolution(x)), both 3x3: (N, C, H, W) to the same.

    The first convolution reads `beside` more channels, (N, C + beside, H, W), which end there.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module], beside: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.block = nn.Sequential(
            nn.Conv2d(channels + beside, channels, 3, 1, 1), norm(channels), nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, 1, 1), norm(channels),
        )  # fmt: skip

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.block(hidden)
        return hidden[:, : self.channels] + change


def doubling(before: int, after: int) -> nn.Module:
    """(N, before, H, W) to (N, after, 2H, 2W)."""
    return nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), ImageNorm(after), nn.LeakyReLU(0.2))


def with_style(contents: Tensor, styles: Tensor) -> Tensor:
    """Contents (N, D) or (N, D, H, W) and styles (N, A) as one code, the style behind, everywhere the same."""
    styles = styles.to(contents.dtype)
    if contents.ndim == 4:
        styles = styles[:, :, None, None].expand(-1, -1, *contents.shape[2:])
    return torch.cat([contents, styles], 1)


def _private(blocks: int, tied: int, what: str) -> int:
    """How many of a network's residual blocks are left for each domain."""
    if not 0 <= tied <= blocks:
        raise UserError(f"method.tied_layers is {tied}; {what} have 0 to {blocks} residual blocks to tie")
    return blocks - tied


class SpatialEncoders(EncoderPair):
    """E_1 and E_2: images (N, C, S, S) to a code (N, 4w, S/4, S/4), S divisible by 4.

    7x7 (w), 3x3 stride 2 (2w), 3x3 stride 2 (4w), then residual blocks, the last `tied` of which are one for both domains.
    The code is `scale` times what they make.
    """

    def __init__(self, channels: int, size: int, width: int, blocks: int, tied: int, scale: float = 1.0) -> None:
        if size % 4:
            raise UserError(f"data.size is {size}; these networks need a multiple of 4")

        def layer(before: int, after: int, kernel: int, stride: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2), instance_norm(after), nn.LeakyReLU(0.2))

        residual: list[nn.Module] = [ResidualBlock(4 * width, instance_norm) for _ in range(blocks)]
        own = _private(blocks, tied, "the encoders")
        first = nn.Sequential(
            layer(channels, width, 7, 1), layer(width, 2 * width, 3, 2), layer(2 * width, 4 * width, 3, 2), *residual[:own]
        )
        super().__init__(first, nn.Sequential(*residual[own:]), scale)


class SpatialGenerators(GeneratorPair):
    """G_1 and G_2: codes (N, D, H, W) to images (N, C, 4H, 4W) in -1..1.

    1x1 to 4w where D is another number; residual blocks, the first `tied` of which are one for both domains; transposed 4x4
    stride 2 twice (2w, w); 7x7 to the channels and tanh.
    """

    def __init__(self, channels: int, width: int, code_dim: int, blocks: int, tied: int) -> None:
        residual: list[nn.Module] = [ResidualBlock(4 * width, ImageNorm) for _ in range(blocks)]
        _private(blocks, tied, "the generators")
        join = [] if code_dim == 4 * width else [nn.Conv2d(code_dim, 4 * width, 1)]
        own = nn.Sequential(
            *residual[tied:], doubling(4 * width, 2 * width), doubling(2 * width, width),
            nn.Conv2d(width, channels, 7, 1, 3), nn.Tanh(),
        )  # fmt: skip
        super().__init__(nn.Sequential(*join, *residual[:tied]), own)


class StyledLayers(nn.Sequential):
    """Layers each of which reads what the one before it made, and the style (N, A) beside it."""

    def forward(self, hidden: Tensor, styles: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            hidden = layer(with_style(hidden, styles))
        return hidden


class StyledGenerators(nn.Module):
    """G_1 and G_2 as `SpatialGenerators`, with the style at each layer: codes (N, 4w + A, H, W) to images (N, C, 4H, 4W).

    The code is the content (4w) and, behind it, the style (A), everywhere the same. The `tied` residual blocks read the content
    alone; each layer that a domain has for itself reads the style once more. Source: the released code of Lee et al. 2018, where
    the style joins before the private residual blocks, each transposed convolution and the last layer.
    """

    def __init__(self, channels: int, width: int, style_dim: int, blocks: int, tied: int) -> None:
        super().__init__()
        private = _private(blocks, tied, "the generators")
        shared = nn.Sequential(*(ResidualBlock(4 * width, ImageNorm) for _ in range(tied)))
        own = StyledLayers(
            *(ResidualBlock(4 * width, ImageNorm, style_dim) for _ in range(private)),
            doubling(4 * width + style_dim, 2 * width),
            doubling(2 * width + style_dim, width),
            nn.Sequential(nn.Conv2d(width + style_dim, channels, 7, 1, 3), nn.Tanh()),
        )
        self.style_dim = style_dim
        self.tied, self.private = shared, nn.ModuleList([own, copy.deepcopy(own)])

    def decode(self, codes: Tensor, domain: int) -> Tensor:
        """Images of one domain."""
        contents, styles = codes[:, : -self.style_dim], codes[:, -self.style_dim :, 0, 0]
        images: Tensor = self.private[domain](self.tied(contents), styles)
        return images
