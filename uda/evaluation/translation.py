"""How good translations are, in both directions: do they keep their class, and how far are they from real images?

Both are told by a judge, a classifier trained on labelled training images of the domain translated to. Where that is the target,
it happens after the last step of the run and for these figures alone; nothing that it says steers the run. (Only the upper bound
`target_only` reads these labels too.) Beside it a judge that has learned from the adapted classifier tells without target labels
whether classes are kept. Behind a frozen body the source classifier is the judge, both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uda.data.augment import Augment, to_float, to_pixels
from uda.data.batches import Batches
from uda.data.domain import Domain, LabelledDomain, Pair, count_kept_aside
from uda.data.files import read
from uda.evaluation.diversity import diversity
from uda.evaluation.evaluator import features_and_logits, on_labelled, predict
from uda.evaluation.outputs import accuracy
from uda.methods.source_only import SourceOnly, SourceOnlySettings
from uda.models import build_classifier
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET
from uda.players import Players
from uda.runtime import Runtime, evaluating, scoped_seed

STEPS, BATCH, WIDTH = 200, 128, 32
COUNT, COUNT_BACK, COUNT_RECONSTRUCTED = 10_000, 2_500, 1_000  # images of each kind that are looked at, at most
ROUNDS_BACK, GOOD = 5, 0.9  # a judge of source images, often the harder ones, is trained until it is good, or five rounds
JUDGED, PART = 1000, 32  # images of each domain where a pretrained body looks at them, at most, and how many at once

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
    pair: Pair,
    translate: Translate,
    runtime: Runtime,
    paired: bool = False,
    labelled: bool = True,
    draws: bool = False,
    classifier: torch.nn.Module | None = None,
) -> dict[str, Any]:
    """What judges trained on real images say of translated test images: of the source's, and (``backward``) of the target's.

    Args:
        pair: on the runtime's device.
        translate: float images (N, C, H, W) in -1..1 of one domain, which that is, and the domain that they are to be of (SOURCE
            or TARGET), to such images.
        runtime: what to compute with.
        paired: whether the n-th test image of the target is what the n-th of the source should become.
        labelled: whether labels may be read at all.
        draws: whether each call of `translate` draws another translation.
        classifier: the adapted one, whose classes of target images are compared with those of their translations.

    Returns:
        Of translated source images what `judge_translations` returns, and under ``backward`` the same of the target's; and
        ``reconstruction_error``, of ``source`` and ``target``: the mean over test images of |x - x^{i->i}|, as a share of the
        range of a pixel, 0..1. Of pairs, ``pixel_accuracy``.

    The random state is left as found.
    """
    found, forth = judge_translations(pair, TARGET, translate, runtime, labelled, draws)
    if paired and pair.target_test is not None:
        found["pixel_accuracy"] = pixel_accuracy(forth, pair.target_test.sample(COUNT))
    found["backward"], _ = judge_translations(pair, SOURCE, translate, runtime, labelled, draws, classifier)
    with scoped_seed(0):
        source, target = (domain.sample(COUNT_RECONSTRUCTED) for domain in _looked_at(pair))
        found["reconstruction_error"] = _reconstruction_errors(source, target, translate)
    return found


def judge_translations(
    pair: Pair,
    destination: int,
    translate: Translate,
    runtime: Runtime,
    labelled: bool = True,
    draws: bool = False,
    classifier: torch.nn.Module | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """What a judge that is trained on one domain, `destination` (SOURCE or TARGET), says of the other's images translated to it.

    Returns:
        ``class_consistency``: the share of translations that are given the class of their image's label. ``judge_accuracy``: the
        judge's own on real test images, which bounds what can be told. ``given_consistency``, with a `classifier`: the share that
        are given the class that it gives their image, which needs no label of that image. ``feature_distance``:
        `frechet_distance` of its features of translations and of real images, up to 10,000 of each, or 2,500 on the way back;
        ``untranslated_distance``: the same without translation. ``feature_network``: whose features these are. Where the domain
        has no labels, the first three are left out, and features are those of the same network with random weights; what needs
        other labels that are missing is left out, too, and the distances where a side has but one image. With `draws`, its
        `diversity`. And the translations, uint8.
    """
    learned, count, rounds = (pair.source, COUNT_BACK, ROUNDS_BACK) if destination == SOURCE else (pair.target, COUNT, 1)
    looked_at = _looked_at(pair)
    real, given = looked_at[destination], looked_at[1 - destination]
    knows = isinstance(learned, LabelledDomain) and labelled
    with scoped_seed(0):
        network, steps = train_judge(learned if knows else learned.without_labels(), real, runtime, rounds)
        labels: Tensor | None = None
        if knows and isinstance(given, LabelledDomain):
            images, labels = given.labelled_sample(count)
        else:
            images = given.sample(count)
        translated = _translations(images, translate, 1 - destination, destination)
        features, logits = features_and_logits(network, translated, runtime)
        found: dict[str, Any] = {}
        if labels is not None:
            found["class_consistency"] = float((logits.argmax(1) == labels).double().mean())
        if knows and classifier is not None:
            found["given_consistency"] = accuracy(logits, predict(classifier, images, runtime).argmax(1))
        if knows and isinstance(real, LabelledDomain):
            found["judge_accuracy"] = accuracy(*on_labelled(network, real, runtime))
        at_home = features_and_logits(network, real.sample(count), runtime)[0]
        before = features_and_logits(network, images, runtime)[0]
        if draws:
            drawn = partial(_translations, translate=translate, origin=1 - destination, destination=destination)
            found |= diversity(images, real.sample(count), drawn, lambda part: features_and_logits(network, part, runtime)[0])
    found |= _distances(features, before, at_home)
    whose = "source" if destination == SOURCE else "target"
    trained = f"trained {steps} steps on labelled {whose} images" if knows else "with random weights"
    return found | {"feature_network": f"strided, width {WIDTH}, {trained}"}, translated


def judge_without_labels(
    pair: Pair, translate: Translate, classifier: torch.nn.Module, runtime: Runtime, aside: float = 0.0
) -> dict[str, float]:
    """Do translated source test images show their class, as far as it can be told without target labels?

    They are read by a network that learns the classes which the adapted classifier gives real target images: the classifier
    itself has taught the generators, and may see classes in what they draw where nobody else does.

    Args:
        pair: on the runtime's device.
        translate: as `evaluate_translation` takes it.
        classifier: the adapted one.
        runtime: what to compute with.
        aside: the share of target images that no method trains on (`Domain.kept_aside`).

    Returns:
        ``taught_consistency``: the share of translations (of up to 2,500 images) that are given the class of their image's
        label; ``taught_agreement``: the share of real target images, of those kept aside or else a fifth, none of which has
        taught the network, that are given the adapted classifier's class. Of fewer than two target images, nothing. The random
        state is left as found.
    """
    with scoped_seed(0):
        sampled = pair.target.sample(COUNT)
        if len(sampled) < 2:
            return {}
        fifth = max(1, len(sampled) // 5)
        apart = min(count_kept_aside(len(pair.target), aside) or fifth, fifth)  # those kept aside come first
        real, shown = sampled[:apart], sampled[apart:]
        taught = predict(classifier, shown, runtime).argmax(1)
        lessons = LabelledDomain(pair.target.name, shown, pair.source.classes, pair.target.note, taught)
        network, _ = train_judge(lessons, lessons, runtime)
        images, labels = pair.source_test.labelled_sample(COUNT_BACK)
        translated = _translations(images, translate, SOURCE, TARGET)
        of_real = predict(classifier, real, runtime).argmax(1)
        return {
            "taught_consistency": accuracy(predict(network, translated, runtime), labels),
            "taught_agreement": accuracy(predict(network, real, runtime), of_real),
        }


def judge_by_source(
    pair: Pair,
    translate: Translate,
    classifier: Classifier,
    read_drawn: Callable[[Tensor], Tensor],
    runtime: Runtime,
    draws: bool = False,
) -> dict[str, Any]:
    """What the source classifier says of translations both ways, beside what it says of the same images untranslated.

    Of up to 1,000 test images of each domain, at the side that the method draws at.

    Args:
        pair: on the runtime's device.
        translate: as `evaluate_translation` takes it, of float images (N, C, s, s).
        classifier: the source classifier, which follows the frozen body.
        read_drawn: float images (N, C, s, s) to what the body makes of them.
        runtime: what to compute with.
        draws: whether each call of `translate` draws another translation.

    Returns:
        Of translated source images ``class_consistency``, the distances and ``feature_network``, as in `judge_translations`, and
        ``untranslated_consistency``: the share of the same images, as they are, that are given their class. Under ``backward``
        the same of the target's, and ``reconstruction_error``, as in `evaluate_translation`; with `draws`, `diversity`.

    The random state is left as found.
    """

    def judge(images: Tensor) -> tuple[Tensor, Tensor]:
        made = []
        for part in images.split(PART):
            with evaluating(classifier), runtime.autocast():
                features = classifier.backbone(read_drawn(runtime.arrange(to_float(part))))
                made.append((features.float(), classifier.head(features).float()))
        features, logits = (torch.cat(parts) for parts in zip(*made, strict=True))
        return features, logits

    domains = _looked_at(pair)
    images = [next(read(domain.pixels, [domain.sampled(JUDGED)])).to(runtime.device) for domain in domains]
    seen, ways = [judge(part) for part in images], []
    with scoped_seed(0):
        for origin, domain in enumerate(domains):
            features, logits = judge(_translations(images[origin], translate, origin, 1 - origin))
            way: dict[str, Any] = _distances(features, seen[origin][0], seen[1 - origin][0])
            if isinstance(domain, LabelledDomain):
                labels = domain.sample_labels(JUDGED).cpu()
                way["class_consistency"] = accuracy(logits.cpu(), labels)
                way["untranslated_consistency"] = accuracy(seen[origin][1].cpu(), labels)
            if draws:
                drawn = partial(_translations, translate=translate, origin=origin, destination=1 - origin)
                way |= diversity(images[origin], images[1 - origin], drawn, lambda part: judge(part)[0])
            ways.append(way | {"feature_network": "the source classifier, which reads them through the frozen body"})
        error = _reconstruction_errors(images[SOURCE], images[TARGET], translate)
    return ways[SOURCE] | {"backward": ways[TARGET], "reconstruction_error": error}


def _looked_at(pair: Pair) -> tuple[Domain, Domain]:
    """Of which images translations and reconstructions are looked at: the source's, and the target's."""
    return pair.source_test, pair.target_test or pair.target


def _translations(images: Tensor, translate: Translate, origin: int, destination: int) -> Tensor:
    """Images as pixels to their translations as pixels, uint8 (N, C, H, W)."""
    return torch.cat([to_pixels(translate(to_float(part), origin, destination)) for part in images.split(250)])


def _distances(translated: Tensor, untranslated: Tensor, real: Tensor) -> dict[str, float]:
    """`frechet_distance` to real images' features, of translations and without translation; nothing of less than two images."""
    if min(len(translated), len(real)) < 2:
        return {}
    return {
        "feature_distance": frechet_distance(translated, real),
        "untranslated_distance": frechet_distance(untranslated, real),
    }


