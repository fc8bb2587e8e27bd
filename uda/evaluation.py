"""Evaluation: predictions that leave no trace, and the one place where target labels are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from uda.data.augment import Augment, to_float
from uda.data.batches import Batches
from uda.data.domain import Domain, LabelledDomain, Pair
from uda.methods import source_only
from uda.models import build_classifier
from uda.runtime import Runtime, evaluating, seed_everything

JUDGE_STEPS, JUDGE_BATCH = 200, 128


def predict(classifier: nn.Module, images: Tensor, runtime: Runtime, batch: int = 1000) -> Tensor:
    """uint8 images (N, C, H, W) to float32 logits (N, K). Draws no random number."""
    outputs = []
    with evaluating(classifier):
        for part in images.split(batch):
            with runtime.autocast():
                outputs.append(classifier(runtime.arrange(to_float(part))).float())
    return torch.cat(outputs)


def accuracy(classifier: nn.Module, domain: LabelledDomain, runtime: Runtime) -> float:
    """The share, 0..1, of a labelled domain's images that get their own class."""
    right = predict(classifier, domain.images, runtime).argmax(1) == domain.labels
    return int(right.sum()) / len(domain)


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 (K, K): row = true class, column = predicted class."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)


def per_class_accuracy(matrix: Tensor) -> list[float | None]:
    """The diagonal's share of each row of a confusion matrix; None for a class that never occurs."""
    return [row[k] / sum(row) if sum(row) else None for k, row in enumerate(matrix.tolist())]


class Evaluator:
    """Holds the test sets with their labels, and says how good a classifier is. Nothing it says steers training."""

    def __init__(self, pair: Pair, runtime: Runtime) -> None:
        self.pair, self.runtime = pair, runtime

    def source_accuracy(self, classifier: nn.Module) -> float:
        return accuracy(classifier, self.pair.source_test, self.runtime)

    def target_accuracy(self, classifier: nn.Module) -> float:
        return accuracy(classifier, self.pair.target_test, self.runtime)

    def target_confusion(self, classifier: nn.Module) -> Tensor:
        """int64 (K, K) on the target test images: row = true class, column = predicted class."""
        test = self.pair.target_test
        predicted = predict(classifier, test.images, self.runtime).argmax(1)
        return confusion(predicted, test.labels, len(test.classes)).cpu()

    def class_consistency(self, translate: Any) -> dict[str, float]:
        """The share of translated source test images to which a judge gives the class of their source label.

        The judge is a classifier trained here on labelled target training images; its own accuracy on target test images
        stands beside the share, for it bounds what can be told. `translate` takes float images (N, C, H, W) in -1..1 and
        returns their translations. The random state is left as found.
        """
        devices = [self.pair.target.images.device] if self.runtime.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            judge = train_judge(self.pair.target, self.runtime)
        test = self.pair.source_test
        right = 0
        for images, labels in zip(test.images.split(500), test.labels.split(500), strict=True):
            translated = translate(to_float(images))
            with evaluating(judge), self.runtime.autocast():
                right += int((judge(self.runtime.arrange(translated)).argmax(1) == labels).sum())
        return {"class_consistency": right / len(test), "judge_accuracy": self.target_accuracy(judge)}


def train_judge(target: LabelledDomain, runtime: Runtime) -> nn.Module:
    """A strided net of width 32 trained on labelled target images: 200 steps of 128, slight affine augmentation."""
    seed_everything(0)
    _, channels, size, _ = target.images.shape
    network = build_classifier("strided", channels, size, len(target.classes))
    runtime.place(network)
    method = source_only.Method(source_only.Settings(), network, (channels, size, size), JUDGE_STEPS, runtime)
    batches = Batches(target, None, JUDGE_BATCH, 0, Augment(rotate=10, translate=0.06, scale=0.1), Augment(), runtime)
    for _ in range(JUDGE_STEPS):
        method.step(batches.next())
    return network


def label_free_sample(target: Domain, count: int = 2000) -> Tensor:
    """The unlabelled target training images that label-free scores are taken on: the same ones at every look."""
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    return target.images[order[:count].to(target.images.device)]
