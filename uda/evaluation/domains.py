"""Two domains before anything is trained: how far they are apart, and how often each class comes in the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uda.evaluation.shares import expectation_maximization

FOLDS = 5
PARTS = 4  # a picture is described by so many parts along a side


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


def class_shares(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Tensor:
    """How often each class comes in the target, as far as it can be told without its labels: shares (K,) that sum to 1.

    A linear classifier of source features (N, D) with labels (N,) reads target features (M, D); expectation maximisation finds
    the shares under which its probabilities are most likely (Saerens et al. 2002). It holds where a class looks alike in both
    domains, and is a hint where it does not. A class that the source has no image of gets 0.
    """
    model = _linear().fit(source.float().numpy(), labels.numpy())
    likely = torch.from_numpy(model.predict_proba(target.float().numpy()))
    seen = torch.from_numpy(model.classes_)
    before = labels.bincount(minlength=classes)[seen].double() / len(labels)
    shares = expectation_maximization(likely, before)
    return torch.zeros(classes, dtype=torch.float64).index_put((seen,), shares)


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression  # takes seconds to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
