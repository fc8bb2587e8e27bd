"""Witnesses: what can be told, without target labels, of the class that each target image is given, for the estimate to weigh.

An adapted classifier's own confidence says little, for it has been trained to be sure. So others are heard as well: the source
classifier, which has not seen the target; the image's neighbours in either classifier's features, and what near images say once
they have outvoted each other (`uda.neighbours`); and simple heads on features, which were not adapted. What they mean together
was learned from runs whose truth is known (`uda.evaluation.trees`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.evaluation.calibration import calibrated
from uda.evaluation.outputs import Outputs
from uda.evaluation.shares import histogram
from uda.evaluation.trees import shipped
from uda.neighbours import NEAREST, nearest, propagate

EDGE = 0.002  # probabilities are kept this far from 0 and 1 where their logarithms of odds are taken
OF_CLASS = (
    "source_probability", "adapted_probability", "adapted_confidence", "spread", "spread_in_adapted", "own_spread",
    "neighbours", "neighbours_in_adapted", "neighbours_of_source",
    "mean_head", "labelled_head", "linear_head", "mean_head_in_adapted", "share",
)  # fmt: skip
"""what is told of a class that an image may have"""
COLUMNS = (
    *(f"{name}_after" for name in OF_CLASS), *(f"{name}_before" for name in OF_CLASS),
    "source_confidence", "own_confidence", "agreement",
)  # fmt: skip
"""of the class that the adapted classifier gives an image, of the one that the source classifier gives it, and of neither"""
OF_RUN = (*COLUMNS, "log_classes", "log_images")
"""of all images of a run"""
HEADS = ("mean_head_after", "labelled_head_after", "linear_head_after")


def witnesses(before: Outputs, after: Outputs) -> dict[str, float]:
    """What is told of a run, by name: the mean of each of `COLUMNS`, and what follows from these, image by image.

    Args:
        before: of the source classifier.
        after: of the adapted one, on the same target images and the same held-out source images, which are labelled.

    Returns:
        `OF_RUN`; ``all_agree``: the share of images that simple heads and both classifiers give one class; and ``likely_after``
        and ``likely_before``: of the images, how many either classifier is likely to give their class, 0..1.
    """
    images = evidence(before, after)
    of_run = run_evidence(images, before.target_logits.shape[1])
    likely_after, likely_before = likely(shipped()(beside(images, of_run)), images)
    found = dict(zip(OF_RUN, of_run.tolist(), strict=True))
    return found | {"all_agree": all_agree(images), "likely_after": likely_after, "likely_before": likely_before}


def evidence(before: Outputs, after: Outputs) -> Tensor:
    """`COLUMNS` of each target image, float32 (M, 31); `before` and `after` as for `witnesses`.

    Probabilities are logarithms of odds, votes of near images shares, those of heads 0 or 1; the share of a class is the
    logarithm of how much oftener the adapted classifier gives it than the source has it.
    """
    labels = before.source[1].cpu()
    images, classes = before.target_logits.shape
    first, last = before.target_logits.cpu().argmax(1), after.target_logits.cpu().argmax(1)
    (of_source, of_target), (of_source_after, of_target_after) = before.standardised_features, after.standardised_features
    said, own = calibrated(before), after.target_logits.float().cpu().softmax(1)
    # The adapted classifier's features as they are: these have been trained on the target.
    adapted = F.normalize(after.target_features.float().cpu(), dim=1)
    spread_in_adapted, own_spread = propagate(torch.cat([said, own], 1), adapted).split(classes, 1)
    probabilities = [said, own, calibrated(after), propagate(said, of_target), spread_in_adapted, own_spread]
    by_first, by_last = F.one_hot(first, classes).float(), F.one_hot(last, classes).float()
    near_say_last, near_say_first = votes_of_near(of_target, torch.cat([by_last, by_first], 1)).split(classes, 1)
    votes = [near_say_last, votes_of_near(of_target_after, by_last), near_say_first]
    heads = [
        nearest_mean(of_source, labels, of_target, classes),
        nearest_labelled(of_source, labels, of_target, classes),
        linear_head(of_source, labels, of_target),
        nearest_mean(of_source_after, labels, of_target_after, classes),
    ]
    given, had = histogram(last, classes).clamp_min(1 / images), histogram(labels, classes).clamp_min(1 / len(labels))

    def of(wanted: Tensor) -> list[Tensor]:
        def pick(table: Tensor) -> Tensor:
            return table.gather(1, wanted[:, None])[:, 0]

        return [
            *(log_odds(pick(said_of) / said_of.sum(1).clamp_min(1e-9)) for said_of in probabilities),
            *map(pick, votes),
            *((head == wanted).float() for head in heads),
            (given / had).log().float()[wanted],
        ]

    sure = [log_odds(said.amax(1)), log_odds(own.amax(1)), (first == last).float()]
    return torch.stack([*of(last), *of(first), *sure], 1).nan_to_num()


def run_evidence(images: Tensor, classes: int) -> Tensor:
    """`OF_RUN`, float32 (33,), of the evidence of its images (M, 31)."""
    return torch.cat([images.mean(0), torch.tensor([math.log(classes), math.log(len(images))])])


def beside(images: Tensor, of_run: Tensor) -> Tensor:
    """The evidence of each image (M, 31) and that of its run (33,), side by side: (M, 64)."""
    return torch.cat([images, of_run.expand(len(images), -1)], 1)


def likely(probabilities: Tensor, images: Tensor) -> tuple[float, float]:
    """The shares of images that the adapted classifier and the source classifier are likely to give their class, 0..1.

    Args:
        probabilities: (M, 3), that the adapted classifier is right, that the source classifier alone is, that neither is.
        images: their evidence, (M, 31). Where both give one class, both are right, or neither.
    """
    same = images[:, COLUMNS.index("agreement")] > 0.5
    adapted, source, _ = probabilities.T.contiguous()  # of equal numbers equal means
    return float(adapted.mean()), float(torch.where(same, adapted, source).mean())


def all_agree(images: Tensor) -> float:
    """The share of images, by their evidence (M, 31), that three heads on source features and both classifiers give one class."""
    return float(images[:, [COLUMNS.index(name) for name in (*HEADS, "agreement")]].min(1).values.mean())


def contradiction(before: Outputs) -> float:
    """How often a linear head on the source classifier's features, standardised by domain, contradicts it on the target: 0..1."""
    of_source, of_target = before.standardised_features
    head = linear_head(of_source, before.source[1].cpu(), of_target)
    return float((head != before.target_logits.cpu().argmax(1)).float().mean())


