"""UNIT's encoders and generators: a pair of each, private towards the images, tied towards the code."""

from __future__ import annotations

import copy
import itertools
from typing import Generic, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.errors import UserError
from uda.models.backbones import Backbone
from uda.models.layers import SOURCE, TARGET, ImageNorm, by_domain, widen_for_coordinates

Spread = Literal["unit", "learned", "softplus"]
"""variance of q(z|x): 1 (Liu et al. 2017), the exponential of an output, or the square of an output's softplus (their code)"""
Encoders = TypeVar("Encoders", bound=nn.Module)
Generators = TypeVar("Generators", bound=nn.Module)


class Posterior(NamedTuple):
    """q(z|x): mean and, where it is learned, log-variance, each (N, D); None stands for unit variance."""

    mean: Tensor
    log_variance: Tensor | None

    @classmethod
    def of(cls, outputs: Tensor, spread: Spread) -> Posterior:
        """Of a network's outputs, (N, 2D) where their second half says how wide it is, else (N, D)."""
        if spread == "unit":
            return cls(outputs, None)
        if spread == "learned":
            return cls.learned(outputs)
        mean, sigma = outputs.chunk(2, 1)
        return cls(mean, 2 * F.softplus(sigma.float()).clamp_min(1e-6).log())

    @classmethod
    def learned(cls, outputs: Tensor) -> Posterior:
        """Of a network's outputs (N, 2D): means, then log-variances, which are kept within -10..10."""
        mean, log_variance = outputs.chunk(2, 1)
        return cls(mean, log_variance.clamp(-10, 10))

    def sample(self) -> Tensor:
        """z = mean + standard deviation x eta, eta ~ N(0, I): the reparameterisation of Kingma and Welling 2014."""
        noise = torch.randn_like(self.mean)
        return self.mean + (noise if self.log_variance is None else noise * (0.5 * self.log_variance).exp())


def convolutional_layers(channels: int, size: int, width: int, slope: float = 0.1) -> list[nn.Module]:
    """The encoder of Liu et al. 2017's digit networks: (N, channels, S, S) to (N, 8w, 1, 1).

    5x5 stride 2 (w), 5x5 stride 2 (2w) and, for sides above 32, again until at most 8 pixels a side are left; one convolution
    over all that is left (4w), 1x1 (8w). `ImageNorm` stands where the release has batch norm. `slope`: of the LeakyReLU.
    """

    def layer(before: int, after: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
        return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding), ImageNorm(after), nn.LeakyReLU(slope))

    layers, side = [layer(channels, width, 5, 2, 2), layer(width, 2 * width, 5, 2, 2)], (size + 3) // 4
    while side > 8:
        layers.append(layer(2 * width, 2 * width, 5, 2, 2))
        side = (side + 1) // 2
    return [*layers, layer(2 * width, 4 * width, side), layer(4 * width, 8 * width, 1)]


def backbone_layers(backbone: Backbone) -> list[nn.Module]:
    """A copy of a backbone as encoder layers: its stem, then the parts of its trunk."""
    copied = copy.deepcopy(backbone)
    return [copied.stem, *(copied.trunk if isinstance(copied.trunk, nn.Sequential) else [copied.trunk])]


class TiedEncoders(nn.Module):
    """E_1 and E_2: images (N, C, S, S) to one code per image, (N, code_dim).

    `layers` lead from the image to `features` numbers, flat or 1x1; a linear layer to the code follows. The first `private`
    layers are each domain's own (both start from the same weights), all after them are tied.
    """

    def __init__(
        self, layers: list[nn.Module], features: int, code_dim: int, private: int, spread: Spread, coordinates: bool
    ) -> None:
        super().__init__()
        if not 0 <= private <= len(layers):
            raise UserError(f"method.private_encoder_layers is {private}; this encoder has 0 to {len(layers)} to give")
        self.spread = spread
        if coordinates:
            layers = [widen_for_coordinates(layers[0]), *layers[1:]]
        own = nn.Sequential(*layers[:private])
        self.private = nn.ModuleList([own, copy.deepcopy(own)])
        outputs = code_dim if spread == "unit" else 2 * code_dim
        self.tied = nn.Sequential(*layers[private:], nn.Flatten(), nn.Linear(features, outputs))

    def forward(self, source: Tensor, target: Tensor) -> Posterior:
        """Codes of both batches, source first: one pass through each private part and one through the tied part."""
        rows = (len(source), SOURCE), (len(target), TARGET)
        hidden = [by_domain(self.private[row[1]], images, row) for row, images in zip(rows, (source, target), strict=True)]
        return self._posterior(torch.cat(hidden), *rows)

    def encode(self, images: Tensor, domain: int) -> Posterior:
        """Codes of images of one domain."""
        row = len(images), domain
        return self._posterior(by_domain(self.private[domain], images, row), row)

    def _posterior(self, hidden: Tensor, *rows: tuple[int, int]) -> Posterior:
        return Posterior.of(by_domain(self.tied, hidden, *rows), self.spread)


