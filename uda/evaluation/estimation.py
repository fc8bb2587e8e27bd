"""Single estimates of target accuracy without target labels, each from one classifier's (or two classifiers') logits.

None is a guarantee: ``benchmarks/selection.py`` measures how far they are off. A run's own estimate weighs them among others
(`uda.evaluation.study`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Estimate = Callable[[Tensor, Tensor, Tensor], float]
"""source logits (N, K) and labels (N,) of held-out images, target logits (M, K), to an accuracy 0..1"""


def _confidence(logits: Tensor) -> Tensor:
    return logits.float().softmax(1).amax(1)


def average_thresholded_confidence(source_logits: Tensor, source_labels: Tensor, target_logits: Tensor) -> float:
    """The share of target images that are surer than a threshold, set so that on the source that share is the accuracy.

    Sureness is minus the prediction's entropy. Shapes: (N, K), (N,), (M, K). Result: 0..1. Source: Garg et al. 2022 (ATC-NE),
    eq. 1 and 2.
    """

    def sureness(logits: Tensor) -> Tensor:
        log_p = logits.double().log_softmax(1)
        return (log_p.exp() * log_p).sum(1)

    wrong = int((source_logits.argmax(1) != source_labels).sum())
    if wrong == 0:
        return 1.0
    threshold = sureness(source_logits).kthvalue(wrong).values
    return float((sureness(target_logits) > threshold).float().mean())


def difference_of_confidences(source_logits: Tensor, source_labels: Tensor, target_logits: Tensor) -> float:
    """Source accuracy, less what mean confidence falls by from source to target, cut to 0..1. Shapes: (N, K), (N,), (M, K).

    Source: Guillory et al. 2021 (DoC), section 3.
    """
    accuracy = (source_logits.argmax(1) == source_labels).float().mean()
    difference = _confidence(source_logits).mean() - _confidence(target_logits).mean()
    return float((accuracy - difference).clamp(0, 1))


def mean_confidence(source_logits: Tensor, source_labels: Tensor, target_logits: Tensor) -> float:
    """The mean probability of the predicted class on the target, 0..1: right where the classifier is calibrated there.

    The source's part is not read. Source: Hendrycks and Gimpel 2017.
    """
    return float(_confidence(target_logits).mean())


def agreement(first_logits: Tensor, second_logits: Tensor) -> float:
    """The share of target images that two independently trained classifiers give the same class, 0..1. Shapes: both (M, K).

    Source: Jiang et al. 2022 (GDE), theorem 3: it is the accuracy where the two, as an ensemble, are calibrated.
    """
    return float((first_logits.argmax(1) == second_logits.argmax(1)).float().mean())


ESTIMATES: dict[str, Estimate] = {
    "average_thresholded_confidence": average_thresholded_confidence,
    "difference_of_confidences": difference_of_confidences,
    "mean_confidence": mean_confidence,
}
"""estimates from one classifier, by name"""
