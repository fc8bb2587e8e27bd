"""Evaluation: predictions that leave no trace, and the one place where target labels are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from uda.data.augment import Augment, to_float
from uda.data.batches import Batches
from uda.data.domain import LabelledDomain, Pair
from uda.data.files import Images, in_order, read
from uda.methods import source_only
from uda.models import build_classifier
from uda.runtime import Runtime, evaluating, seed_everything

JUDGE_STEPS, JUDGE_BATCH = 200, 128


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


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 (K, K): row = true class, column = predicted class."""
    return torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)


def per_class_accuracy(matrix: Tensor) -> list[float | None]:
    """The diagonal's share of each row of a confusion matrix; None for a class that never occurs."""
    return [row[k] / sum(row) if sum(row) else None for k, row in enumerate(matrix.tolist())]


def accuracy(matrix: Tensor) -> float:
    """The share, 0..1, of a confusion matrix that lies on its diagonal."""
    return int(matrix.diagonal().sum()) / int(matrix.sum())


def test(classifier: nn.Module, domain: LabelledDomain, runtime: Runtime) -> Tensor:
    """The confusion matrix of a classifier on a labelled domain, int64 (K, K): row = true class, column = predicted class."""
    predicted = predict(classifier, domain.images, runtime).argmax(1)
    return confusion(predicted, domain.labels, len(domain.classes)).cpu()


class Evaluator:
    """Holds the test sets with their labels, and says how good a classifier is. Nothing it says steers training."""

    def __init__(self, pair: Pair, runtime: Runtime) -> None:
        self.pair, self.runtime = pair, runtime

    def on_source(self, classifier: nn.Module) -> Tensor:
        """The confusion matrix on the source test images."""
        return test(classifier, self.pair.source_test, self.runtime)

    def on_target(self, classifier: nn.Module) -> Tensor | None:
        """The confusion matrix on the target test images; None where there are none."""
        return None if self.pair.target_test is None else test(classifier, self.pair.target_test, self.runtime)

    def class_consistency(self, translate: Callable[[Tensor], Tensor]) -> dict[str, float] | None:
        """The share of translated source test images to which a judge gives the class of their source label.

        The judge is a classifier trained here on labelled target training images; its own accuracy on target test images
        stands beside the share, for it bounds what can be told. `translate` takes float images (N, C, H, W) in -1..1 and
        returns their translations. The random state is left as found. None where the target has no labels to train a judge on.
        """
        target = self.pair.target
        if not isinstance(target, LabelledDomain):
            return None
        devices = [target.images.device] if self.runtime.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            judge = train_judge(target, self.runtime)
        test = self.pair.source_test
        right = 0
        blocks = in_order(len(test), 500)
        for images, block in zip(read(test.images, blocks), blocks, strict=True):
            translated = translate(to_float(images))
            labels = test.labels[block.to(test.labels.device)]
            with evaluating(judge), self.runtime.autocast():
                right += int((judge(self.runtime.arrange(translated)).argmax(1) == labels).sum())
        matrix = self.on_target(judge)
        judged = {} if matrix is None else {"judge_accuracy": accuracy(matrix)}
        return {"class_consistency": right / len(test)} | judged


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
