"""Predictions that leave no trace, and the evaluator, which reads the labels of the target's test images.

A run's several processes share the images out, and all have what comes of it. They come here together, with the same weights.
Its figures are written down and shown. No step, no schedule and no choice of a checkpoint depends on them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uda import ranks
from uda.collectives import from_all
from uda.data.augment import to_float
from uda.data.domain import LabelledDomain, Pair, count_kept_aside
from uda.data.files import Inputs, in_order, read
from uda.errors import NotFinite
from uda.evaluation.outputs import Outputs, accuracy
from uda.models.backbones import Classifier
from uda.runtime import Runtime, evaluating

Examples = tuple[Tensor, Tensor, Tensor, Tensor]
"""images uint8 (n, C, S, S), labels (-1: unknown), predicted classes, and their probabilities, (n,) each"""


def predict(classifier: nn.Module, images: Inputs, runtime: Runtime) -> Tensor:
    """Images uint8 (N, C, H, W), or what a frozen body has made of them, to float32 logits (N, K). Draws no random number.

    Raises:
        NotFinite: where one of them is infinite or not a number.
    """
    return _whole([_logits(classifier, part, runtime) for part in read(images, _own_blocks(images))]).to(runtime.device)


def _own_blocks(images: Inputs) -> tuple[Tensor, ...]:
    """This process's share of all positions, in parts that take no more memory than a thousand small images."""
    size = max(1, 1000 * 32 * 32 // images.shape[2:].numel())
    return ranks.own(in_order(images, min(size, -(-len(images) // ranks.world_size()))))


def _logits(classifier: nn.Module, part: Tensor, runtime: Runtime) -> Tensor:
    with evaluating(classifier), runtime.computing(), runtime.autocast():
        logits: Tensor = classifier(runtime.arrange(to_float(part))).float()
    return logits


def features_and_logits(classifier: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Images uint8 (N, C, H, W) to features (N, D) and float32 logits (N, K).

    A classifier without a backbone and a head has no features that are known: its logits stand for them.
    """
    if not isinstance(classifier, Classifier):
        only = predict(classifier, images, runtime)
        return only, only
    features: list[Tensor] = []
    logits: list[Tensor] = []
    for block in _own_blocks(images):
        part = images[block.to(images.device)]
        with evaluating(classifier), runtime.computing(), runtime.autocast():
            features.append(classifier.backbone(runtime.arrange(to_float(part))))
            logits.append(classifier.head(features[-1]).float())
    return _whole(features).to(runtime.device), _whole(logits).to(runtime.device)


def _whole(parts: list[Tensor]) -> Tensor:
    """What all processes have made of all images (N, ...), of what each has made of its share.

    Raises:
        NotFinite: in all of them, where a number is infinite or not one: no class can be read from such.
    """
    values = torch.cat(from_all(parts))
    if not values.isfinite().all():
        raise NotFinite("the network returns numbers that are infinite or not numbers")
    return values


def on_labelled(classifier: nn.Module, domain: LabelledDomain, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """A classifier's logits (N, K) for a labelled domain, and the labels (N,), both on the CPU."""
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    for part, own in domain.read(_own_blocks(domain.inputs)):
        logits.append(_logits(classifier, part, runtime))
        labels.append(own)
    return _whole(logits).cpu(), torch.cat(from_all(labels)).cpu()


class Evaluator:
    """Holds the test sets with their labels, and says how good a classifier is. Nothing it says steers training."""

    def __init__(self, pair: Pair, runtime: Runtime, aside: float = 0.0) -> None:
        """`aside`: the share of target images that no method trains on (`Domain.kept_aside`), which are looked at alone then."""
        self.pair, self.runtime = pair, runtime
        self.looked_at = count_kept_aside(len(pair.target), aside) or 2000
        self.source_sample: tuple[Tensor, Tensor] | None = None
        self.target_sample: Tensor | None = None

    def outputs(self, classifier: nn.Module, source: bool = True, test: bool = True) -> Outputs:
        """What a classifier says of target images that are kept aside (else, of some that train), and of held-out images.

        Samples of up to 2,000 images, the same at each call.

        Args:
            classifier: images in -1..1 to logits.
            source: whether the source test images are read, with their labels.
            test: whether the target's test images are, where there are any, with theirs.
        """
        held_out: tuple[Tensor | None, ...] = (None, None, None)
        if self.target_sample is None:
            self.target_sample = self.pair.target.sample(self.looked_at)
        if source:
            if self.source_sample is None:
                self.source_sample = self.pair.source_test.labelled_sample()
            images, labels = self.source_sample
            held_out = *features_and_logits(classifier, images, self.runtime), labels
        of_target = features_and_logits(classifier, self.target_sample, self.runtime)
        tested: tuple[Tensor | None, ...] = (None, None)
        if test and self.pair.target_test is not None:
            tested = on_labelled(classifier, self.pair.target_test, self.runtime)
        if test and self.pair.target_unknown is not None:
            tested = *tested, predict(classifier, self.pair.target_unknown.inputs, self.runtime).cpu()
        return Outputs(*of_target, *held_out, *tested)

    def source_accuracy(self, classifier: nn.Module) -> float:
        """Its accuracy on the source test images, 0..1."""
        return accuracy(*on_labelled(classifier, self.pair.source_test, self.runtime))

    def target_accuracy(self, classifier: nn.Module) -> float | None:
        """Its accuracy on the target test images, 0..1; None where there are none."""
        return None if self.pair.target_test is None else accuracy(*on_labelled(classifier, self.pair.target_test, self.runtime))

    def examples(self, outputs: Outputs, count: int = 24, temperature: float = 1.0) -> Examples:
        """Target images worth a look: the test images that are wrong most confidently; where there are none, the least certain.

        At most `count` of them. Confidences are those of logits divided by `temperature`.
        """
        if outputs.test is None or self.pair.target_test is None:
            confidence, predicted = (outputs.target_logits.cpu() / temperature).softmax(1).max(1)
            shown, labels = confidence.argsort()[:count], torch.full_like(predicted, -1)
            images = next(read(self.pair.target.images, [self.pair.target.sampled(self.looked_at)[shown]]))
        else:
            logits, labels = outputs.test
            confidence, predicted = (logits / temperature).softmax(1).max(1)
            wrong = (predicted != labels).nonzero().squeeze(1)
            shown = wrong[confidence[wrong].argsort(descending=True)][:count]
            images = next(read(self.pair.target_test.images, [shown]))
        return images.cpu(), labels[shown], predicted[shown], confidence[shown]