def _reconstruction_errors(source: Tensor, target: Tensor, translate: Translate) -> dict[str, float]:
    """The mean of |x - x^{i->i}| over images as pixels, as a share of the range of a pixel, 0..1: by the name of their domain."""

    def error(images: Tensor, side: int) -> float:
        errors = [(to_float(part) - translate(to_float(part), side, side)).abs().flatten(1).mean(1) for part in images.split(250)]
        return float(torch.cat(errors).double().mean()) / 2

    return {"source": error(source, SOURCE), "target": error(target, TARGET)}


def train_judge(learned: Domain, real: Domain, runtime: Runtime, rounds: int = 1) -> tuple[Classifier, int]:
    """A strided net of width 32 trained on labelled images: `STEPS` of 128, slight affine augmentation; and its steps.

    It is trained for at most so many rounds of these steps, each from where the last one ended, until it reads labelled `real`
    images at `GOOD` or better. Without labels to learn from it keeps the random weights that it begins with.
    """
    channels, size = learned.images.shape[1:3]
    network = build_classifier("strided", channels, size, len(learned.classes), WIDTH)
    runtime.place(network)
    if not isinstance(learned, LabelledDomain):
        return network, 0
    batches = Batches(learned, None, BATCH, 0, Augment(rotate=10, translate=0.06, scale=0.1), Augment(), runtime)

    def good() -> bool:
        return not isinstance(real, LabelledDomain) or accuracy(*on_labelled(network, real, runtime)) >= GOOD

    done = 0
    while done == 0 or (done < rounds and not good()):
        method = SourceOnly(SourceOnlySettings(), network, (channels, size, size), STEPS, runtime)
        method.setup(learned, Players(runtime, STEPS))
        for _ in range(STEPS):
            method.step(batches.next())
        done += 1
    return network, done * STEPS
