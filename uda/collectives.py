"""What the processes of one run (`uda.ranks`) do with tensors: means, and batches put together, with gradients.

Each process has its part of a batch, equally large. A mean over a part's images becomes the mean over the batch's where
gradients are averaged, and needs nothing from here. What mixes images (a distance of two distributions, the entropy of a mean)
is computed of the whole batch, which `gather` puts together. In a single process all of it returns what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uda import ranks

Value = TypeVar("Value")


class _Gather(torch.autograd.Function):
    """Parts (n, ...) to the whole (n x N, ...), in the order in which `uda.ranks.own` takes it apart.

    Backward, the gradients of all processes' losses are summed: averaged with the others afterwards, they are those of the mean
    of these losses, whatever each of them is.
    """

    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(ranks.world_size())]
        with ranks.meeting():
            dist.all_gather(parts, part.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        with ranks.meeting():
            dist.all_reduce(total)
        return ranks.own(total)


def gather(part: Tensor) -> Tensor:
    """The whole batch (n x N, ...) of each process's part (n, ...), which gradients pass. All parts have one shape."""
    if not ranks.several():
        return part
    if part.dtype is torch.bool:
        return gather(part.to(torch.uint8)).bool()
    whole: Tensor = _Gather.apply(part)
    return whole


def average(tensors: Sequence[Tensor]) -> None:
    """Gives tensors the mean of all processes' values, in place: one exchange for all, of one flat float32 buffer."""
    if not ranks.several() or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten().float() for tensor in tensors])
    with ranks.meeting():
        dist.all_reduce(flat)
    flat /= ranks.world_size()
    with torch.no_grad():
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives all parameters that have a gradient in some process the mean of all processes'; one that is missing counts as 0."""
    if not ranks.several():
        return
    own = list(parameters)
    there = torch.tensor([parameter.grad is not None for parameter in own], dtype=torch.uint8)
    with ranks.meeting():
        dist.all_reduce(there, dist.ReduceOp.MAX)
    for parameter in (own[number] for number in there.nonzero().flatten().tolist()):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    average([parameter.grad for parameter in own if parameter.grad is not None])


def from_all(parts: list[Tensor]) -> list[Tensor]:
    """Every process's parts, on the CPU, in the order in which `uda.ranks.own` takes a list apart; no gradients pass."""
    if not ranks.several():
        return parts
    held: list[list[Tensor]] = [[] for _ in range(ranks.world_size())]
    with ranks.meeting():
        dist.all_gather_object(held, [part.cpu() for part in parts])
    return [held[number % len(held)][number // len(held)] for number in range(sum(map(len, held)))]


def interleaved(own: Iterator[Value]) -> Iterator[Value]:
    """What all processes make of their parts of a list (`uda.ranks.own`), one after another in its order, as soon as it is made.

    Tensors in it are to lie on the CPU; None is not to be made.
    """
    if not ranks.several():
        yield from own
        return
    held: list[Value | None] = [None] * ranks.world_size()
    while True:
        mine = next(own, None)
        with ranks.meeting():
            dist.all_gather_object(held, mine)
        made = [value for value in held if value is not None]
        yield from made
        if len(made) < len(held):
            return


def averaged(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Scalars by name, as the mean of all processes'; as they are in a single one."""
    if not ranks.several() or not values:
        return values
    means = [torch.as_tensor(value, dtype=torch.float32).detach().cpu().clone() for value in values.values()]
    average(means)
    return dict(zip(values, means, strict=True))


def copy_from_first(module: nn.Module) -> None:
    """Gives a module's weights and buffers the first process's values, so that all begin alike."""
    if ranks.several():
        with ranks.meeting(), torch.no_grad():
            for value in module.state_dict(keep_vars=True).values():
                held = value.detach().contiguous()
                dist.broadcast(held, 0)
                value.copy_(held)
