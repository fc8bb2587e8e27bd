"""`uda inspect`: two domains before anything is trained. No target label is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uda.console import Display
from uda.data.augment import to_float
from uda.data.folders import Found, peek
from uda.data.frame import Frame
from uda.data.load import Role, check_all_classes, find_all, load_named, resolve_frame
from uda.errors import UserError
from uda.evaluation.diagnostics import hardly_better_than_guessing, to_look_at
from uda.evaluation.domains import FOLDS, class_shares, domain_auc, statistics
from uda.evaluation.outputs import accuracy
from uda.recipe.load import resolve
from uda.recipe.schema import Recipe
from uda.runs.build import (
    build_networks,
    channels_taken,
    check_files,
    naming_classes,
    published_frame,
)
from uda.runtime import Runtime, choose_runtime
from uda.text import counted
from uda.training.check import classes_of

LOOKED, READ = 1000, 250  # images of each domain that are decoded; that a network reads
SMALL = 200  # target images below which little can be learned


@dataclass(frozen=True)
class Side:
    """What was seen of one domain.

    Attributes:
        name: as it was asked for.
        note: what it is.
        count: how many images there are.
        images: those that were looked at, uint8 (n, C, S, S), drawn at random.
        names: theirs.
        sizes: (width, height) of some images as they lie there, each once, smallest first.
        grey: whether those are all grey.
        unreadable: a line for each of those that cannot be read.
        classes: how many images of each, by name; empty for the target.
        labels: the class of each of `images`, int64 (n,); None for the target.
    """

    name: str
    note: str
    count: int
    images: Tensor
    names: list[str]
    sizes: list[tuple[int, int]]
    grey: bool
    unreadable: list[str]
    classes: dict[str, int]
    labels: Tensor | None


def inspect(
    source: str,
    target: str,
    roots: Sequence[Path],
    display: Display,
    overrides: Mapping[str, object] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Looks at two domains.

    Args:
        source: labelled images, as `uda fit` takes them.
        target: images whose labels, if any, are not read.
        roots: where data sets lie.
        display: where to say how it goes.
        overrides: dotted keys of a recipe, such as ``data.size``; with ``classifier.backbone``, that network's features are read
            instead of simple statistics.
        device: where the network computes.

    Returns:
        ``source`` and ``target`` (each a `Side`), ``duplicates`` (pairs of names), ``auc`` of telling the domains apart (None for
        fewer than five images in one), ``by`` (what it read), ``shares`` of the target's classes (`uda.evaluation.shares.Shares`;
        None without a network, or with hardly any source image), ``accuracy`` of the network on source images (None but for one
        with trained weights: ``classifier.weights``); ``advice``, a paragraph.

    Raises:
        UserError: where there are no images, or the network is not to be had.
    """
    given = {"data.source": source, "data.target": target, **(overrides or {})}
    network = "classifier.backbone" in given
    if not network and (files := [key for key in ("weights", "backbone_weights") if f"classifier.{key}" in given]):
        raise UserError(f"--{files[0].replace('_', '-')} is of a network; give that, too: --model NET, or --model timm:NAME")
    recipe = resolve("photos", {**given, "classifier.trainable": "head", "classifier.bottleneck": 0}).recipe
    found = find_all(recipe.data, roots)
    if network:
        check_files(recipe.classifier)
    published = published_frame(recipe.classifier) if network else None
    frame = resolve_frame(recipe.data, found.get("source"), found.get("target"), published, channels_taken(recipe))
    classes = classes_of(recipe.data, found)
    check_all_classes({role: part for role, part in found.items() if role == "source"}, classes)
    roles: tuple[tuple[Role, str], ...] = ("source", source), ("target", target)
    sides = [
        _look(role, name, found[role], classes, frame, display) if role in found else _look_at_known(role, name, roots, frame)
        for role, name in roles
    ]
    features, logits, labels = [statistics(side.images) for side in sides], None, sides[0].labels
    if network:
        runtime, read = choose_runtime(device, "fp32"), [side.images[:READ] for side in sides]
        with naming_classes(classes, sides[0].note):
            features, logits = _features(recipe.with_frame(frame), read, runtime, len(classes))
    result: dict[str, Any] = {
        "source": sides[0],
        "target": sides[1],
        "duplicates": duplicates(*sides),
        "auc": domain_auc(*features) if min(map(len, features)) >= FOLDS else None,
        "by": f"features of {recipe.classifier.backbone}" if network else "simple statistics of light, colour and sharpness",
        "shares": None,
        "accuracy": None,
    }
    if network and labels is not None:
        result["shares"] = class_shares(features[0], labels[:READ], features[1], len(classes))
    if logits is not None and labels is not None:
        result["accuracy"] = accuracy(logits, labels[:READ])
    return result | {"advice": advise(result)}