def log_odds(probabilities: Tensor) -> Tensor:
    """ln p / (1 - p) of probabilities 0..1, which are kept `EDGE` away from both ends."""
    return probabilities.clamp(EDGE, 1 - EDGE).logit()


def votes_of_near(features: Tensor, given: Tensor) -> Tensor:
    """The share of each image's nearest ones, by cosine, that are given each class: (M, K); of a single image, its own.

    Shapes: features (M, D) of length 1; `given` (M, K), 1 for the class that an image is given and 0 for the others.
    """
    if len(features) == 1:
        return given
    positions = nearest(features, torch.arange(len(features)), NEAREST)[1]
    return given[positions].mean(1)


def nearest_mean(features: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """The class (M,) whose mean of labelled features (N, D) is nearest to each of the target's (M, D)."""
    sums = torch.zeros(classes, features.shape[1]).index_add(0, labels, features)
    there = labels.bincount(minlength=classes) > 0
    similarity = target @ F.normalize(sums, dim=1).T
    return similarity.masked_fill(~there, -torch.inf).argmax(1)


def nearest_labelled(features: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """The class (M,) that most of the nearest labelled features (N, D) have, for each of the target's (M, D)."""
    found = (target @ features.T).topk(min(NEAREST, len(features)))
    votes = torch.zeros(len(target), classes).scatter_add(
        1, labels[found.indices], found.values.clamp_min(1e-6)
    )  # of images that are unlike all, too
    return votes.argmax(1)


def linear_head(features: Tensor, labels: Tensor, target: Tensor, ridge: float = 0.1) -> Tensor:
    """The class (M,) by a ridge regression of one-hot labels on labelled features (N, D), for each of the target's (M, D)."""
    x, wanted = features.double(), F.one_hot(labels).double()
    mean = wanted.mean(0)
    inner = x.T @ x + ridge * len(x) / x.shape[1] * torch.eye(x.shape[1], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(inner, x.T @ (wanted - mean))
    return (target.double() @ weights + mean).argmax(1)
