"""The memory that a run is going to take, as far as it is known before any of it is taken."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uda.errors import UserError
from uda.models.backbones import Classifier
from uda.recipe.schema import Recipe
from uda.runs.build import Networks
from uda.runtime import Runtime, free_memory

BATCH = 1 + 3 * 4  # bytes for each value of a batch's images: as they are read, as floats, augmented, and their gradients
STATE = 3 * 4  # bytes that training adds for each weight: its gradient, and the two averages that Adam keeps
GIB = 2**30


def check_memory(recipe: Recipe, networks: Networks | None, runtime: Runtime) -> None:
    """Whether a training step has room: for a batch's images, for weights, and for what backward passes read again.

    It is the least that a step takes, so that no run is refused which would go well: methods add networks and passes of
    their own. Images that are held are bounded by `data.memory`, and are held already.

    Raises:
        UserError: where it has not.
    """
    if (free := free_memory(runtime.device)) is None:
        return
    training, classifier = recipe.training, recipe.classifier
    images = max(classifier.batch, training.batch + (training.target_batch or training.batch))
    least = images * math.prod(recipe.data.shape) * BATCH
    if least < free and networks is not None:  # there is room to look closer, by one image
        network, body = networks.classifier, networks.body
        image = torch.zeros(1, *recipe.data.shape, device=runtime.device)
        with torch.no_grad():
            read = image if body is None else body(image)
        width = 2 if runtime.precision == "bf16" else 4
        least += STATE * sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
        least += training.batch * width * kept_for_gradients(network, read)
    if least > free:
        raise UserError(
            f"a batch of {images:,} images takes at least {least / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB are free;"
            " lower training.batch, training.target_batch, classifier.batch or --size"
        )


def kept_for_gradients(network: Classifier, images: Tensor) -> int:
    """How many values a forward pass of a batch (B, ...) keeps for the backward one, beside the weights."""
    kept: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in (*network.parameters(), *network.buffers())}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes() // value.element_size()
        return value

    was_training = network.training
    network.eval()  # the statistics of batch norms are left as they are
    watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), watched:
        held = network(images)  # as long as it lives, no storage's place is taken by another
    network.train(was_training)
    del held
    return sum(kept.values())
