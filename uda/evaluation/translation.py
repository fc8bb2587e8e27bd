"""How good translations are: do they keep their class, and how far are they from real images of the target?

Both are told by an evaluation classifier. Where the target's training images have labels, it is trained on them. That happens
after the last step of the run and for these figures alone; nothing that it says steers the run. (Only the upper bound
`target_only` reads these labels too.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from uda.data.augment import Augment, to_float, to_pixels
from uda.data.batches import Batches
from uda.data.domain import Domain, LabelledDomain, Pair
from uda.data.files import read
from uda.evaluation.evaluator import features_and_logits, on_labelled
from uda.evaluation.outputs import accuracy
from uda.methods.source_only import SourceOnly, SourceOnlySettings
from uda.models import build_classifier
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET
from uda.players import Players
from uda.runtime import Runtime, evaluating, scoped_seed

STEPS, BATCH, WIDTH = 200, 128, 32
COUNT = 10_000  # images of each kind that are looked at, at most
JUDGED, PART = 1000, 32  # such images where a pretrained body looks at them, and how many at once

Translate = Callable[[Tensor, int, int], Tensor]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)), C the covariance of the features: 0 or more.

    The squared distance of two normal distributions with these moments. Shapes: (N, D), (M, D). Comparable only between
    figures of the same features and like numbers of images (at least 2), for it grows as N and M shrink. Source: Heusel et al.
    2017.
    """
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(torch.atleast_2d(a.T.cov()))
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ torch.atleast_2d(b.T.cov()) @ root).clamp_min(0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum() - 2 * shared
    return max(0.0, float(apart))


def pixel_accuracy(translated: Tensor, truth: Tensor, tolerance: int = 16) -> float:
    """The share of pixels that are within `tolerance` grey levels of the truth in all channels: 0..1.

    Shapes: uint8 (N, C, H, W), both alike. Source: Liu et al. 2017, section 4.1.
    """
    apart = (translated.short() - truth.short()).abs().amax(1)
    return float((apart <= tolerance).float().mean())


def evaluate_translation(
    pair: Pair, translate: Callable[[Tensor], Tensor], runtime: Runtime, paired: bool = False
) -> dict[str, Any]:
    """What a classifier trained on labelled target training images says of translated source test images.

    Args:
        pair: on the runtime's device.
        translate: float images (N, C, H, W) in -1..1 to their translations.
        runtime: what to compute with.
        paired: whether the n-th test image of the target is what the n-th of the source should become.

    Returns:
        ``class_consistency``: the share of translations that are given the class of their source label. ``judge_accuracy``: the
        evaluation classifier's own, on the target's test images, which bounds what can be told. ``feature_distance``:
        `frechet_distance` of its features of translations and of real target test images, of up to 10,000 each;
        ``untranslated_distance``: the same without translation. ``feature_network``: whose features these are. Where the target
        has no labels, the first two are left out, and features are those of the same network with random weights; the
        distances are left out where a side has but one test image. Of pairs, ``pixel_accuracy``.

    The random state is left as found.
    """
    target, source_test = pair.target, pair.source_test
    with scoped_seed(0):
        network = train_evaluation_classifier(target, runtime)
        images = source_test.sample(COUNT)
        translated = torch.cat([to_pixels(translate(to_float(part))) for part in images.split(250)])
        features, logits = features_and_logits(network, translated, runtime)
        found: dict[str, Any] = {}
        if isinstance(target, LabelledDomain):
            found["class_consistency"] = float((logits.argmax(1) == source_test.sample_labels(COUNT)).double().mean())
            if pair.target_test is not None:
                found["judge_accuracy"] = accuracy(*on_labelled(network, pair.target_test, runtime))
        real = features_and_logits(network, (pair.target_test or target).sample(COUNT), runtime)[0]
        before = features_and_logits(network, images, runtime)[0]
    if paired and pair.target_test is not None:
        found["pixel_accuracy"] = pixel_accuracy(translated, pair.target_test.sample(COUNT))
    if min(len(features), len(real)) > 1:
        found["feature_distance"] = frechet_distance(features, real)
        found["untranslated_distance"] = frechet_distance(before, real)
    trained = f"trained {STEPS} steps on labelled target images" if "class_consistency" in found else "with random weights"
    return found | {"feature_network": f"strided, width {WIDTH}, {trained}"}


def judge_translations(
    pair: Pair, translate: Translate, classifier: Classifier, read_drawn: Callable[[Tensor], Tensor], runtime: Runtime
) -> dict[str, Any]:
    """What the source classifier says of translations both ways, beside what it says of the same images untranslated.

    Of up to 1,000 test images of each domain, at the side that the method draws at.

    Args:
        pair: on the runtime's device.
        translate: float images (N, C, s, s) in -1..1, and the domains that they are of and become, to their translations.
        classifier: the source classifier, which follows the frozen body.
        read_drawn: float images (N, C, s, s) to what the body makes of them.
        runtime: what to compute with.

    Returns:
        ``class_consistency`` and ``untranslated_consistency``: the shares of source images, translated to the target and as they
        are, that are given the class of their label. ``class_consistency_back``, ``untranslated_consistency_back``: the same of
        target images, where their labels are known. ``feature_distance``, ``untranslated_distance``: as in
        `evaluate_translation`. ``feature_network``: whose features these are.
    """

    def judge(images: Tensor) -> tuple[Tensor, Tensor]:
        with evaluating(classifier), runtime.autocast():
            features = classifier.backbone(read_drawn(runtime.arrange(images)))
            return features.float(), classifier.head(features).float()

    found: dict[str, Any] = {}
    features: dict[str, Tensor] = {}
    for domain, origin, way in ((pair.source_test, SOURCE, ""), (pair.target_test or pair.target, TARGET, "_back")):
        images = to_float(next(read(domain.pixels, [domain.sampled(JUDGED)])).to(runtime.device))
        translations = (to_float(to_pixels(translate(part, origin, 1 - origin))) for part in images.split(PART))
        for what, parts in (("untranslated", images.split(PART)), ("class", translations)):
            seen, logits = (torch.cat(made) for made in zip(*map(judge, parts), strict=True))
            features[what + way] = seen
            if isinstance(domain, LabelledDomain):
                found[f"{what}_consistency{way}"] = accuracy(logits.cpu(), domain.sample_labels(JUDGED).cpu())
    real = features["untranslated_back"]
    if min(map(len, features.values())) > 1:
        found["feature_distance"] = frechet_distance(features["class"], real)
        found["untranslated_distance"] = frechet_distance(features["untranslated"], real)
    return found | {"feature_network": "the source classifier, which reads them through the frozen body"}


def train_evaluation_classifier(target: Domain, runtime: Runtime) -> Classifier:
    """A strided net of width 32 trained on labelled target images: 200 steps of 128, slight affine augmentation.

    Without labels it keeps the random weights that it begins with.
    """
    channels, size = target.images.shape[1:3]
    network = build_classifier("strided", channels, size, len(target.classes), WIDTH)
    runtime.place(network)
    if isinstance(target, LabelledDomain):
        method = SourceOnly(SourceOnlySettings(), network, (channels, size, size), STEPS, runtime)
        method.setup(target, Players(runtime, STEPS))
        batches = Batches(target, None, BATCH, 0, Augment(rotate=10, translate=0.06, scale=0.1), Augment(), runtime)
        for _ in range(STEPS):
            method.step(batches.next())
    return network
