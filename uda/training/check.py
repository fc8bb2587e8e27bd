"""What can be known of a run before it is begun: without training, without decoding all images, without a download."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from uda.data.folders import Found, class_names
from uda.data.load import (
    DAMAGED,
    ROLES,
    Role,
    check_all_classes,
    check_named_classes,
    describe,
    find_all,
    named_classes,
    resolve_frame,
)
from uda.data.names import data_roots, is_path
from uda.data.settings import DataSettings
from uda.errors import UserError
from uda.methods import find_method
from uda.models.published import check_published
from uda.recipe.schema import Recipe
from uda.runs.build import Networks, build_checked, channels_taken, naming_classes, published_frame, starts_published
from uda.runtime import choose_runtime
from uda.text import counted

FEW = 20  # target images; of fewer, an interval spans half of what is possible


def check(recipe: Recipe, data_root: str | Path | None, device: str, precision: str) -> Iterator[str]:
    """A line for each thing that is right, or worth a remark.

    Args:
        recipe: a resolved one.
        data_root, device, precision: as in `uda.fit`.

    Raises:
        UserError: for the first thing that is wrong.
    """
    runtime = choose_runtime(device, precision)
    yield f"device and precision: {runtime}"
    wanted, roots = recipe.data, data_roots(data_root)
    found = find_all(wanted, roots, recipe.classifies)
    states = {(name, split): (state, note) for name, split, state, note in describe(roots)}
    for role in ROLES:
        name = getattr(wanted, role)
        if role in found:
            yield f"{role}: {counted(len(found[role]), 'image')}, {found[role].note}"
        elif name is not None:
            state, note = states[name, "test" if role.endswith("test") else "train"]
            if state.startswith(DAMAGED):
                raise UserError(note)
            yield f"{role}: {name}, {state}"
    yield from remarks(recipe, len(found["target"]) if "target" in found else None)
    published_as, taken = published_frame(recipe.classifier), channels_taken(recipe)
    frame = resolve_frame(wanted, found.get("source"), found.get("target"), published_as, taken)
    classes = classes_of(wanted, found)
    check_all_classes(found, classes, wanted.unknown == "class")
    for role in ROLES:
        name, tested_otherwise = getattr(wanted, role), role == "target" and "target_test" in found
        if role not in found and name is not None and not tested_otherwise:
            check_named_classes(name, classes)
    if "target" in found and found["target"].labels is None and find_method(recipe.method.name).reads_target_labels:
        raise UserError(f"{recipe.method.name} trains on target labels, which {wanted.target} has none of; take another --method")
    shape = frame.channels, frame.size, frame.size
    yield f"classes and images: {len(classes)} wherever there are labels; (channels, height, width) = {shape}"
    # Published weights would be downloaded, and have no part in whether the network fits.
    published, classifier = starts_published(recipe.classifier), recipe.classifier
    if published:
        check_published(classifier.backbone)
        classifier = classifier.model_copy(update={"pretrained": False})
    untrained = recipe.model_copy(update={"classifier": classifier}).with_frame(frame)
    with naming_classes(classes, found["source"].note if "source" in found else wanted.source):
        built = build_checked(untrained, len(classes), runtime)
    if built is not None and published:
        built.classifier.start = f"the published weights of {classifier.backbone}, which a run downloads unless it has them"
    yield _describe_networks(untrained, built)


def remarks(recipe: Recipe, count: int | None) -> list[str]:
    """What is to be said before anything is trained, of a target of `count` images; None where they have not been counted."""
    few = few_images(count) if recipe.classifies and count is not None else ""
    return [line for line in (few, same_images(recipe.data)) if line]


def few_images(count: int) -> str:
    """What is to be said of a target of so many images, where they are too few to tell whether adapting helps; else nothing."""
    if count >= FEW:
        return ""
    return (
        f"the target has {counted(count, 'image')} alone: figures of fewer than {FEW} can hardly tell whether adapting helps; "
        "give more, or label them and see (uda check RUN)"
    )


def same_images(wanted: DataSettings) -> str:
    """What is to be said where both domains are the same files or data set; else nothing."""
    here = is_path(wanted.source) and is_path(wanted.target) and os.path.exists(wanted.source) and os.path.exists(wanted.target)
    same = os.path.samefile(wanted.source, wanted.target) if here else wanted.source == wanted.target
    if not same or wanted.target_inverted_copies:
        return ""
    return "source and target are the same images, so there is nothing to adapt to; give other ones as --target"


def classes_of(wanted: DataSettings, found: dict[Role, Found]) -> tuple[str, ...]:
    """The classes of the source, of which no image is decoded."""
    if "source" in found:
        return tuple(wanted.classes or class_names(found["source"]))
    return named_classes(wanted.source)


def _describe_networks(recipe: Recipe, networks: Networks | None) -> str:
    if networks is None:
        return f"method: {recipe.method.name}"
    wanted, classifier = recipe.classifier, networks.classifier
    frozen = 0 if networks.body is None else sum(parameter.numel() for parameter in networks.body.parameters())
    count = frozen + sum(parameter.numel() for parameter in classifier.parameters())
    parts = f" ({classifier.parts})" if classifier.parts else ""
    kept = f" ({frozen:,} frozen)" if frozen else ""
    fits = f"; {wanted.weights} fits it" if wanted.weights is not None else ""
    fits += f"; it starts from {classifier.start}" if classifier.start else ""
    return f"classifier: {wanted.backbone}{parts}, {count:,} weights{kept}{fits}; {recipe.method.name} works on it"
