"""Encoders and generators that begin as the identity: a translation is the image, and what has been learned to change of it.

A code is a map of the image's pixels, four by four of them to a place (Shi et al. 2016, sub-pixel convolution), and residual
blocks, which begin by changing nothing. So a few hundred steps, which are too few to learn to draw photographs, are enough to
learn in what those of two domains differ; and each translation begins as its image, in which everything is still there.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from uda.errors import UserError
from uda.models.layers import SOURCE, TARGET, ImageNorm
from uda.models.translators import GeneratorPair, Posterior

FACTOR = 4  # pixels along a side of what is one place of a code


class Change(nn.Module):
    """x + a change of x: 3x3 convolution to `width`, norm, leaky ReLU, 3x3 convolution, which begins at 0. (N, C, H, W)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, channels, 3, 1, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.change = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, padding_mode="replicate"), ImageNorm(width), nn.LeakyReLU(0.2), last
        )

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.change(hidden)
        return hidden + change


def _changes(channels: int, width: int, blocks: int, tied: int) -> tuple[nn.Module, nn.Module]:
    """So many blocks: those that each domain has for itself, and the `tied` ones."""
    if not 0 <= tied <= blocks:
        raise UserError(f"method.tied_layers is {tied}; there are 0 to {blocks} blocks to tie (method.blocks)")
    made = [Change(channels * FACTOR**2, width) for _ in range(blocks)]
    return nn.Sequential(*made[tied:]), nn.Sequential(*made[:tied])


class ShuffledEncoders(nn.Module):
    """E_1 and E_2: images (N, C, S, S) to a code (N, 16 C, S/4, S/4), S divisible by 4: `scale` times the pixels, at first.

    So many `blocks` of `width` follow, the last `tied` of which are one for both domains. Beside noise of variance 1, the scale
    says how exactly a code holds its image.
    """

    def __init__(self, channels: int, size: int, width: int, blocks: int, tied: int, scale: float) -> None:
        super().__init__()
        if size % FACTOR:
            raise UserError(f"images of {size} pixels are to be drawn; these networks need a multiple of {FACTOR}")
        self.scale = scale
        own, self.tied = _changes(channels, width, blocks, tied)
        own = nn.Sequential(nn.PixelUnshuffle(FACTOR), own)
        self.private = nn.ModuleList([own, copy.deepcopy(own)])

    def forward(self, source: Tensor, target: Tensor) -> Posterior:
        """Codes of both batches, source first."""
        return self._posterior(torch.cat([self.private[SOURCE](source), self.private[TARGET](target)]))

    def encode(self, images: Tensor, domain: int) -> Posterior:
        """Codes of images of one domain."""
        return self._posterior(self.private[domain](images))

    def _posterior(self, hidden: Tensor) -> Posterior:
        return Posterior(self.scale * self.tied(hidden), None)


class Divide(nn.Module):
    """By a number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, codes: Tensor) -> Tensor:
        return codes / self.by


class ShuffledGenerators(GeneratorPair):
    """G_1 and G_2: codes of `ShuffledEncoders` to images, of which few pixels lie outside of -1..1.

    The first `tied` of the blocks are one for both domains. In training nothing bounds the pixels, so that white ones have a
    gradient; `decode` cuts off what lies outside.
    """

    def __init__(self, channels: int, width: int, blocks: int, tied: int, scale: float) -> None:
        own, first = _changes(channels, width, blocks, tied)
        super().__init__(nn.Sequential(Divide(scale), first), nn.Sequential(own, nn.PixelShuffle(FACTOR)))

    def decode(self, codes: Tensor, domain: int) -> Tensor:
        return super().decode(codes, domain).clamp(-1, 1)
