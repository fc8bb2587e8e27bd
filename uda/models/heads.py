"""The head of a network that was not written for this: found, and read as a linear layer of features."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.errors import OtherClasses, UserError
from uda.models.watch import Seen
from uda.text import counted


class MapHead(nn.Linear):
    """A head that is a 1x1 convolution, ReLU and an average over the map, as SqueezeNet has it: a linear layer for each pixel.

    The average comes after the ReLU, so its features are the whole map, flattened: (N, in_features x H x W) to logits (N, K).
    """

    def __init__(self, shape: Sequence[int], classes: int, bias: bool = True) -> None:
        super().__init__(shape[0], classes, bias)
        self.shape = tuple(shape)

    def forward(self, features: Tensor) -> Tensor:
        maps = F.conv2d(features.unflatten(1, self.shape), self.weight[:, :, None, None], self.bias)
        return maps.relu().mean((2, 3))


def head_name(network: nn.Module, images: Tensor, seen: Seen, classes: int) -> str:
    """The linear layer or 1x1 convolution with an output for each class that is called last.

    Args:
        network, images: as they were watched.
        seen: what that showed.
        classes: how many.

    Raises:
        UserError: where there is none, or the output is not its alone.
    """
    heads = [name for name in seen.order if outputs_of(network.get_submodule(name)) == classes]
    if not heads or not isinstance(seen.output, Tensor) or seen.output.shape != (2, classes):
        raise OtherClasses(_other_classes(network, seen, classes))
    if not seen.output.isfinite().all():
        raise UserError("the network returns numbers that are infinite or not numbers; give weights from before training failed")
    head = network.get_submodule(heads[-1])
    linear = [name for name in heads if isinstance(network.get_submodule(name), nn.Linear)]
    if isinstance(head, nn.Linear) and len(linear) > 1:
        hook = head.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
        try:
            first, second = network(images)
        finally:
            hook.remove()
        if not torch.allclose(first, second):  # something else of the images still comes through
            raise UserError(f"the network has several heads ({', '.join(linear)}); take or write one with a single head")
    return heads[-1]


def _other_classes(network: nn.Module, seen: Seen, classes: int) -> str:
    """What is wrong with what a network returned for two images, and what to do."""
    output, has = seen.output, f"the source has {classes} classes"
    if not isinstance(output, Tensor):
        return f"the network returns {type(output).__name__}, and {has}; it must end in a linear layer with one output for each"
    shape, outputs = tuple(output.shape), output.shape[1] if output.ndim == 2 and len(output) == 2 else 0
    if outputs in (0, classes) or all(outputs_of(network.get_submodule(name)) != outputs for name in seen.order):
        return (
            f"the network returns {shape} for two images, and {has}; it must end in a linear layer with one output for each class"
        )
    hint = (
        "the folder of a class may be missing, or empty"
        if outputs > classes
        else "the source may have classes that it does not know"
    )
    return f"the network has {counted(outputs, 'output')}, and {has}: it needs one for each; {hint}"


def outputs_of(module: nn.Module) -> int | None:
    """How many outputs a linear layer has, or a 1x1 convolution, which is a linear layer for each pixel; None for others."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.kernel_size == module.stride == (1, 1) and module.groups == 1:
        return module.out_channels
    return None


def as_head(module: nn.Module, read: Tensor, returned: Tensor, output: Tensor) -> nn.Linear:
    """A head's module as a linear layer of features: what it reads and returns for two images, and the network's output.

    Raises:
        UserError: where it is a convolution whose maps are not averaged, with or without a ReLU.
    """
    if isinstance(module, nn.Linear):
        return copy.deepcopy(module)
    assert isinstance(module, nn.Conv2d)
    sizes, bias = (module.in_channels, module.out_channels), module.bias is not None
    if torch.allclose(returned.mean((2, 3)), output, atol=1e-4):  # the average of a linear function is that of the average
        head: nn.Linear = nn.utils.skip_init(nn.Linear, *sizes, bias=bias)
    elif torch.allclose(returned.relu().mean((2, 3)), output, atol=1e-4):
        head = MapHead(read.shape[1:], module.out_channels, bias)
    else:
        raise UserError("the network ends in a convolution whose maps are not averaged; it must end in a linear layer")
    for parameter, value in zip(head.parameters(), module.parameters(), strict=True):
        parameter.data.copy_(value.data.view_as(parameter))
    return head


def pool_before_head(network: nn.Module) -> nn.Module:
    """Rewrites a head of a 1x1 convolution, ReLU and average pooling as average pooling and a linear layer, in place.

    That is another function, for a head that is going to be trained: its features are then one vector for each image, and not
    a map. The linear layer is drawn. Networks with other heads stay as they are.
    """
    for part in [part for part in network.modules() if isinstance(part, nn.Sequential)]:
        match list(part)[-3:]:
            case [nn.Conv2d() as maps, nn.ReLU(), nn.AdaptiveAvgPool2d(output_size=1 | (1, 1))] if outputs_of(maps):
                linear = nn.Linear(maps.in_channels, maps.out_channels, maps.bias is not None)
                part[-3] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
                part[-2], part[-1] = nn.Identity(), nn.Identity()
    return network
