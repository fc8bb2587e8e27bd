"""Label-free scores: how good an adapted classifier is, as far as can be told without target labels.

Each score is a function of arrays. `SCORES` turns them one way: there, higher is better. No score is a guarantee: the bench
``benchmarks/selection.py`` measures what choosing by each of them costs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from pydantic import field_validator
from torch import Tensor

from uda import losses
from uda.errors import UserError
from uda.evaluation.outputs import Outputs
from uda.types import Section


def entropy(target_logits: Tensor) -> float:
    """Mean entropy of the predictions, nats: 0..ln K, lower is better. Shape: (M, K).

    Source: Grandvalet and Bengio 2004; Morerio et al. 2018 as a validator. It is 0 too where all images get one class.
    """
    return float(losses.entropy(target_logits))


def diversity(target_logits: Tensor, shares: Tensor | None = None) -> float:
    """Entropy of the mean prediction, nats: at most ln K, higher is better where classes are even. Shape: (M, K).

    With expected `shares` (K,), each above 0, it is highest where the mean is these (`uda.losses.marginal_entropy`).
    Source: Gomes et al. 2010. It tells a collapse onto few classes, and little else.
    """
    return float(losses.marginal_entropy(target_logits, shares))


def information_maximization(target_logits: Tensor, shares: Tensor | None = None) -> float:
    """`diversity`, of even or expected shares, minus mean entropy of the predictions, nats: at most ln K, higher is better.

    Shapes: (M, K), (K,). High when each prediction is sure and classes come as often as expected. It cannot tell a good
    clustering whose classes are swapped from a good classifier. Source: Gomes et al. 2010; Musgrave et al. 2022 as a validator.
    """
    return float(-losses.information_maximization(target_logits, shares))


def batch_nuclear_norm(target_logits: Tensor) -> float:
    """Sum of the singular values of the (M, K) matrix of probabilities, over sqrt(M K): 0..1, higher is better.

    It grows with sureness and with the number of classes used. Source: Cui et al. 2020 (BNM), eq. 6, which does not divide.
    """
    p = target_logits.float().softmax(1)
    return float(torch.linalg.matrix_norm(p, "nuc") / (p.numel() ** 0.5))


def soft_neighbourhood_density(target_logits: Tensor, temperature: float = 0.05) -> float:
    """Mean entropy of each image's softmax similarity to all others, nats: 0..ln(M - 1), higher is better. Shape: (M, K).

    Similarity is the cosine of predicted probabilities over `temperature`; high where each image has many like it, so also
    where all images get one class. Source: Saito et al. 2021 (SND), eq. 1 to 4.
    """
    p = F.normalize(target_logits.float().softmax(1), dim=1)
    similarity = p @ p.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    log_share = similarity.log_softmax(1)
    return float(-torch.special.xlogy(log_share.exp(), log_share.exp()).sum(1).mean())


def class_cluster_agreement(target_features: Tensor, target_logits: Tensor) -> float:
    """Adjusted mutual information of predicted classes and k-means clusters of the features: about 0..1, higher is better.

    As many clusters as classes, of features brought to length 1; deterministic. Shapes: (M, D), (M, K).
    Source: Robbiano et al. 2022; Musgrave et al. 2022 (ClassAMI).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_mutual_info_score

    features = F.normalize(target_features.float(), dim=1).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than clusters: a collapsed classifier, which scores 0
        clusters = KMeans(target_logits.shape[1], n_init=1, random_state=0).fit_predict(features)
    return float(adjusted_mutual_info_score(target_logits.argmax(1).cpu().numpy(), clusters))


def neighbour_precision(target_features: Tensor, target_logits: Tensor) -> float:
    """Mean average precision at R of predicted classes among the nearest features, by cosine: 0..1, higher is better.

    R is the number of other images that get the image's class; computed by pytorch-metric-learning. Shapes: (M, D), (M, K).
    Source: Musgrave et al. 2020 (MAP@R), as a validator without labels.
    """
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    calculator = AccuracyCalculator(("mean_average_precision_at_r",), k="max_bin_count", knn_func=CustomKNN(CosineSimilarity()))
    figures = calculator.get_accuracy(target_features.float(), target_logits.argmax(1))
    return float(figures["mean_average_precision_at_r"])


def source_accuracy(source_logits: Tensor, source_labels: Tensor) -> float:
    """The share of held-out source images that the adapted classifier still gets right: 0..1, higher is better."""
    return float((source_logits.argmax(1) == source_labels).float().mean())