class Streams(NamedTuple):
    """What the two generators make of both codes: x^{i->j}, images (N, C, S, S) in -1..1."""

    source_source: Tensor
    source_target: Tensor
    target_source: Tensor
    target_target: Tensor


class FromCode(nn.Module):
    """A transposed convolution of 1x1 codes, as the matrix product that it is: (N, D) to (N, C, side, side)."""

    def __init__(self, code_dim: int, channels: int, side: int) -> None:
        super().__init__()
        self.linear, self.side = nn.Linear(code_dim, side * side * channels), side

    def forward(self, codes: Tensor) -> Tensor:
        maps: Tensor = self.linear(codes).unflatten(1, (self.side, self.side, -1))
        return maps.permute(0, 3, 1, 2)


class Crop(nn.Module):
    """The central square of images: (N, C, H, W) to (N, C, size, size)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        start = (images.shape[-1] - self.size) // 2
        return images[..., start : start + self.size, start : start + self.size]


def generator_layers(channels: int, size: int, width: int, code_dim: int, slope: float = 0.1) -> list[nn.Module]:
    """The generator of Liu et al. 2017's digit networks: codes (N, code_dim) to images (N, channels, S, S) in -1..1.

    S is at least 8. First to last: the code to a map of 4 to 7 pixels a side, transposed 4x4 stride 2 until the side is S or just
    above (halving the width each time, from at most 16w down to w), then 1x1 to the channels and tanh. `slope`: of the LeakyReLU.
    """
    if size < 8:
        raise UserError(f"data.size is {size}; UNIT's generators need at least 8")
    doublings = (size - 1).bit_length() - 3
    side = -(-size >> doublings)
    if side > 7:  # such as 29: a map of 8 is one of 4, doubled
        side, doublings = 4, doublings + 1

    def layer(first: nn.Module, channels: int) -> nn.Module:
        return nn.Sequential(first, ImageNorm(channels), nn.LeakyReLU(slope))

    widths = [width << min(left, 4) for left in range(doublings, -1, -1)]
    layers = [layer(FromCode(code_dim, widths[0], side), widths[0])]
    layers += [layer(nn.ConvTranspose2d(a, b, 4, 2, 1), b) for a, b in itertools.pairwise(widths)]
    crop = [Crop(size)] if side << doublings > size else []
    return [*layers, nn.Sequential(nn.Conv2d(width, channels, 1), nn.Tanh(), *crop)]


class EncoderPair(nn.Module):
    """E_1 and E_2 without noise of their own: layers that each domain has for itself, which start alike, then `tied` ones.

    A code's mean is `scale` times what they make.
    """

    def __init__(self, own: nn.Module, tied: nn.Module, scale: float) -> None:
        super().__init__()
        self.private, self.tied, self.scale = nn.ModuleList([own, copy.deepcopy(own)]), tied, scale

    def forward(self, source: Tensor, target: Tensor) -> Posterior:
        """Codes of both batches, source first."""
        return self._posterior(torch.cat([self.private[SOURCE](source), self.private[TARGET](target)]))

    def encode(self, images: Tensor, domain: int) -> Posterior:
        """Codes of images of one domain."""
        return self._posterior(self.private[domain](images))

    def _posterior(self, hidden: Tensor) -> Posterior:
        return Posterior(self.scale * self.tied(hidden), None)


class GeneratorPair(nn.Module):
    """G_1 and G_2: layers that are `tied`, then layers that each domain has for itself, which start alike."""

    def __init__(self, tied: nn.Module, own: nn.Module) -> None:
        super().__init__()
        self.tied, self.private = tied, nn.ModuleList([own, copy.deepcopy(own)])

    def forward(self, codes: Tensor) -> Streams:
        """All four streams of codes that hold a source batch and a target batch of one size, source first."""
        hidden = self.tied(codes)
        (source_source, target_source), (source_target, target_target) = (private(hidden).chunk(2) for private in self.private)
        return Streams(source_source, source_target, target_source, target_target)

    def decode(self, codes: Tensor, domain: int) -> Tensor:
        """Images of one domain."""
        images: Tensor = self.private[domain](self.tied(codes))
        return images


class TiedGenerators(GeneratorPair):
    """G_1 and G_2: codes (N, code_dim) to images (N, C, S, S) in -1..1, by `generator_layers`.

    The last `private` layers are each domain's own, all before them are tied.
    """

    def __init__(self, channels: int, size: int, width: int, code_dim: int, private: int, slope: float = 0.1) -> None:
        layers = generator_layers(channels, size, width, code_dim, slope)
        if not 0 <= private <= len(layers):
            raise UserError(f"method.private_generator_layers is {private}; these generators have 0 to {len(layers)} to give")
        tied = len(layers) - private
        super().__init__(nn.Sequential(*layers[:tied]), nn.Sequential(*layers[tied:]))


class Translator(nn.Module, Generic[Encoders, Generators]):
    """Encoders and generators as one network."""

    def __init__(self, encoders: Encoders, generators: Generators) -> None:
        super().__init__()
        self.encoders, self.generators = encoders, generators
