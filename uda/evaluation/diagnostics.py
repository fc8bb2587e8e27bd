"""Signs that an adaptation went wrong; each says what it means and what to try. None needs a target label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Binomial

from uda.evaluation.estimation import agreement
from uda.evaluation.outputs import Outputs
from uda.evaluation.selection import entropy, information_maximization
from uda.evaluation.shares import Shares, chance, distance, histogram
from uda.evaluation.study import Verdict


@dataclass(frozen=True)
class Diagnostic:
    """A sign that was found.

    Attributes:
        name: of the sign.
        what: what was seen, with its figures.
        meaning: what it can mean.
        advice: what to try.
    """

    name: str
    what: str
    meaning: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.meaning}; {self.advice}"


NEARLY_ALL = 0.9  # of the target images
BETTER_THAN_GUESSING = 0.1  # so much better than even guesses is a classifier that has learned something
FAR = 0.3  # half the sum of absolute differences of two class histograms, 0..1, beyond what chance makes of it
HARDLY = 0.2  # of the share that a class has in the source
IMPROBABLE = 0.01  # that chance alone makes any class of a target seem lost
LOOKED_AT = 50  # images, where there are as many
UNSURE = 0.5  # a probability below this names no class
MANY_UNSURE = 0.25  # of the target images
LESS_SURE = 0.05  # nats
KEPT = 0.75  # of the images that the judge reads right where they are real, or not translated
CHANGED_ALL, CHANGED_NONE = 0.3, 0.999  # shares of target images whose class adaptation left as it was


def diagnose(
    before: Outputs, after: Outputs, classes: tuple[str, ...], trains: bool = True, shares: Shares | None = None
) -> list[Diagnostic]:
    """What is odd in how an adapted classifier (`after`) reads the target, beside the source classifier (`before`).

    Args:
        before, after: of the same images, with the source's labels.
        classes: their names.
        trains: whether the method was to change the classifier at all.
        shares: of the target's classes, where the method expected them so; else the source's are the measure.
    """
    began, predicted = (histogram(of.target_logits.argmax(1).cpu(), len(classes)) for of in (before, after))
    source, images = histogram(after.source[1].cpu(), len(classes)), len(after.target_logits)
    signs = [failing := one_class_for_all(source, began, images, classes)]
    if shares is not None:
        expected = shares.estimated
        missed = expected.where(expected > HARDLY / len(classes), 0.0)  # what was hardly expected is not missed
        signs += [far_from_estimate(expected, predicted, images), lost_classes(missed, predicted, images, classes)]
    elif failing is None:  # else what is odd about the classes of the adapted one comes of that
        signs += [far_class_shares(source, predicted, images), lost_classes(source, predicted, images, classes)]
    signs.append(unsure(after.target_logits))
    if trains:
        logits = before.target_logits, after.target_logits
        signs += [
            less_clear(*logits, None if shares is None else shares.expected),
            changed_too_much(*logits),
            changed_nothing(*logits),
        ]
    return [sign for sign in signs if sign is not None]


def hardly_better_than_guessing(accuracy: float, classes: int) -> Diagnostic | None:
    """A source classifier that does not know its own source: what is built on it, and estimated by it, means little."""
    if accuracy >= 1 / classes + BETTER_THAN_GUESSING:
        return None
    return Diagnostic(
        "hardly better than guessing",
        f"the source classifier's accuracy on source images is {accuracy:.4f}",
        "that is hardly better than guessing, and all figures below stand on it",
        "see whether its preprocessing (classifier.mean, classifier.std, --size) and the order of its classes (data.classes) are "
        "right",
    )


def one_class_for_all(source: Tensor, began: Tensor, images: int, classes: tuple[str, ...]) -> Diagnostic | None:
    """A source classifier that gives nearly all target images one class; shares (K,), in the source and as it predicts them."""
    share = float(began.max())
    if share < NEARLY_ALL or distance(began, source) <= FAR + chance(len(began), images):
        return None
    return Diagnostic(
        "one class for all",
        f"the source classifier gives {share:.0%} of the target images the class {classes[int(began.argmax())]}",
        "unless they are of that class, it cannot read them, and adaptation starts from what it reads",
        "compare some images of both (uda inspect), and bring them into one framing (inverted, cropped, turned, another mean), "
        "or train the source classifier with such augmentation",
    )


def worse_than_before(found: Verdict) -> Diagnostic | None:
    """Whether the study takes the adapted classifier for worse than the source classifier."""
    if found.recommended == "adapted":
        return None
    return Diagnostic(
        "worse than before",
        f"the adapted classifier seems worse than the source classifier, by {max(1, round(abs(100 * found.gain)))} in 100 images",
        "adaptation seems to have given images that were right to other classes",
        "take the source classifier, as predict, evaluate and export do unless told (--which last); or fit another --method",
    )


def to_look_at(images: int) -> str:
    """How many of a target's images somebody should look at, in words: no more than there are."""
    return "fifty images" if images >= LOOKED_AT else "every image"


