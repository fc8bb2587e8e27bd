"""Networks and methods, built from a recipe."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import nn

from uda.data.frame import Frame
from uda.errors import UserError
from uda.methods import find_method
from uda.methods.base import Method
from uda.methods.source_only import SourceClassifierSettings
from uda.models import GIVEN_IN_PYTHON, build_classifier, build_foreign
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.models.frozen import Body, Whole, freeze, with_head
from uda.models.layers import Normalize
from uda.models.preprocessing import preprocessing_of
from uda.models.weights import load_weights
from uda.recipe.schema import Recipe
from uda.runtime import Runtime


def build_whole(recipe: Recipe, classes: int, model: nn.Module | None = None) -> tuple[nn.Module, Normalize] | None:
    """A network that is not ours (a copy of `model`, where given), whole, with the preprocessing that it expects; else None."""
    wanted, (channels, size, _) = recipe.classifier, recipe.data.shape
    if model is not None:
        foreign = copy.deepcopy(model), Normalize((0.0,) * channels, (1.0,) * channels)
    elif wanted.backbone == GIVEN_IN_PYTHON:
        raise UserError("this run's network was given in Python; give it again: uda.load(RUN, model=network)")
    elif (found := build_foreign(wanted.backbone, channels, size, classes, wanted.width, wanted.pretrained)) is not None:
        foreign = found
    else:
        return None
    network, expected = foreign
    mean, std = (wanted.mean or expected.mean), (wanted.std or expected.std)
    if len(mean) != channels or len(std) != channels:
        raise UserError(f"classifier.mean and .std need {channels} numbers each, one for each channel (data.channels)")
    return network, Normalize(mean, std)


class Networks(NamedTuple):
    """A source classifier, and before it what is frozen of the network, if anything."""

    body: Body | None
    classifier: Classifier

    def whole(self, classifier: nn.Module) -> nn.Module:
        """A classifier that a method has made of the source's, as it takes images."""
        return classifier if self.body is None else Whole(self.body, classifier)


def published_frame(wanted: SourceClassifierSettings) -> Frame | None:
    """How the network that is named wants its images, where its description says so."""
    found = preprocessing_of(wanted.backbone)
    return None if found is None else Frame(found.size, len(found.mean), found.resize, found.interpolation)


def build_networks(
    recipe: Recipe, classes: int, runtime: Runtime, model: nn.Module | None = None, weights: Path | None = None
) -> Networks:
    """The network that `recipe.classifier` names (or a copy of `model`), in parts, on the runtime's device.

    Args:
        recipe: with its frame settled.
        classes: how many.
        runtime: where it goes.
        model: the network, where one was given in Python.
        weights: a state dict to start from, of the network as its author wrote it.
    """
    wanted, (channels, size, _) = recipe.classifier, recipe.data.shape
    foreign = build_whole(recipe, classes, model)
    network = build_classifier(wanted.backbone, channels, size, classes, wanted.width) if foreign is None else foreign[0]
    if weights is not None:
        load_weights(weights, network)
    if foreign is None:
        classifier = cast(Classifier, network)
    else:
        classifier = split_network(network, channels, size, classes, wanted.split, foreign[1])
    body = None
    if wanted.freezes:
        body, classifier = freeze(classifier, wanted.trainable == "head")
        runtime.place(body)
    if wanted.bottleneck:
        classifier = with_head(classifier, classes, wanted.bottleneck, wanted.dropout)
    runtime.place(classifier)
    return Networks(body, classifier)


def build_method(recipe: Recipe, classifier: Classifier | None, runtime: Runtime) -> Method:
    """The recipe's method, not yet set up, starting from `classifier` (None where it does not classify)."""
    method = find_method(recipe.method.name)(recipe.method, classifier, recipe.data.shape, recipe.training.steps, runtime)
    runtime.place(method)
    return method


def build_checked(
    recipe: Recipe, classes: int, runtime: Runtime, model: nn.Module | None = None, weights: str | None = None
) -> Networks | None:
    """The source classifier and its body, starting from `weights`; None where the method does not classify.

    The method is built on a copy of it and thrown away, so that what is wrong with it is known before any training. That draws
    no random number.

    Raises:
        UserError: where the network cannot be imported or split, the weights are another's, or the method cannot use it.
    """
    networks = None
    if recipe.classifies:
        path = Path(weights) if weights is not None else None
        networks = build_networks(recipe, classes, runtime, model, path)
    elif model is not None or weights is not None or ":" in recipe.classifier.backbone:
        raise UserError(f"{recipe.method.name} translates images and has no classifier; leave out --model and --weights")
    with torch.random.fork_rng(devices=[]):  # on the CPU, whatever the run's device: no other generator is drawn from
        build_method(
            recipe, networks and copy.deepcopy(networks.classifier), replace(runtime, device=torch.device("cpu"))
        ).read_files()
    return networks
