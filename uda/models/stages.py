"""The stages of a network: what its blocks are grouped in, from images to features."""

from __future__ import annotations

import torch
from torch import nn

from uda.errors import UserError
from uda.models.custom import find_head
from uda.models.watch import outside, watch
from uda.runtime import evaluating

LEAST = 0.01  # of a network's weights; what has fewer is no stage
MOST = 0.8  # of a module's weights, in one part of it: then the stages are that part's


def stages_of(network: nn.Module, channels: int, size: int, classes: int) -> list[str]:
    """Dotted names of a network's stages in the order of their calls, without its head: ``layer1`` .. ``layer4``.

    timm says of its networks which these are (``feature_info``); of others they are the parts of the module that holds most.

    Raises:
        UserError: where the network cannot take such images, or has no head.
    """
    order = _order(network, channels, size)
    described = [stage["module"] for stage in getattr(network, "feature_info", [])]
    head, total = find_head(network, channels, size, classes), _count(network)
    parts = outside(head, [name for name in described or _parts(network) if name in order])
    return sorted((name for name in parts if _count(network.get_submodule(name)) > LEAST * total), key=order.index)


def module_before(network: nn.Module, channels: int, size: int, classes: int, name: str) -> str:
    """The module that ends right where another begins: ``"blocks.4"`` before ``"blocks.5"``.

    Raises:
        UserError: where there is no such module, or none before it.
    """
    order = _order(network, channels, size)
    if name not in order:
        # What begins with the images is no stage to train from: that is "all".
        stages = [stage for stage in stages_of(network, channels, size, classes) if outside(stage, order[: order.index(stage)])]
        raise UserError(f"unknown module for classifier.trainable {name!r}; the network's stages are {', '.join(stages)}")
    before = outside(name, order[: order.index(name)])
    if not before:
        raise UserError(f'nothing comes before {name}; set classifier.trainable to "all"')
    return before[-1]


def _order(network: nn.Module, channels: int, size: int) -> list[str]:
    """Dotted names of its modules in the order of their calls."""
    network = network.cpu()
    with evaluating(network):
        return watch(network, torch.zeros(2, channels, size, size)).order


def _parts(network: nn.Module) -> list[str]:
    name, parts = "", dict(network.named_children())
    while largest := [part for part, module in parts.items() if _count(module) > MOST * sum(map(_count, parts.values()))]:
        inner = dict(parts[largest[0]].named_children())
        if not inner:
            break
        name, parts = f"{name}{largest[0]}.", inner
    return [f"{name}{part}" for part in parts]


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
