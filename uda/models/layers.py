"""Layers that several networks share."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.errors import UserError
from uda.runtime import scoped_seed

SOURCE, TARGET = 0, 1
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def draw_weights(module: nn.Module) -> None:
    """Draws all weights afresh, as their layers are initialised."""
    for part in module.modules():
        getattr(part, "reset_parameters", bool)()


def draw_gaussian(network: nn.Module, deviation: float = 0.02) -> None:
    """Draws the weights of convolutions and dense layers from N(0, deviation^2); their biases stay as they are."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, std=deviation)


def draw_xavier(network: nn.Module, bias: float = 0.1) -> None:
    """Draws the weights of convolutions and dense layers as Glorot and Bengio 2010, uniformly, with gain sqrt(2); sets biases."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(part.weight, gain=2**0.5)
            if part.bias is not None:
                nn.init.constant_(part.bias, bias)


def draws_noise(network: nn.Module, images: Tensor) -> bool:
    """Whether it draws noise in training, as dropout and stochastic depth do, as layers or as functions.

    Told by whether a pass of `images` (N, ...) in training takes numbers from a global generator: however little is dropped, and
    of whatever, two outputs need not differ. A copy of the network makes it, and the random state is left as found.
    """
    trained = copy.deepcopy(network).train()

    def numbers() -> list[float]:
        of_torch = [torch.empty((), device=device).uniform_().item() for device in ("cpu", images.device)]
        return [random.random(), np.random.rand(), *of_torch]

    with scoped_seed(0):
        fresh = numbers()
    with scoped_seed(0), torch.no_grad():
        trained(images)
        return numbers() != fresh


class Grey(nn.Module):
    """Images (N, C, H, W) to the mean of their channels (N, 1, H, W), or back to `channels` equal ones."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)


def read_grey(stem: nn.Module, channels: int) -> nn.Module:
    """A stem for images of `channels` channels as one that reads grey images as one channel, in place.

    Of images whose channels are equal it makes what it made before. What its first convolution reads beyond `channels`, such as
    coordinates, it goes on reading.

    Raises:
        UserError: where there is no such convolution.
    """
    first = next((part for part in stem.modules() if isinstance(part, nn.Conv2d) and part.groups == 1), None)
    if first is None:
        raise UserError("the network has no plain convolution in its stem to read grey images; set method.grey_target = false")
    weight = first.weight.data
    first.weight = nn.Parameter(torch.cat([weight[:, :channels].sum(1, keepdim=True), weight[:, channels:]], 1))
    first.in_channels = first.weight.shape[1]
    return nn.Sequential(Grey(), stem)


def write_grey(layers: nn.Module, channels: int) -> nn.Module:
    """A generator's last layers, as ones that draw one channel and repeat it to `channels`, in place."""
    last = [part for part in layers.modules() if isinstance(part, nn.Conv2d)][-1]
    assert last.bias is not None
    last.weight, last.bias = (nn.Parameter(values.data.mean(0, keepdim=True)) for values in (last.weight, last.bias))
    last.out_channels = 1
    return nn.Sequential(layers, Grey(channels))


