"""What a pass of two images through a network shows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from uda.errors import OwnCodeError
from uda.plugins import own_frames


@dataclass
class Seen:
    """What a pass of two images through a network has shown.

    Attributes:
        calls: names of modules in the order of their calls.
        readers: those of modules that are called with the images themselves.
        shapes: of what modules return, where that is one tensor.
        output: the network's.
    """

    calls: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    output: Tensor = field(default_factory=Tensor)

    @property
    def order(self) -> list[str]:
        """Names in the order of the modules' first calls."""
        return list(dict.fromkeys(self.calls))

    def replaceable_before(self, last: str, network: nn.Module) -> dict[str, torch.Size]:
        """The outermost modules that a pass is done with when `last` is reached, and the shapes of what they return.

        One that is called again later, such as a ReLU that a network has once for all its layers, stays where it is.
        """
        position = self.calls.index(last)
        names = outside(last, list(dict.fromkeys(self.calls[:position])))
        again = {name for name in self.calls[position:] if not any(True for _ in network.get_submodule(name).parameters())}
        return {name: self.shapes[name] for name in names if name in self.shapes and name not in again}


def watch(network: nn.Module, images: Tensor) -> Seen:
    """Sends two images (2, C, H, W) through a network.

    Raises:
        UserError: where it cannot take them.
    """
    seen = Seen()

    def before(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.calls.append(name)
            if inputs and inputs[0] is images and name not in seen.readers:
                seen.readers.append(name)

        return hook

    def after(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                seen.shapes[name] = output.shape

        return hook

    named = [(name, module) for name, module in network.named_modules() if name]
    hooks = [module.register_forward_pre_hook(before(name)) for name, module in named]
    hooks += [module.register_forward_hook(after(name)) for name, module in named]
    try:
        seen.output = network(images)
    except (Exception, SystemExit) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OwnCodeError(
            f"the network cannot take {images.shape[1]}x{images.shape[2]}x{images.shape[3]} images ({reason}); "
            "give the size and channels that it was made for (--size, --set data.channels=1 or 3), and as many numbers in "
            "classifier.mean and .std, where you give them",
            own_frames(error),
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def called_with(network: nn.Module, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a module is called with, and what it returns, when images go through the network.

    Copies: a ReLU after it may work in place.
    """
    caught: list[tuple[Tensor, Tensor]] = []
    hook = module.register_forward_hook(lambda _module, inputs, output: caught.append((inputs[0].clone(), output.clone())))
    try:
        network(images)
    finally:
        hook.remove()
    return caught[-1]


def outside(last: str, names: Sequence[str]) -> list[str]:
    """Of `names`, those that neither hold `last` nor lie within it: the outermost ones that can be replaced as a whole."""
    apart = [name for name in names if not last.startswith(f"{name}.") and not name.startswith(f"{last}.") and name != last]
    return [name for name in apart if not any(name.startswith(f"{other}.") for other in apart)]
