"""Loss functions: pure, with the formula in the docstring. All return a scalar in float32.

In a run of several processes, each with its part of the batch, a mean over images is the part's, and the processes' gradients are
averaged; what mixes images is of the whole batch, in each process (`uda.collectives.gather`).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.collectives import gather
from uda.errors import UserError

Norm = Literal["l1", "l2"]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -log softmax(logits)[label], with label smoothing.

    Shapes: logits (N, K), labels (N,) int64.
    """
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def real_fake(logits: Tensor, real: bool) -> Tensor:
    """-log D(x) for real = True, -log(1 - D(x)) for real = False, D = sigmoid(logits): mean over the batch.

    The player that wants to be taken for real minimises `real_fake(logits, True)` on its own images, the
    non-saturating form. Source: Goodfellow et al. 2014; the L_GAN terms of Liu et al. 2017, eq. 4.
    """
    return F.softplus(-logits.float() if real else logits.float()).mean()


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Sum over an image's (or feature vector's) entries of |a - b| (l1) or (a - b)^2 (l2); mean over the batch.

    With l1 it is, up to a constant, the negative log-likelihood under the Laplacian generators of
    Liu et al. 2017, section 3. Shapes: a and b alike, batch first.
    """
    difference = (a.float() - b.float()).flatten(1)
    return (difference.abs() if norm == "l1" else difference.square()).sum(1).mean()


def statistics_distance(a: Tensor, b: Tensor) -> Tensor:
    """|mean_a - mean_b|^2 + |std_a - std_b|^2, of each entry over the batch: 0 or more.

    The squared 2-Wasserstein distance of normal distributions whose entries are independent (Dowson and Landau 1982); its first
    half is the feature matching of Salimans et al. 2016, section 3.1. Shapes: (N, ...), (M, ...).
    """
    a, b = (gather(part.float().flatten(1)) for part in (a, b))
    std_a, std_b = ((part.var(0, correction=0) + 1e-6).sqrt() for part in (a, b))  # a root has no slope at 0
    return (a.mean(0) - b.mean(0)).square().sum() + (std_a - std_b).square().sum()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor | None = None) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)), sum over the code, mean over the batch.

    Without `log_variance` the posterior has unit variance (Liu et al. 2017) and the divergence is |mean|^2 / 2.
    Shapes: (N, ...), both alike.
    """
    mean = mean.float().flatten(1)
    if log_variance is None:
        return 0.5 * mean.square().sum(1).mean()
    log_variance = log_variance.float().flatten(1)
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean()


def entropy(logits: Tensor) -> Tensor:
    """Mean over the batch of the entropy of softmax(logits), in nats: 0..ln K. Shape: logits (N, K)."""
    log_p = F.log_softmax(logits.float(), 1)
    return -(log_p.exp() * log_p).sum(1).mean()


def marginal_entropy(logits: Tensor, shares: Tensor | None = None) -> Tensor:
    """Entropy of the batch's mean prediction, in nats: 0..ln K; high when all classes are used. Shape: (N, K).

    With expected `shares` (K,), above 0 and of sum 1, ln K - KL(mean prediction || shares): at its most where the mean is these,
    and the entropy where these are even. Source: Krause et al. 2010 (RIM), section 4.
    """
    p = F.softmax(gather(logits).float(), 1).mean(0)
    entropy = -(p * p.clamp_min(1e-8).log()).sum()
    return entropy if shares is None else entropy + (p * (len(p) * shares).log()).sum()


def information_maximization(logits: Tensor, shares: Tensor | None = None) -> Tensor:
    """entropy - marginal_entropy; of even shares minus the mutual information of image and prediction: -ln K..0.

    Each prediction sure, all classes used, as often as expected. Source: Gomes et al. 2010; Liang et al. 2020 (SHOT), eq. 3.
    """
    return entropy(logits) - marginal_entropy(logits, shares)


def class_balance(logits: Tensor, shares: Tensor | None = None) -> Tensor:
    """Cross-entropy of the expected shares (K,), or of even ones, and the batch's mean prediction (N, K): at its least where
    they are alike.

    Source: French et al. 2018, section 3.3.
    """
    log_mean = F.softmax(gather(logits).float(), 1).mean(0).clamp_min(1e-6).log()
    return -(log_mean.mean() if shares is None else (shares * log_mean).sum())


