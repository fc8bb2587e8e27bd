"""Methods that make images of one domain from images of another."""

from __future__ import annotations

from torch import Tensor


class Translating:
    """Makes images of one domain from images of another, by a code."""

    def encode(self, images: Tensor, domain: int) -> Tensor:
        """Codes of images (N, C, S, S) in -1..1."""
        raise NotImplementedError

    def decode(self, codes: Tensor, domain: int, style: Tensor | None = None) -> Tensor:
        """Images of one domain, float32 (N, C, S, S) in -1..1."""
        raise NotImplementedError

    def translate(self, images: Tensor, origin: int, destination: int, style: Tensor | None = None) -> Tensor:
        """Images (N, C, S, S) in -1..1 of one domain as images of the other; of the same, their reconstruction."""
        return self.decode(self.encode(images, origin), destination, style)


class Styled(Translating):
    """Makes many translations of one image: `decode` takes a style (N, D), and draws one where none is given."""

    def translate(self, images: Tensor, origin: int, destination: int, style: Tensor | None = None) -> Tensor:
        if style is None and origin == destination:
            style = self.styles(images, origin)
        return super().translate(images, origin, destination, style)

    def styles(self, images: Tensor, domain: int) -> Tensor:
        """The styles of images (N, C, S, S) in -1..1."""
        raise NotImplementedError

    def draw_styles(self, count: int) -> Tensor:
        """Styles drawn at random, by torch's global generator."""
        raise NotImplementedError