def unlike_the_study(found: Verdict, images: int) -> Diagnostic | None:
    """Whether no run of the study was like this one; `images` is how many the target has."""
    if not found.unlike:
        return None
    return Diagnostic(
        "unlike the study",
        "this run is unlike those that the estimate was learned from",
        "its interval is wide, and may still be too narrow",
        f"look at {to_look_at(images)} (uda check)",
    )


def numerical_trouble(stage: str, what: str) -> Diagnostic:
    """Numbers that did not stay finite in a stage of training, which went on from before that."""
    return Diagnostic(
        "numerical trouble",
        f"{stage}: {what}",
        "the steps were too large for these images and this network, and smaller ones may have been too small",
        "lower the learning rate, and fit again",
    )


def far_class_shares(source: Tensor, predicted: Tensor, images: int) -> Diagnostic | None:
    """Other classes than in the source: shares of the classes (K,), in the source and as predicted on so many target images."""
    apart = distance(predicted, source)
    if apart <= FAR + chance(len(predicted), images):
        return None
    return Diagnostic(
        "class histogram",
        f"the classes predicted on the target are far from the source's (total variation {apart:.2f}, of 1)",
        "either the target really has other shares of the classes, or several classes were taken for one",
        "look at what uda predict gives each class; if the target is uneven, fit with --set training.target_shares=estimated, "
        "and if it is not, with another --seed",
    )


def far_from_estimate(estimated: Tensor, predicted: Tensor, images: int) -> Diagnostic | None:
    """Other classes than the method was to expect of the target: shares (K,), as estimated and as predicted on so many images."""
    apart = distance(predicted, estimated)
    if apart <= FAR + chance(len(predicted), images):
        return None
    return Diagnostic(
        "class histogram",
        f"the classes predicted on the target are far from the shares that were expected (total variation {apart:.2f}, of 1)",
        "the shares were estimated by the source classifier, and it or the adapted one is wrong about many images",
        "look at what uda predict gives each class; if the target's are about even, fit with --set training.target_shares=even",
    )


def lost_classes(expected: Tensor, predicted: Tensor, images: int, classes: tuple[str, ...]) -> Diagnostic | None:
    """Classes that hardly any of so many target images gets, though expected; shares (K,), as expected and as predicted.

    Of few images, chance alone leaves classes out: such a class is lost only where so few of it are improbable (the tail of a
    binomial distribution, over all classes at most `IMPROBABLE`).
    """
    few = predicted < HARDLY * expected
    lost = [
        name
        for name, hardly, now, then in zip(classes, few.tolist(), predicted.tolist(), expected.tolist(), strict=True)
        if hardly and _at_most(round(now * images), images, then) < IMPROBABLE / len(classes)
    ]
    if not lost:
        return None
    return Diagnostic(
        "lost classes",
        f"hardly any target image is given the class{'es' if len(lost) > 1 else ''} {', '.join(lost)}",
        "the target may not have what the source has, or adaptation merged it with another class",
        "if the target has no such images, all is well, and --set training.target_shares=estimated tells the method so; if it "
        "has, train the source classifier with more augmentation",
    )


def _at_most(count: int, images: int, share: float) -> float:
    """The probability that at most `count` of the images have a class of this share, 0..1."""
    counts = torch.arange(count + 1, dtype=torch.float64)
    return float(Binomial(images, torch.tensor(share, dtype=torch.float64)).log_prob(counts).logsumexp(0).exp())