def entropy_separation(logits: Tensor, margin: float) -> Tensor:
    """Mean over the batch of -|H(p) - ln(K) / 2|, of which what is at most `margin` (nats) counts nothing: -ln(K) / 2..0.

    Doubtful predictions become more so, sure ones surer. Shape: logits (N, K). Source: Saito et al. 2020 (DANCE), eq. 4 and 5.
    """
    log_p = F.log_softmax(logits.float(), 1)
    distance = (-(log_p.exp() * log_p).sum(1) - math.log(logits.shape[1]) / 2).abs()
    return -(distance * (distance > margin)).mean()


def pseudo_label(student_logits: Tensor, teacher_logits: Tensor, confidence: float | Tensor) -> Tensor:
    """Cross-entropy of the student against the teacher's class, over images whose teacher is surer than `confidence`.

    Divided by the whole batch, so the loss fades in as the teacher grows sure. No gradient reaches the teacher.
    Source: Tarvainen and Valpola 2017; French et al. 2018. Shapes: both (N, K).
    """
    sure, label = teacher_logits.detach().float().softmax(1).max(1)
    loss = F.cross_entropy(student_logits.float(), label, reduction="none")
    return (loss * (sure > confidence)).mean()


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Mean over the batch of KL(p || q), in nats. Shapes: log-probabilities (N, K), both alike."""
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def maximum_mean_discrepancy(a: Tensor, b: Tensor, kernels: int = 5) -> Tensor:
    """MMD^2 = E k(a, a') + E k(b, b') - 2 E k(a, b), k a mean of Gaussian kernels: 0 or more (the biased estimate).

    Their bandwidths are 2^-2 .. 2^2 (five kernels) times the mean squared distance of all pairs. Shapes: (N, D), (M, D).
    Source: Gretton et al. 2012; Long et al. 2015 (DAN), section 3.1.
    """
    a, b = gather(a), gather(b)
    both = torch.cat([a, b]).float()
    distances = torch.cdist(both, both).square()
    count = len(both)
    bandwidth = distances.detach().sum() / (count * count - count)
    scales = bandwidth * 2.0 ** (torch.arange(kernels, device=both.device) - kernels // 2)
    similar = torch.stack([torch.exp(-distances / scale.clamp_min(1e-12)) for scale in scales]).mean(0)
    n = len(a)
    return similar[:n, :n].mean() + similar[n:, n:].mean() - 2 * similar[:n, n:].mean()


def coral(a: Tensor, b: Tensor) -> Tensor:
    """|C_a - C_b|^2_F / (4 D^2), C the covariance of the features. Shapes: (N, D), (M, D); N, M of at least 2.

    Source: Sun and Saenko 2016, eq. 1.
    """
    a, b = gather(a), gather(b)
    if min(len(a), len(b)) < 2:
        raise UserError("a covariance takes two images or more of each domain; raise training.batch")
    return (a.float().T.cov() - b.float().T.cov()).square().sum() / (4 * a.shape[1] ** 2)


def class_confusion(logits: Tensor, temperature: float) -> Tensor:
    """Mean over the classes of the share of a class's predictions that goes to other classes: 0..1 - 1/K.

    Predictions are softened by `temperature`, images weighted by 1 + exp(-entropy), rows normalised. Shape: (N, K).
    Source: Jin et al. 2020 (MCC), eq. 3 to 7.
    """
    p = (gather(logits).float() / temperature).softmax(1)
    weight = 1 + torch.special.xlogy(p, p).sum(1).exp()
    weight = (weight * len(p) / weight.sum()).detach()
    confusion: Tensor = (p * weight[:, None]).T @ p
    confusion = confusion / confusion.sum(1, keepdim=True).clamp_min(
        1e-12
    )  # a class that no image is given is confused with none
    return (confusion.sum() - confusion.trace()) / len(confusion)


def attraction(logits: Tensor, neighbours: Tensor) -> Tensor:
    """Mean over the batch of minus the sum over an image's neighbours j of p . p_j: -M..0, M their number.

    No gradient reaches the neighbours. Shapes: logits (N, K), the neighbours' probabilities (N, M, K).
    Source: Yang et al. 2022 (AaD), the objective's first term.
    """
    p = logits.float().softmax(1)
    return -torch.einsum("nk,nmk->n", p, neighbours.detach().float()).mean()


def dispersion(logits: Tensor) -> Tensor:
    """Mean over the batch of the sum over all its other images m of p . p_m: 0..N - 1. Shape: (N, K).

    Source: Yang et al. 2022 (AaD), the objective's second term.
    """
    p = gather(logits).float().softmax(1)
    products = p @ p.T
    return (products.sum() - products.trace()) / len(p)
