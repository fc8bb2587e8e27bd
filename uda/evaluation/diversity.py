"""How much translations of one image differ, where a method draws many of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from uda.evaluation.perceptual import LEAST, perceptual_distance

DRAWS, IMAGES = 5, 100  # translations of each image, and how many images have them, at most


def pairwise_distance(features: Tensor) -> float:
    """The mean Euclidean distance of two different rows: 0 or more. Shape: (N, D), N of at least 2."""
    return float(torch.nn.functional.pdist(features.double()).mean())


def diversity(
    images: Tensor, real: Tensor, draw: Callable[[Tensor], Tensor], read: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """How far two translations of one image are apart, in features, beside two real images.

    Lee et al. 2018 measure so the diversity of what they draw, by LPIPS.

    Args:
        images: what to translate, uint8 (N, C, H, W), of which up to `IMAGES` are.
        real: real images of the domain translated to, uint8 (M, C, H, W).
        draw: images to a translation of each, drawn anew on every call, uint8 (N, C, H, W).
        read: such images to features (N, D).

    Returns:
        ``diversity``: the mean over images of `pairwise_distance` of `DRAWS` translations; ``real_diversity``: the same of real
        images, left out where there is but one. Where LPIPS is at hand (`perceptual_distance`) and images are large enough for
        it, ``lpips`` and ``real_lpips``: its mean over pairs of translations of one image, and of a real image and the next.
    """
    images, real = images[:IMAGES], real[: 5 * IMAGES]
    drawn = [draw(images) for _ in range(DRAWS)]
    of_each = torch.stack([read(part) for part in drawn], 1)
    found = {"diversity": sum(pairwise_distance(one) for one in of_each) / len(of_each)}
    if len(real) > 1:
        found["real_diversity"] = pairwise_distance(read(real))
    measure = perceptual_distance(images.device) if min(images.shape[2:]) >= LEAST else None
    if measure is not None:
        found["lpips"] = float(torch.cat([measure(a, b) for a, b in combinations(drawn, 2)]).mean())
        if len(real) > 1:
            found["real_lpips"] = float(measure(real[:IMAGES][:-1], real[1:IMAGES]).mean())
    return found
