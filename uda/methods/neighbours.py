"""A bank of what the network says of every target image, in which the nearest neighbours of a batch are found.

Methods that pull an image's prediction towards its neighbours' share it (Yang et al. 2022, and AaD before all).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.collectives import gather
from uda.data.augment import to_float
from uda.data.domain import Domain
from uda.data.files import in_order, read
from uda.neighbours import nearest


def inputs_of(domain: Domain) -> Iterator[Tensor]:
    """All that a network reads of a domain, in order and in blocks: float images (B, C, H, W) in -1..1, or maps."""
    for images in read(domain.inputs, in_order(domain.inputs)):
        yield to_float(images)


class NeighbourBank(nn.Module):
    """Features and probabilities of all N target images, as they last were. They are part of the state, and take no gradient.

    It is empty until it is filled, or until a state is loaded into it, from which it takes its length.

    Args:
        feature_dim: D, the length of a feature vector.
        classes: K, the length of a prediction.

    Attributes:
        features: (N, D), each of length 1, so that a dot product is a cosine.
        probabilities: (N, K), each of sum 1.
    """

    features: Tensor
    probabilities: Tensor

    def __init__(self, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(0, feature_dim))
        self.register_buffer("probabilities", torch.zeros(0, classes))
        nn.Module.register_load_state_dict_pre_hook(self, _take_length)

    def fill(self, outputs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Puts in features (B, D) and logits (B, K) of all images, given block after block, in the order of their positions."""
        features, logits = zip(*outputs, strict=True)
        self.features = F.normalize(torch.cat(features).detach().float(), dim=1)
        self.probabilities = torch.cat(logits).detach().float().softmax(1)

    def update(self, positions: Tensor, features: Tensor, logits: Tensor) -> None:
        """Puts features (B, D) and logits (B, K) in place of what was at these positions, int64 (B,); those of all processes."""
        positions, features, logits = gather(positions), gather(features.detach()), gather(logits.detach())
        self.features[positions] = F.normalize(features.detach().float(), dim=1)
        self.probabilities[positions] = logits.detach().float().softmax(1)

    def neighbours(self, positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Cosines and positions, (B, count) each, of the images nearest to those at these positions, themselves left out.

        Where the bank holds no more than `count` images, all others: (B, N - 1).
        """
        return nearest(self.features, positions, count)

    def nearest(self, positions: Tensor, count: int) -> Tensor:
        """Probabilities (B, count, K) of these neighbours."""
        return self.probabilities[self.neighbours(positions, count)[1]]


def _take_length(bank: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Gives an empty bank as many rows as the state holds that is about to be loaded into it."""
    for name, own in bank.named_buffers():
        saved = state.get(prefix + name)
        if len(own) == 0 and saved is not None:
            setattr(bank, name, own.new_zeros(len(saved), *own.shape[1:]))
