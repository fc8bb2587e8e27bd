"""Networks and methods, built from a recipe."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

from torch import nn

from uda.errors import UserError
from uda.methods import Method, find_method, unit_translation
from uda.models import GIVEN_IN_PYTHON, Classifier, build_classifier, build_foreign
from uda.models.custom import split_network
from uda.models.layers import Normalize
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


def build_source_classifier(
    recipe: Recipe, classes: int, runtime: Runtime, model: nn.Module | None = None, weights: Path | None = None
) -> Classifier:
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
    runtime.place(classifier)
    return classifier


def build_method(recipe: Recipe, classifier: Classifier, runtime: Runtime) -> Method:
    """The recipe's method, at its first step, starting from `classifier`."""
    return find_method(recipe.method.name).Method(recipe.method, classifier, recipe.data.shape, recipe.training.steps, runtime)


def build_translation(recipe: Recipe, runtime: Runtime) -> unit_translation.Method:
    """The recipe's method, at its first step, where it translates and does not classify."""
    return find_method(recipe.method.name).Method(recipe.method, recipe.data.shape, recipe.training.steps, runtime)
