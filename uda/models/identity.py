"""Encoders and generators that begin as the identity: a translation is the image, and what has been learned to change of it.

A code is a map of the image's own side, and residual blocks begin by changing nothing. So a few hundred steps, which are too few
to learn to draw photographs, are enough to learn in what those of two domains differ; and each translation begins as its image,
in which everything is still there. Nothing is of stride 2: what reads pooled features asks for the dots and grids of transposed
and sub-pixel convolutions more than for anything else.
"""

from __future__ import annotations

from torch import Tensor, nn

from uda.errors import UserError
from uda.models.layers import ImageNorm
from uda.models.translators import EncoderPair, GeneratorPair


class Change(nn.Module):
    """x + a tenth of: 3x3 convolution to `width`, norm, leaky ReLU, 3x3 convolution, which begins at 0. (N, C, H, W) to the same.

    A tenth (Lim et al. 2017): at the learning rate of other networks, the identity would be lost within ten steps. Both
    convolutions have holes of `dilation` (Yu and Koltun 2016), so that a few blocks see much of an image.
    """

    def __init__(self, channels: int, width: int, dilation: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, channels, 3, 1, dilation, dilation, bias=False, padding_mode="replicate")
        nn.init.zeros_(last.weight)
        first = nn.Conv2d(channels, width, 3, 1, dilation, dilation, padding_mode="replicate")
        self.change = nn.Sequential(first, ImageNorm(width), nn.LeakyReLU(0.2), last)

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.change(hidden)
        return hidden + 0.1 * change


def _changes(channels: int, width: int, blocks: int, tied: int) -> tuple[nn.Module, nn.Module]:
    """So many blocks: those that each domain has for itself, and the `tied` ones."""
    if not 0 <= tied <= blocks:
        raise UserError(f"method.tied_layers is {tied}; there are 0 to {blocks} blocks to tie (method.blocks)")
    made = [Change(channels, width, 2 ** (number % 3)) for number in range(blocks)]
    return nn.Sequential(*made[tied:]), nn.Sequential(*made[:tied])


class IdentityEncoders(EncoderPair):
    """E_1 and E_2: images (N, C, S, S) to a code of the same shape: `scale` times the pixels, at first.

    So many `blocks` of `width`, the last `tied` of which are one for both domains. Beside noise of variance 1, the scale says how
    exactly a code holds its image.
    """

    def __init__(self, channels: int, width: int, blocks: int, tied: int, scale: float) -> None:
        super().__init__(*_changes(channels, width, blocks, tied), scale)


class Divide(nn.Module):
    """By a number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, codes: Tensor) -> Tensor:
        return codes / self.by


class IdentityGenerators(GeneratorPair):
    """G_1 and G_2: codes of `IdentityEncoders` to images, of which few pixels lie outside of -1..1.

    The first `tied` of the blocks are one for both domains. In training nothing bounds the pixels, so that white ones have a
    gradient; `decode` cuts off what lies outside.
    """

    def __init__(self, channels: int, width: int, blocks: int, tied: int, scale: float) -> None:
        own, first = _changes(channels, width, blocks, tied)
        super().__init__(nn.Sequential(Divide(scale), first), own)

    def decode(self, codes: Tensor, domain: int) -> Tensor:
        return super().decode(codes, domain).clamp(-1, 1)