def _look(role: str, name: str, found: Found, classes: Sequence[str], frame: Frame, display: Display) -> Side:
    """Some of the images at a path, at random, and what can be said of all of them without decoding."""
    picked = np.random.default_rng(0).permutation(len(found))[:LOOKED]
    if found.pixels is None:
        part = replace(found, names=found.names[picked])
    else:
        part = replace(found, pixels=found.pixels[torch.from_numpy(picked)])
    kept: list[int] = []
    blocks: list[Tensor] = []
    unreadable: list[str] = []
    with display.stage(f"reading {name}", 0, len(picked)) as bar:
        for positions, block, failed in part.decoded(frame):
            kept += positions
            blocks.append(block)
            unreadable += failed
            bar.update(len(kept) + len(unreadable), f"{len(kept):,} images")
    if not kept:
        raise UserError(f"none of the images at {name} can be read, for example {unreadable[0]}; give images that can")
    sizes, grey = peek(found)
    names = [found.name(int(position)) for position in picked[kept]]
    side = Side(name, found.note, len(found), torch.cat(blocks), names, sorted(set(sizes)), grey, unreadable, {}, None)
    if role == "target" or found.labels is None:
        return side
    number = {label: place for place, label in enumerate(classes)}
    labels = torch.tensor([number[str(label)] for label in found.labels])
    return _labelled(side, classes, labels, labels[torch.from_numpy(picked[kept])])


def _look_at_known(role: str, name: str, roots: Sequence[Path], frame: Frame) -> Side:
    """The same of a data set that goes by name."""
    domain = load_named(name, "train", roots, frame.size, frame.channels)
    assert isinstance(domain.images, Tensor)
    chosen, sizes = domain.shuffled()[:LOOKED], [(frame.size, frame.size)]
    names = list(map(str, chosen.tolist()))
    side = Side(name, domain.note, len(domain), domain.images[chosen], names, sizes, frame.channels == 1, [], {}, None)
    return side if role == "target" else _labelled(side, domain.classes, domain.labels, domain.labels[chosen])


def _labelled(side: Side, classes: Sequence[str], all_labels: Tensor, labels: Tensor) -> Side:
    counts = all_labels.bincount(minlength=len(classes)).tolist()
    return replace(side, classes=dict(zip(classes, counts, strict=True)), labels=labels)


def duplicates(source: Side, target: Side) -> list[tuple[str, str]]:
    """Images that both domains hold, among those that were looked at: the same pixels once they are framed; names in each."""
    known = {_content(image): name for image, name in zip(source.images, source.names, strict=True)}
    theirs = ((known.get(_content(image)), name) for image, name in zip(target.images, target.names, strict=True))
    return [(own, name) for own, name in theirs if own is not None]


def _content(image: Tensor) -> bytes:
    return hashlib.sha256(image.numpy().tobytes()).digest()


