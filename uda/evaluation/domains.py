"""Two domains before anything is trained: how far they are apart, and how often each class comes in the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uda.evaluation.outputs import Outputs
from uda.evaluation.shares import Shares, estimate_shares
from uda.evaluation.witnesses import contradiction
from uda.neighbours import standardised

FOLDS = 5
PARTS = 4  # a picture is described by so many parts along a side
IMPOSSIBLE = -30.0  # the logit of a class that a classifier has seen no image of


def statistics(images: Tensor) -> Tensor:
    """Simple statistics of images uint8 (N, C, H, W), float32 (N, 3 C + 16): what a glance at light, colour and sharpness tells.

    Of each channel its mean, its standard deviation and the mean step from pixel to pixel; and a thumbnail in grey, 4 x 4, all in
    0..1.
    """
    pixels = images.float() / 255
    steps = (pixels.diff(dim=2).abs().mean((2, 3)) + pixels.diff(dim=3).abs().mean((2, 3))) / 2
    thumbnail = F.adaptive_avg_pool2d(pixels.mean(1, keepdim=True), PARTS).flatten(1)
    return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3)), steps, thumbnail], 1)


def domain_auc(source: Tensor, target: Tensor) -> float:
    """How well a linear classifier tells the domains apart: the area under its ROC curve on images that it was not fitted on.

    0.5: not at all, 1: without a mistake. Cross-validated logistic regression; features (N, D), (M, D), at least five rows each.
    Source: Ben-David et al. 2010 (the domain classifier's error, as a measure of distance).
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict

    features = torch.cat([source, target]).float().numpy()
    domain = np.repeat((0, 1), (len(source), len(target)))
    scores = cross_val_predict(_linear(), features, domain, cv=FOLDS, method="decision_function")
    return float(roc_auc_score(domain, scores))


def class_shares(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Shares | None:
    """How often each class comes in the target, as far as it can be told without its labels.

    A linear classifier of source features (N, D) with labels (N,) reads target features (M, D), each domain's standardised by its
    own mean and deviation, as a run's heads read them. What it says of source images that it was not fitted on calibrates it, so
    that the shares and their doubt are estimated as a run's are. It holds where a class looks alike in both domains, and is a
    hint where it does not; of uneven classes, standardising takes a part for a difference of the domains. Nothing is known of a
    class that the source has no image of, and it gets an even share. None where fewer than two classes of the source have two
    images or more.
    """
    if int((labels.bincount() > 1).sum()) < 2:
        return None
    known, numbers = labels.unique(return_inverse=True)
    own, other = standardised(source), standardised(target)
    folds = min(FOLDS, len(own))
    fold = numbers.argsort(stable=True).argsort() % folds  # images of one class go to different folds
    held_out = torch.empty(len(own), len(known))
    for number in range(folds):
        inside = fold == number
        held_out[inside] = _read(own[~inside], numbers[~inside], own[inside], len(known))
    before = Outputs(target, _read(own, numbers, other, len(known)), source, held_out, numbers)
    found = estimate_shares(before, contradiction(before))
    estimated = torch.full((classes,), 1 / classes, dtype=torch.float64)
    estimated[known] = found.estimated * (len(known) / classes)
    return replace(found, estimated=estimated)


def _read(features: Tensor, labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """Logits (M, K) that a linear classifier of features (N, D) of length 1, with labels (N,), gives others (M, D)."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10, max_iter=500).fit(features.numpy(), labels.numpy())
    logits = torch.full((len(others), classes), IMPOSSIBLE)
    logits[:, torch.from_numpy(model.classes_)] = torch.from_numpy(model.predict_log_proba(others.numpy())).float()
    return logits.clamp_min(IMPOSSIBLE)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression  # takes seconds to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