class AppendCoordinates(nn.Module):
    """Appends two channels that hold each pixel's x and y in -1..1: (N, C, H, W) to (N, C + 2, H, W).

    Source: Liu et al. 2017, section 4.3 (spatial context helps on street numbers).
    """

    def forward(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        down, right = (torch.linspace(-1, 1, side, device=images.device, dtype=images.dtype) for side in (height, width))
        y, x = (line.expand(count, 1, height, width) for line in (down[:, None], right))
        return torch.cat([images, x, y], 1)


class ImageNorm(nn.GroupNorm):
    """Group norm with one group: mean and variance over all of an image's channels and pixels, (N, C, H, W) to the same.

    No statistics are shared between images, so none mix two domains, or real and generated images. Computed as a layer norm
    over channels-last memory where the images lie so, which is several times faster on a CPU than the group norm kernel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            inner = images.permute(0, 2, 3, 1)
            weight, bias = (p.to(images.dtype).expand(inner.shape[1:]) for p in (self.weight, self.bias))
            return F.layer_norm(inner, inner.shape[1:], weight, bias, self.eps).permute(0, 3, 1, 2)


class Normalize(nn.Module):
    """A network's own preprocessing: images (N, C, H, W) in -1..1 to (x - mean) / std, with x in 0..1 as torchvision has it."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images * 0.5 + 0.5 - mean) / std


class DomainBatchNorm(nn.Module):
    """Batch norm with statistics for each domain, which do not change while a method trains; scale and shift are shared.

    One set of statistics for two domains, or for real and generated images, fits none of them when the classifier is used.
    And statistics that follow weights which two players move are always late: discriminators lose their hold on them. So the
    source keeps those that its classifier was trained with, and the target's are learned once, from real images, by
    `learn_statistics`, before any weight moves (Li et al. 2016, AdaBN).

    `rows` says whose the rows of a batch are (see `by_domain`); without it all are the target's.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        other = copy.deepcopy(norm)
        other.weight, other.bias = norm.weight, norm.bias
        self.norms = nn.ModuleList([norm, other]).eval()
        self.rows: tuple[tuple[int, int], ...] | None = None

    def train(self, mode: bool = True) -> DomainBatchNorm:
        """The norms stay in evaluation mode, whatever the rest of the network does."""
        self.training = mode
        return self

    def forward(self, hidden: Tensor) -> Tensor:
        if self.rows is None:
            target: Tensor = self.norms[TARGET](hidden)
            return target
        parts = hidden.split([size for size, _ in self.rows])
        return torch.cat([self.norms[domain](part) for part, (_, domain) in zip(parts, self.rows, strict=True)])


def convert_domain_batch_norm(network: nn.Module) -> nn.Module:
    """Puts `DomainBatchNorm` in place of batch norm with running statistics, in place."""
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm) and child.running_mean is not None:
            setattr(network, name, DomainBatchNorm(child))
        else:
            convert_domain_batch_norm(child)
    return network


def revert_domain_batch_norm(network: ModuleT) -> ModuleT:
    """Puts the target's plain batch norm back in place of `DomainBatchNorm`, in place."""
    for name, child in network.named_children():
        if isinstance(child, DomainBatchNorm):
            setattr(network, name, child.norms[TARGET])
        else:
            revert_domain_batch_norm(child)
    return network


def domain_norms(network: nn.Module) -> list[DomainBatchNorm]:
    return [module for module in network.modules() if isinstance(module, DomainBatchNorm)]


def by_domain(network: nn.Module, images: Tensor, *rows: tuple[int, int]) -> Tensor:
    """One pass of a batch whose consecutive rows, (how many, of which domain), are normalised by their domain's statistics."""
    norms = domain_norms(network)
    for norm in norms:
        norm.rows = rows
    try:
        out: Tensor = network(images)
        return out
    finally:
        for norm in norms:
            norm.rows = None


def learn_statistics(network: nn.Module, read: Callable[[Tensor], object], batches: Iterable[Tensor]) -> None:
    """The target's statistics, anew: averages over `batches` of target images, each of which `read` sends through `network`.

    No weight moves, and where the network is in evaluation mode no random number is drawn. A last batch of one image goes with
    the one before; of one image in all nothing is learned, since it has no spread.
    """
    parts = list(batches)
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    if sum(map(len, parts)) < 2:
        return
    norms = [cast(_BatchNorm, norm.norms[TARGET]) for norm in domain_norms(network)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches since the reset
        norm.train()
    with torch.no_grad():
        for images in parts:
            read(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def widen_for_coordinates(stem: nn.Module) -> nn.Module:
    """The stem with `AppendCoordinates` before its first convolution, which reads two more channels, with weights of 0.

    Changes `stem` in place and returns it (or what stands in its place, where it is that convolution). It computes what it
    computed before until training moves those weights.

    Raises:
        UserError: where there is no convolution that could read them.
    """
    name, first = next(((name, part) for name, part in stem.named_modules() if isinstance(part, nn.Conv2d)), ("", None))
    if first is None or first.groups != 1:
        raise UserError('the network has no plain convolution in its stem to read coordinates; set method.coordinates = "none"')
    weight = first.weight.data
    first.weight = nn.Parameter(torch.cat([weight, weight.new_zeros(weight.shape[0], 2, *weight.shape[2:])], 1))
    first.in_channels += 2
    widened = nn.Sequential(AppendCoordinates(), first)
    if not name:
        return widened
    stem.set_submodule(name, widened)
    return stem
