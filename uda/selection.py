"""Label-free scores: how well adaptation went, as far as unlabelled target images can tell. Higher is better."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from uda import losses


def information_maximization(logits: Tensor) -> float:
    """Entropy of the mean prediction minus mean entropy of the predictions, in nats: 0..ln K, higher is better.

    High when each prediction is sure and all classes are used. It cannot tell a good clustering whose classes are swapped
    from a good classifier. Shape: logits (N, K). Source: Gomes et al. 2010; Musgrave et al. 2022 (as a validator).
    """
    return float(-losses.information_maximization(logits))


SCORES: dict[str, Callable[[Tensor], float]] = {"information_maximization": information_maximization}
