"""Methods that make images of one domain from images of the other."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from uda.methods.base import Method


class Codes(NamedTuple):
    """Codes of images, and the domain that the images are of: uda.models.layers.SOURCE or TARGET."""

    values: Tensor
    """(N, D), or maps (N, D, H, W)"""
    domain: int


class Translating(Method):
    """Translates by a code: encodes images of one domain, and decodes to images of either.

    Attributes:
        translator: a module with `encoders` and `generators`, those with averaged weights; a subclass makes it, or overrides
            `encode` and `decode`.
        any_shape: whether images of any sides that 4 divides can be encoded and decoded, not just squares of one size.
    """

    translates: ClassVar[bool] = True
    any_shape: bool = False
    translator: Any

    @torch.no_grad()
    def encode(self, images: Tensor, domain: int) -> Codes:
        """E_domain(x): codes of images (N, C, S, S) in -1..1 of a domain, without noise and without gradients."""
        with self.runtime.autocast():
            return Codes(self.translator.encoders.encode(self.runtime.arrange(images), domain).mean, domain)

    @torch.no_grad()
    def decode(self, codes: Codes, domain: int, style: Tensor | None = None) -> Tensor:
        """G_domain(z): images of one domain, float32 (N, C, S, S) in -1..1."""
        with self.runtime.autocast():
            images: Tensor = self.translator.generators.decode(codes.values, domain)
            return images.float()

    def translate(self, images: Tensor, origin: int, destination: int, style: Tensor | None = None) -> Tensor:
        """Images (N, C, S, S) in -1..1 of one domain as images of the other; of the same, their reconstruction."""
        return self.decode(self.encode(images, origin), destination, style)


class Drawing(Translating):
    """Makes many translations of one image: `decode` takes a style (N, D), drawn at random, and draws one where none is given."""

    def draw_styles(self, count: int) -> Tensor:
        """Styles (count, D) drawn at random, by torch's global generator."""
        raise NotImplementedError


class Styled(Drawing):
    """Knows the style of an image, too: its reconstruction has it, and others can take it."""

    def translate(self, images: Tensor, origin: int, destination: int, style: Tensor | None = None) -> Tensor:
        if style is None and origin == destination:
            style = self.styles(images, origin)
        return super().translate(images, origin, destination, style)

    def styles(self, images: Tensor, domain: int) -> Tensor:
        """The styles (N, D) of images (N, C, S, S) in -1..1."""
        raise NotImplementedError


class PairDrawing(Method):
    """Draws pairs of images of one content, one of each domain, without an image to go by."""

    def draw_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Source and target images, float32 (count, C, S, S) each, in -1..1, by torch's global generator."""
        raise NotImplementedError
