"""Calibration: whether a classifier that says 0.9 is right nine times in ten."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.evaluation.outputs import Outputs

BINS = 15


def reliability(logits: Tensor, labels: Tensor, bins: int = BINS) -> list[tuple[int, float, float]]:
    """For each of `bins` equal ranges of confidence that some image falls into: images, mean confidence, accuracy.

    Shapes: (N, K), (N,). Source: Niculescu-Mizil and Caruana 2005; Guo et al. 2017, section 2.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    right = (predicted == labels).double()
    place = (confidence * bins).long().clamp(0, bins - 1)
    found = []
    for k in range(bins):
        inside = place == k
        if inside.any():
            found.append((int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())))
    return found


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Mean over the images of |confidence - accuracy| of their range of confidence: 0..1, lower is better. Shapes: (N, K), (N,).

    Source: Naeini et al. 2015; Guo et al. 2017, eq. 3.
    """
    return sum(count * abs(confidence - accuracy) for count, confidence, accuracy in reliability(logits, labels, bins)) / len(
        labels
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T, 0.05..20, whose softmax(logits / T) has the lowest cross-entropy. Shapes: (N, K), (N,).

    The cross-entropy is convex in 1 / T, so halving an interval by its slope finds it. Source: Guo et al. 2017, section 4.2.
    """
    logits = logits.double()
    low, high = math.log(0.05), math.log(20.0)  # of 1 / T
    for _ in range(40):
        middle = (low + high) / 2
        inverse = torch.tensor(math.exp(middle), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(F.cross_entropy(logits.cpu() * inverse, labels.cpu()), inverse)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def calibrated(outputs: Outputs) -> Tensor:
    """Probabilities (M, K) of the target images, float32 on the CPU, at the temperature that fits the held-out source images."""
    return (outputs.target_logits.cpu() / fit_temperature(*outputs.source)).float().softmax(1)


def match_confidence(logits: Tensor, accuracy: float) -> float:
    """The T, 1..20, at which the mean probability of the predicted class is `accuracy` (0..1), or nearest to it.

    Shape: (N, K). No label is needed: with an estimate of the accuracy it calibrates on the very images that are to be
    classified. A calibrated classifier is as sure, on average, as it is right; the converse holds of the average alone.
    T only softens: estimates err upwards more often, and would make it surer than it should be.
    """
    logits = logits.double()
    low, high = 0.0, math.log(20.0)
    for _ in range(40):
        middle = (low + high) / 2
        sure = float((logits / math.exp(middle)).softmax(1).amax(1).mean())
        low, high = (middle, high) if sure > accuracy else (low, middle)
    return math.exp((low + high) / 2)