def unsure(logits: Tensor) -> Diagnostic | None:
    """Many target images without a likely class; logits (M, K)."""
    share = float((logits.softmax(1).amax(1) < UNSURE).double().mean())
    if share <= MANY_UNSURE:
        return None
    return Diagnostic(
        "unsure",
        f"{share:.0%} of the target images get no class with a probability of {UNSURE} or more",
        "the target may hold classes that the source does not have, or be framed otherwise (inverted, cropped, turned)",
        "compare some images of both; match their framing with the recipe's [data] and [augment]; where you know that it "
        "holds other classes, fit with --method label_propagation, and predict with --unknown",
    )


def less_clear(before: Tensor, after: Tensor, shares: Tensor | None = None) -> Diagnostic | None:
    """Predictions that adaptation made less clear; logits (M, K) of the same target images, as are those below.

    `shares` (K,), each above 0, are what the method expected of the classes; None: even ones.
    """
    risen = entropy(after) - entropy(before)
    shares = None if shares is None else shares.to(after.device)
    clearer = information_maximization(after, shares) - information_maximization(before, shares)
    if risen <= LESS_SURE and clearer >= -LESS_SURE:
        return None
    return Diagnostic(
        "less clear than before",
        f"on the target, mean entropy changed by {risen:+.2f} nats and information maximisation by {clearer:+.2f}",
        f"adaptation made the predictions less clear, or less {'even' if shares is None else 'as expected'}, than the source "
        "classifier's",
        "take another step or the source classifier (--which selected, --which source), or lower the learning rate and, where "
        "the method has them, adversarial weights",
    )


def changed_too_much(before: Tensor, after: Tensor) -> Diagnostic | None:
    """Hardly an image that kept its class."""
    same = agreement(before, after)
    if same >= CHANGED_ALL:
        return None
    return Diagnostic(
        "agreement with source-only",
        f"only {same:.0%} of the target images kept the class that the source classifier gave them",
        "adaptation has hardly started from what the source classifier knew: its clusters may carry the wrong names",
        "check that source and target show the same things in the same framing; train a better source classifier first",
    )


def changed_nothing(before: Tensor, after: Tensor) -> Diagnostic | None:
    """Hardly an image that got another class."""
    same = agreement(before, after)
    if same <= CHANGED_NONE:
        return None
    return Diagnostic(
        "agreement with source-only",
        f"{same:.1%} of the target images kept the class that the source classifier gave them",
        "adaptation changed almost nothing",
        "if the domains do differ, train longer or raise the learning rate; else the source classifier will do",
    )


def class_not_kept(translation: Mapping[str, Any]) -> Diagnostic | None:
    """Translated source images of other classes than theirs; figures as `uda.evaluation.translation` returns them.

    Read by a network that was taught by the adapted classifier, or, behind a frozen body, by the source classifier.
    """
    judged, bound, others = translation.get("taught_consistency"), translation.get("taught_agreement"), "real target images"
    if bound is None:
        judged, bound = translation.get("class_consistency"), translation.get("untranslated_consistency")
        others = "untranslated ones"
    if judged is None or bound is None or judged >= KEPT * bound:
        return None
    return Diagnostic(
        "translations lose their class",
        f"of the translated source images {judged:.0%} are read as their class, of {others} {bound:.0%}",
        "translations do not show what they are made from, so what the classifier learned does not come from them",
        "raise method.translated_class_weight (of latent_mapping method.code_class_weight), or compare the run with one that "
        "does not translate",
    )


def class_not_kept_back(translation: Mapping[str, Any]) -> Diagnostic | None:
    """Target images whose translations are of other classes than the adapted classifier gives them; figures as above.

    Read by a judge that has learned from labelled source images; no target label has a part in it.
    """
    back = translation.get("backward", {})
    judged, bound = back.get("given_consistency"), back.get("judge_accuracy")
    if judged is None or bound is None or judged >= KEPT * bound:
        return None
    return Diagnostic(
        "translations back lose their class",
        f"of the target images that are translated to the source {judged:.0%} are read as the class that the adapted classifier "
        f"gives them, of real source images {bound:.0%}",
        "pictures of the way back do not show what they are made from, or the classifier is wrong about what that is",
        "look at the way back (uda translate --to source): where its pictures are wrong, raise "
        "method.translated_pseudo_label_weight (of latent_mapping method.rebuilt_class_weight), and else look at images (uda "
        "check)",
    )