def density_ratio(source_features: Tensor, target_features: Tensor) -> Tensor:
    """p_target / p_source at each source image (N,), float64, 0 or more: by logistic regression of the domain on the features.

    An image's ratio comes from a regression that was fitted without it (five folds). Shapes: (N, D), (M, D).
    Source: Sugiyama et al. 2007; You et al. 2019, eq. 6.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = torch.cat([source_features, target_features]).float().cpu().numpy()
    domain = np.repeat([0, 1], [len(source_features), len(target_features)])
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    p = cross_val_predict(regression, features, domain, cv=5, method="predict_proba")[: len(source_features)].clip(1e-6)
    return torch.from_numpy(p[:, 1] / p[:, 0] * len(source_features) / len(target_features))


def importance_weighted_validation(source_loss: Tensor, weight: Tensor) -> float:
    """The target risk as a mean of weighted source losses: 0 or more, lower is better. Shapes: both (N,).

    `weight` is the `density_ratio` at each image. Source: Sugiyama et al. 2007.
    """
    return float((source_loss * weight).mean())


def deep_embedded_validation(source_loss: Tensor, weight: Tensor) -> float:
    """The same with less variance, by a control variate: mean(w l) + eta mean(w) - eta, eta = -cov(w l, w) / var(w).

    Lower is better; it may fall below 0. Shapes: both (N,). Source: You et al. 2019 (DEV), algorithm 1.
    """
    weighted = source_loss * weight
    covariance = torch.stack([weighted, weight.to(weighted)]).cov()
    eta = -covariance[0, 1] / covariance[1, 1].clamp_min(1e-12)
    return float(weighted.mean() + eta * weight.mean() - eta)


def _risk(risk: Callable[[Tensor, Tensor], float], outputs: Outputs) -> float:
    assert outputs.source_features is not None
    loss = F.cross_entropy(*outputs.source, reduction="none").cpu().double()
    return risk(loss, density_ratio(outputs.source_features, outputs.target_features))


OF_TARGET: dict[str, Callable[[Outputs], float]] = {
    "entropy": lambda outputs: -entropy(outputs.target_logits),
    "diversity": lambda outputs: diversity(outputs.target_logits),
    "information_maximization": lambda outputs: information_maximization(outputs.target_logits),
    "batch_nuclear_norm": lambda outputs: batch_nuclear_norm(outputs.target_logits),
    "soft_neighbourhood_density": lambda outputs: soft_neighbourhood_density(outputs.target_logits),
    "class_cluster_agreement": lambda outputs: class_cluster_agreement(outputs.target_features, outputs.target_logits),
    "neighbour_precision": lambda outputs: neighbour_precision(outputs.target_features, outputs.target_logits),
}
"""scores that read target images alone"""

OF_SOURCE: dict[str, Callable[[Outputs], float]] = {
    "source_accuracy": lambda outputs: source_accuracy(*outputs.source),
    "importance_weighted_validation": lambda outputs: -_risk(importance_weighted_validation, outputs),
    "deep_embedded_validation": lambda outputs: -_risk(deep_embedded_validation, outputs),
}
"""scores that read held-out source images too"""

SCORES = OF_TARGET | OF_SOURCE
"""every score by name, turned so that higher is better"""


OF_SHARES = {"diversity": diversity, "information_maximization": information_maximization}
"""those that ask for even classes unless told which shares to expect"""


def label_free(names: Sequence[str], outputs: Outputs, shares: Tensor | None = None) -> dict[str, float]:
    """Some of `SCORES`, by name; `shares` (K,), each above 0, are what is expected of the target's classes, None: even ones."""
    shares = None if shares is None else shares.to(outputs.target_logits.device)
    return {
        name: OF_SHARES[name](outputs.target_logits, shares) if name in OF_SHARES else SCORES[name](outputs) for name in names
    }


def mean_ranks(evaluations: Sequence[dict[str, float]]) -> list[float]:
    """Each evaluation's rank by each of its scores, averaged over the scores; equal values share their ranks.

    Raises:
        ValueError: where the evaluations do not have the same scores.
    """
    if any(evaluation.keys() != evaluations[0].keys() for evaluation in evaluations):
        raise ValueError("evaluations with different scores cannot be ranked")

    def rank(name: str, evaluation: dict[str, float]) -> float:
        below = sum(other[name] < evaluation[name] for other in evaluations)
        return below + (sum(other[name] == evaluation[name] for other in evaluations) - 1) / 2

    return [sum(rank(name, evaluation) for name in evaluation) / len(evaluation) for evaluation in evaluations]


def best(evaluations: Sequence[dict[str, float]]) -> int:
    """The position of the evaluation with the highest mean rank; the first of equals."""
    ranks = mean_ranks(evaluations)
    return ranks.index(max(ranks))


class SelectionSettings(Section):
    """Which label-free score picks `selected`."""

    score: tuple[str, ...] = ("information_maximization",)
    """a name from `SCORES`, or a list of some: then the mean of the ranks that they give decides"""
    keep: bool = False
    """whether each evaluation's features and logits are kept (``outputs/``), to study scores later"""

    @field_validator("score", mode="before")
    @classmethod
    def _names(cls, given: object) -> object:
        names = (given,) if isinstance(given, str) else given
        if not isinstance(names, list | tuple) or not names:
            raise ValueError("give the name of a score, or a list of some")
        for name in names:
            if name not in SCORES:
                raise UserError.unknown("score", str(name), SCORES)
        return names

    @property
    def reads_source(self) -> bool:
        return any(name in OF_SOURCE for name in self.score)
