"""Which images lie together, by the cosine of their features, and what spreads among those that do.

Label propagation, Zhou et al., "Learning with Local and Global Consistency", NIPS 2003: what is said of each image is

    y <- alpha x sum over the k nearest of w_j y_j + (1 - alpha) x y_0,   w = softmax over the k nearest of cosine / temperature

for some rounds, so that images that lie together come to say the same. Not in the paper, which spreads a few known labels by a
symmetric matrix (scikit-learn's LabelSpreading): each image listens to k others, whose weights have sum 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# How far words spread, as chosen for the method `label_propagation`; class shares are estimated so, too.
NEAREST = 10
TEMPERATURE = 0.03
ALPHA = 0.95
ROUNDS = 100
BLOCK = 1000
"""images whose nearest ones are looked for at once"""


def standardised(features: Tensor) -> Tensor:
    """Features (N, D) of one domain with mean 0 and deviation 1 in each column, then of length 1; float32 on the CPU."""
    features = features.float().cpu()
    return F.normalize((features - features.mean(0)) / features.std(0, correction=0).clamp_min(1e-6), dim=1)


def nearest(features: Tensor, positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cosines and positions, (B, k) each, of the images nearest to those at these positions, int64 (B,); themselves left out.

    Features (N, D) are of length 1; k is `count`, or N - 1 where that is less.
    """
    cosines = features[positions] @ features.T
    cosines[torch.arange(len(positions), device=positions.device), positions] = -torch.inf
    found = cosines.topk(min(count, len(features) - 1))
    return found.values, found.indices


def propagate(
    start: Tensor,
    features: Tensor,
    count: int = NEAREST,
    temperature: float = TEMPERATURE,
    alpha: float = ALPHA,
    rounds: int = ROUNDS,
) -> Tensor:
    """What N images say, (N, C), after as many rounds of listening to the `count` nearest by features (N, D) of length 1.

    `start`, (N, C), is what they say first, and go on to say as much as 1 - `alpha`. The search is of all pairs.
    """
    found = [nearest(features, part, count) for part in torch.arange(len(features), device=features.device).split(BLOCK)]
    cosines, positions = (torch.cat(parts) for parts in zip(*found, strict=True))
    return spread(start, positions, (cosines / temperature).softmax(1), alpha, rounds)


def spread(start: Tensor, positions: Tensor, weights: Tensor, alpha: float, rounds: int) -> Tensor:
    """What N images say, (N, C), after rounds of listening to others, as much as `alpha`, and else to `start` (N, C).

    `positions`: whom they listen to, int64 (N, k); `weights`: how much, (N, k), of sum 1 in a row. With these in a matrix S it
    nears (1 - alpha) (I - alpha S)^-1 start. Source: Zhou et al. 2003, section 2.
    """
    said = start
    if not positions.numel():  # a single image
        return said
    for _ in range(rounds):
        heard = sum(weight[:, None] * said[others] for weight, others in zip(weights.T, positions.T, strict=True))
        said = alpha * heard + (1 - alpha) * start
    return said
