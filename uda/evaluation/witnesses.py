"""Witnesses: what can be told of an adapted classifier without target labels, each a number, for the estimate to weigh.

An adapted classifier's own confidence says little, for it has been trained to be sure. So others are heard as well: the source
classifier, which has not seen the target; the target's neighbours in either classifier's features, and what near images say once
they have outvoted each other (`uda.neighbours`); and simple heads on features, which were not adapted.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.evaluation.calibration import calibrated
from uda.evaluation.estimation import agreement, average_thresholded_confidence, mean_confidence
from uda.evaluation.outputs import Outputs
from uda.evaluation.selection import batch_nuclear_norm, diversity, source_accuracy
from uda.evaluation.shares import distance, histogram
from uda.neighbours import NEAREST, nearest, propagate


def witnesses(before: Outputs, after: Outputs) -> dict[str, float]:
    """All of them by name, of outputs on the same target images and the same held-out source images, which are labelled.

    Args:
        before: of the source classifier.
        after: of the adapted one.
    """
    labels, classes = before.source[1].cpu(), before.target_logits.shape[1]
    first, last = before.target_logits.float().cpu(), after.target_logits.float().cpu()
    predicted = last.argmax(1)
    of_source, of_target = before.standardised_features
    of_source_after, of_target_after = after.standardised_features
    heads = [
        nearest_mean(of_source, labels, of_target, classes),
        nearest_labelled(of_source, labels, of_target, classes),
        linear_head(of_source, labels, of_target),
    ]
    said = calibrated(before)
    spread = propagate(said, of_target).argmax(1)
    # The adapted classifier's features as they are: these have been trained on the target.
    adapted = F.normalize(after.target_features.float().cpu(), dim=1)
    spread_after, own_spread = propagate(torch.cat([said, last.softmax(1)], 1), adapted).split(classes, 1)
    return {
        "source_accuracy_before": source_accuracy(*before.source),
        "source_accuracy_after": source_accuracy(*after.source),
        "atc_before": average_thresholded_confidence(*before.source, before.target_logits),
        "atc_after": average_thresholded_confidence(*after.source, after.target_logits),
        "confidence_before": mean_confidence(*before.source, before.target_logits),
        "confidence_after": mean_confidence(*after.source, after.target_logits),
        "source_confidence_before": float(before.source[0].softmax(1).amax(1).mean()),
        "agreement": agreement(first, last),
        "belief": float(first.softmax(1).gather(1, predicted[:, None]).mean()),
        "nuclear_before": batch_nuclear_norm(first) * math.sqrt(classes / min(classes, len(first))),
        "nuclear_after": batch_nuclear_norm(last) * math.sqrt(classes / min(classes, len(last))),
        "neighbours_before": neighbours_agree(of_target, predicted),
        "neighbours_after": neighbours_agree(of_target_after, predicted),
        "neighbours_of_source": neighbours_agree(of_target, first.argmax(1)),
        "spread": agree(spread, predicted),
        "spread_before": agree(spread, first.argmax(1)),
        "spread_after": agree(spread_after.argmax(1), predicted),
        "own_spread": agree(own_spread.argmax(1), predicted),
        "mean_head": agree(heads[0], predicted),
        "labelled_head": agree(heads[1], predicted),
        "linear_head": agree(heads[2], predicted),
        "mean_head_before": agree(heads[0], first.argmax(1)),
        "labelled_head_before": agree(heads[1], first.argmax(1)),
        "linear_head_before": agree(heads[2], first.argmax(1)),
        "mean_head_after": agree(nearest_mean(of_source_after, labels, of_target_after, classes), predicted),
        "heads": float(torch.stack([heads[a] == heads[b] for a, b in ((0, 1), (0, 2), (1, 2))]).float().mean()),
        "all_agree": float(torch.stack([head == predicted for head in (*heads, first.argmax(1))]).all(0).float().mean()),
        "evenness_before": diversity(first) / math.log(classes),
        "evenness_after": diversity(last) / math.log(classes),
        "far_shares": distance(histogram(predicted, classes), histogram(labels, classes)),
        "log_classes": math.log(classes),
        "log_images": math.log(len(first)),
    }


def contradiction(before: Outputs) -> float:
    """How often a linear head on the source classifier's features, standardised by domain, contradicts it on the target: 0..1."""
    of_source, of_target = before.standardised_features
    head = linear_head(of_source, before.source[1].cpu(), of_target)
    return 1 - agree(head, before.target_logits.cpu().argmax(1))


def agree(first: Tensor, second: Tensor) -> float:
    """The share of images that two give the same class. Shapes: both (M,)."""
    return float((first == second).float().mean())


def neighbours_agree(features: Tensor, predicted: Tensor, count: int = NEAREST) -> float:
    """The mean share of an image's nearest ones, by cosine, that get its class; 1 for a single image.

    Shapes: (M, D) of length 1, (M,).
    """
    if len(features) == 1:
        return 1.0
    positions = nearest(features, torch.arange(len(features)), count)[1]
    return float((predicted[positions] == predicted[:, None]).float().mean())


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
