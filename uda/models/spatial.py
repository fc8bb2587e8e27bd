"""Encoders and generators whose code is a map, for images of 32 to 256 pixels: a pair of each, tied towards the code.

The networks of Liu et al. 2017 (translation) and, with a style, of Lee et al. 2018. Encoders have instance norm: what a channel
is on average, an image's colour above all, does not reach the code. Generators have `ImageNorm`, which leaves it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from uda.errors import UserError
from uda.models.layers import ImageNorm
from uda.models.translators import EncoderPair, GeneratorPair


def instance_norm(channels: int) -> nn.Module:
    """Ulyanov et al. 2016: mean and variance of each channel of each image."""
    return nn.InstanceNorm2d(channels, affine=True)


class ResidualBlock(nn.Module):
    """x + convolution(convolution(x)), both 3x3: (N, C, H, W) to the same."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1), norm(channels), nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, 1, 1), norm(channels),
        )  # fmt: skip

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.block(hidden)
        return hidden + change


def _split(layers: list[nn.Module], tied: int, what: str, settings: str) -> int:
    if not 0 <= tied <= len(layers):
        raise UserError(f"{settings} is {tied}; {what} have 0 to {len(layers)} residual blocks to tie")
    return len(layers) - tied


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
        own = _split(residual, tied, "the encoders", "method.tied_layers")
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
        def layer(before: int, after: int) -> nn.Module:
            return nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), ImageNorm(after), nn.LeakyReLU(0.2))

        residual: list[nn.Module] = [ResidualBlock(4 * width, ImageNorm) for _ in range(blocks)]
        _split(residual, tied, "the generators", "method.tied_layers")
        join = [] if code_dim == 4 * width else [nn.Conv2d(code_dim, 4 * width, 1)]
        own = nn.Sequential(
            *residual[tied:], layer(4 * width, 2 * width), layer(2 * width, width), nn.Conv2d(width, channels, 7, 1, 3), nn.Tanh()
        )
        super().__init__(nn.Sequential(*join, *residual[:tied]), own)
