"""Simple heads: classes of target images by a classifier's features and the source's labels, without any adaptation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.neighbours import NEAREST


def simple_heads(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> list[Tensor]:
    """What three heads take each image of the target for: int64 (M,) each.

    Features of labelled source images (N, D), with labels (N,), and of the target's (M, D), each domain's `standardised`.
    """
    return [
        nearest_mean(source, labels, target, classes),
        nearest_labelled(source, labels, target, classes),
        linear_head(source, labels, target),
    ]


def nearest_mean(features: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """The class (M,) whose mean of labelled features (N, D) is nearest to each of the target's (M, D)."""
    sums = torch.zeros(classes, features.shape[1]).index_add(0, labels, features)
    there = labels.bincount(minlength=classes) > 0
    similarity = target @ F.normalize(sums, dim=1).T
    return similarity.masked_fill(~there, -torch.inf).argmax(1)


def nearest_labelled(features: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """The class (M,) that most of the nearest labelled features (N, D) have, for each of the target's (M, D)."""
    found = (target @ features.T).topk(min(NEAREST, len(features)))
    votes = torch.zeros(len(target), classes).scatter_add(1, labels[found.indices], found.values.clamp_min(0))
    return votes.argmax(1)


def linear_head(features: Tensor, labels: Tensor, target: Tensor, ridge: float = 0.1) -> Tensor:
    """The class (M,) by a ridge regression of one-hot labels on labelled features (N, D), for each of the target's (M, D)."""
    x, wanted = features.double(), F.one_hot(labels).double()
    mean = wanted.mean(0)
    inner = x.T @ x + ridge * len(x) / x.shape[1] * torch.eye(x.shape[1], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(inner, x.T @ (wanted - mean))
    return (target.double() @ weights + mean).argmax(1)
