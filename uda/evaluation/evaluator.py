"""Evaluation: predictions that leave no trace, and the one place where target labels are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uda.data.augment import to_float
from uda.data.domain import LabelledDomain, Pair
from uda.data.files import Images, in_order, read
from uda.evaluation.selection import Evidence
from uda.models import Classifier
from uda.runtime import Runtime, evaluating


def predictions(classifier: nn.Module, images: Images, runtime: Runtime) -> Iterator[Tensor]:
    """Float32 logits (B, K) of images (N, C, H, W), part by part, in order. Draws no random number."""
    size = max(16, 1000 * 32 * 32 // images.shape[-2:].numel())  # as much memory as a thousand small images
    for part in read(images, in_order(len(images), size)):
        with evaluating(classifier), runtime.autocast():
            logits = classifier(runtime.arrange(to_float(part))).float()
        yield logits


def predict(classifier: nn.Module, images: Images, runtime: Runtime) -> Tensor:
    """Images (N, C, H, W) to float32 logits (N, K). Draws no random number."""
    return torch.cat(list(predictions(classifier, images, runtime)))


def observe(classifier: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, C, H, W) to features (N, D) and float32 logits (N, K).

    A classifier without a backbone and a head has no features that are known: its logits stand for them.
    """
    if not isinstance(classifier, Classifier):
        only = predict(classifier, images, runtime)
        return only, only
    features: list[Tensor] = []
    logits: list[Tensor] = []
    for part in images.split(1000):
        with evaluating(classifier), runtime.autocast():
            features.append(classifier.backbone(runtime.arrange(to_float(part))))
            logits.append(classifier.head(features[-1]).float())
    return torch.cat(features), torch.cat(logits)


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 (K, K): row = true class, column = predicted class."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)


def per_class_accuracy(matrix: Tensor) -> list[float | None]:
    """The diagonal's share of each row of a confusion matrix; None for a class that never occurs."""
    return [row[k] / sum(row) if sum(row) else None for k, row in enumerate(matrix.tolist())]


@dataclass(frozen=True)
class Answers:
    """A classifier's logits (N, K) for labelled images, and the labels (N,), both on the CPU."""

    logits: Tensor
    labels: Tensor

    @property
    def confusion(self) -> Tensor:
        """int64 (K, K): row = true class, column = predicted class."""
        return confusion(self.logits.argmax(1), self.labels, self.logits.shape[1])

    @property
    def accuracy(self) -> float:
        """The share of right classes, 0..1."""
        return int((self.logits.argmax(1) == self.labels).sum()) / len(self.labels)


@dataclass(frozen=True)
class Seen:
    """What was seen of a classifier: of samples, without target labels; and on the target's test images, where there are any."""

    evidence: Evidence
    test: Answers | None


def test(classifier: nn.Module, domain: LabelledDomain, runtime: Runtime) -> Answers:
    """A classifier's answers on a labelled domain."""
    return Answers(predict(classifier, domain.images, runtime).cpu(), domain.labels.cpu())


class Evaluator:
    """Holds the test sets with their labels, and says how good a classifier is. Nothing it says steers training."""

    def __init__(self, pair: Pair, runtime: Runtime) -> None:
        self.pair, self.runtime = pair, runtime
        self.source_sample: Tensor | None = None
        self.target_sample: Tensor | None = None

    def evidence(self, classifier: nn.Module, source: bool = True) -> Evidence:
        """What the classifier says of a sample of the target's training images, and (if `source`) of the source test images.

        Samples of up to 2,000 images, the same at each call. No target label is read.
        """
        held_out: tuple[Tensor, ...] = ()
        if self.target_sample is None:
            self.target_sample = self.pair.target.sample()
        if source:
            if self.source_sample is None:
                self.source_sample = self.pair.source_test.sample()
            held_out = *observe(classifier, self.source_sample, self.runtime), self.pair.source_test.sample_labels()
        return Evidence(*observe(classifier, self.target_sample, self.runtime), *held_out)

    def on_source(self, classifier: nn.Module) -> Answers:
        """Its answers on the source test images."""
        return test(classifier, self.pair.source_test, self.runtime)

    def on_target(self, classifier: nn.Module) -> Answers | None:
        """Its answers on the target test images; None where there are none."""
        return None if self.pair.target_test is None else test(classifier, self.pair.target_test, self.runtime)

    def examples(self, seen: Seen, count: int = 24) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Target images worth a look: the test images that are wrong most confidently; where there are none, the least certain.

        Returns:
            images uint8 (n, C, S, S), labels (-1: unknown), predicted classes, and their probabilities; n at most `count`.
        """
        logits = seen.evidence.target_logits.cpu() if seen.test is None else seen.test.logits
        confidence, predicted = logits.softmax(1).max(1)
        if seen.test is None or self.pair.target_test is None:
            assert self.target_sample is not None
            shown, labels = confidence.argsort()[:count], torch.full_like(predicted, -1)
            images = self.target_sample[shown.to(self.target_sample.device)]
        else:
            labels = seen.test.labels
            wrong = (predicted != labels).nonzero().squeeze(1)
            shown = wrong[confidence[wrong].argsort(descending=True)][:count]
            images = next(read(self.pair.target_test.images, [shown])) if len(shown) else self.pair.target_test.sample(0)
        return images, labels[shown], predicted[shown], confidence[shown]

    def see(self, classifier: nn.Module) -> Seen:
        """All that can be seen of a classifier."""
        return Seen(self.evidence(classifier), self.on_target(classifier))