@torch.no_grad()
def _features(recipe: Recipe, images: list[Tensor], runtime: Runtime, classes: int) -> tuple[list[Tensor], Tensor | None]:
    """What the network's body makes of each domain's images uint8 (n, C, S, S): features (n, D); and what its head says of the
    first domain's, logits (n, K), where it is one that was trained on these classes.
    """
    body, classifier, _ = build_networks(recipe, classes, runtime, begin=True)
    assert body is not None
    with runtime.computing(), runtime.autocast():
        parts = [[body(runtime.arrange(to_float(part.to(runtime.device)))) for part in side.split(32)] for side in images]
        trained = recipe.classifier.weights is not None
        logits = torch.cat([classifier.eval()(part) for part in parts[0]]).float().cpu() if trained else None
    return [torch.cat(side).float().cpu() for side in parts], logits


def figures(seen: dict[str, Any]) -> list[str]:
    """What was counted and measured, in lines; `seen` is what `inspect` returns, and what it could not tell has no line."""
    source, target, auc, shares = seen["source"], seen["target"], seen["auc"], seen["shares"]
    fewest, most = min(source.classes.values()), max(source.classes.values())
    each = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    lines = [
        f"source: {source.count:,} labelled images, {len(source.classes)} classes, {each} images each",
        f"target: {target.count:,} images",
    ]
    if auc is not None:
        lines.append(f"told apart by {seen['by']}: AUC {auc:.2f} (0.5 is not at all, 1 without a mistake)")
    if shares is not None:
        lines.append(f"the target's classes, estimated: {shares.describe(tuple(source.classes))}")
    if seen["accuracy"] is not None:
        count = len(source.images[:READ])
        lines.append(f"the network's accuracy on {count:,} source images, which may have taught it: {seen['accuracy']:.4f}")
    if shared := len(seen["duplicates"]):
        lines.append(f"in both domains: {shared} of the {len(source.images):,} and {len(target.images):,} images looked at")
    if unreadable := len(source.unreadable) + len(target.unreadable):
        lines.append(f"unreadable: {counted(unreadable, 'file')} beside these")
    return lines


def advise(seen: dict[str, Any]) -> str:
    """What to do about it, in a paragraph."""
    source, target, auc, shares = seen["source"], seen["target"], seen["auc"], seen["shares"]
    fewest, right, classes = min(source.classes.values()), seen["accuracy"], len(source.classes)
    guessing = hardly_better_than_guessing(right, classes) if right is not None and classes > 1 else None
    unread = f"On source images the network is {guessing.name}: {guessing.advice}." if guessing else ""
    said = [
        (bool(unread), unread),
        (auc is None, "There are too few images to say how far the domains are apart."),
        (auc is not None and auc < 0.6, "The domains hardly differ in what was read: a classifier trained on the source may do."),
        (auc is not None and 0.6 <= auc < 0.9, "The domains differ, and not wholly: this is what adaptation is made for."),
        (
            auc is not None and auc >= 0.9,
            "The domains are told apart almost without a mistake, which is usual for photographs and scans, and does not keep "
            "adaptation from working; what a run prints of its target is to be checked all the more.",
        ),
        (source.grey != target.grey, "One domain is grey and the other is not: --set data.channels=1 makes both grey."),
        (target.count < SMALL, f"{target.count} target images are few: run several seeds, and trust a change of points only."),
        (fewest < 10, f"The source has a class of {fewest} images: what is learned of it will not carry far."),
        (
            bool(seen["duplicates"]),
            f"{len(seen['duplicates'])} images lie in both domains: take them out, or accuracies on the target are too high.",
        ),
        (bool(source.unreadable or target.unreadable), "Mend or remove the unreadable files; a run leaves them out."),
        (
            shares is not None and shares.uneven,
            "The target's classes look uneven: --set training.target_shares=estimated has methods expect them so, which else "
            "push towards even ones; look at the classes in the report.",
        ),
        (
            shares is not None and not shares.uneven,
            "Whether the target's classes are uneven cannot be told: mistakes and chance explain what is seen of them.",
        ),
        (shares is None, "Give --model, such as timm:resnet18, to have the target's classes estimated."),
        (True, f"Once a run is done, labels of {to_look_at(target.count)} tell more than any estimate: uda check RUN."),
    ]
    return " ".join(sentence for holds, sentence in said if holds)
