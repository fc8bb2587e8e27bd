"""A network that was not written for this: found by name, taken apart into stem, trunk and head, and put together again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uda import plugins
from uda.errors import UserError
from uda.models.backbones import Backbone, Classifier
from uda.models.layers import Normalize, revert_domain_batch_norm
from uda.runtime import evaluating


def is_own(name: str) -> bool:
    """Whether a backbone is a user's factory: ``pkg.module:factory`` or ``nets.py:factory``."""
    return ":" in name and not name.startswith("timm:")


def load_network(name: str) -> nn.Module:
    """Calls the factory that ``PACKAGE.MODULE:FACTORY`` or ``FILE.py:FACTORY`` names, without arguments.

    Raises:
        UserError: where there is no such factory, or it does not return a network.
    """
    factory = plugins.load(name)
    try:
        network = factory()
    except Exception as error:
        raise UserError(f"{name}() failed ({type(error).__name__}: {error}); it is called without arguments") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{name}() returned {type(network).__name__}; it must return a torch.nn.Module")
    return network


class _Reached(Exception):
    """Ends a forward pass at the split point; carries what the last module of the stem returned."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class _Last(nn.Module):
    """The last module of a stem."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Tensor:
        raise _Reached(self.module(*inputs))


class _Slot(nn.Module):
    """Stands in for a module: what it is called with is kept, and what it was given to hold is returned."""

    held: Tensor | None = None
    seen: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        self.seen = inputs[0]
        assert self.held is not None
        return self.held


class Stem(nn.Module):
    """A network up to and including its module `last`: images (N, C, H, W) to what that module returns.

    Only where other modules come before it: a module that reads the image itself is a stem as it is.
    """

    def __init__(self, network: nn.Module, last: str, after: Sequence[str]) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for name in after:
            self.network.set_submodule(name, nn.Identity())
        self.network.set_submodule(last, _Last(self.network.get_submodule(last)))

    def forward(self, images: Tensor) -> Tensor:
        try:
            self.network(images)
        except _Reached as end:
            return end.hidden
        raise RuntimeError("the split point was not reached")


class Trunk(nn.Module):
    """A network after its module `last`, up to the input of its module `head`: hidden (N, ...) to features (N, D).

    The network's own `forward` runs as it was written, on an empty image; modules of the stem are replaced by the identity,
    and where `last` stood, the hidden tensor comes in.
    """

    def __init__(self, network: nn.Module, last: str, before: Sequence[str], head: str, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network, self.shape, self.last, self.head = copy.deepcopy(network), shape, last, head
        outputs = self.network.get_submodule(head).out_features
        for name in before:
            self.network.set_submodule(name, nn.Identity())
        self.network.set_submodule(last, _Slot())
        self.network.set_submodule(head, _Slot())
        self.outputs = int(outputs)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        entry, exit_ = (self.network.get_submodule(name) for name in (self.last, self.head))
        assert isinstance(entry, _Slot)
        assert isinstance(exit_, _Slot)
        count = hidden.shape[0]  # not len(), which would fix the batch size of an exported program
        entry.held, exit_.held = hidden, hidden.new_zeros(count, self.outputs)
        try:
            self.network(hidden.new_zeros(count, *self.shape))
            features = exit_.seen
        finally:
            entry.held = exit_.held = entry.seen = exit_.seen = None
        assert isinstance(features, Tensor)
        return features.flatten(1)


def split_network(
    network: nn.Module, channels: int, size: int, classes: int, split: str | None = None, normalize: Normalize | None = None
) -> Classifier:
    """Takes a classifier apart: stem | trunk | head. Computes the same as before, and is checked to.

    The head is the linear layer that is called last and has an output for each class; what a network does after it (a softmax,
    say) is left out. The stem ends with the module `split`; left out, it is the module that reads the image: the outermost one
    with less than a fifth of all parameters.

    Args:
        network: images (N, C, S, S), as its own preprocessing makes them, to (N, K).
        channels, size, classes: what it is going to be used for.
        split: dotted name of the stem's last module, e.g. ``"layer1"``.
        normalize: the network's own preprocessing, from images in -1..1.

    Raises:
        UserError: where the network cannot take such images, has no such head or module, or cannot be taken apart there.
    """
    normalize = normalize or Normalize((0.5,) * channels, (0.5,) * channels)
    images = torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network = network.cpu()
    with evaluating(network):
        output, order, readers = _watch(network, normalize(images))
        linear = [name for name in order if isinstance(network.get_submodule(name), nn.Linear)]
        heads = [name for name in linear if network.get_submodule(name).out_features == classes]
        if not heads or output.shape != (2, classes):
            raise UserError(
                f"the network returns {tuple(output.shape)} for two images, and the source has {classes} classes; "
                "it must end in a linear layer with one output for each class"
            )
        head, last = network.get_submodule(heads[-1]), _split_point(network, split, readers, order)
        before = _outside(last, order[: order.index(last)])
        after = _outside(last, order[order.index(last) + 1 :])
        stem = copy.deepcopy(network.get_submodule(last)) if last in readers else Stem(network, last, after)
        trunk = Trunk(network, last, before, heads[-1], (channels, size, size))
        parts = f"stem up to {last}, head {heads[-1]}, images 0..1 minus {_plain(normalize.mean)} by {_plain(normalize.std)}"
        backbone = Backbone(nn.Sequential(normalize, stem), trunk, head.in_features)  # type: ignore[arg-type]
        whole = Classifier(backbone, copy.deepcopy(head), parts)
        try:
            same = torch.allclose(whole(images), _output_of(network, head, normalize(images)), atol=1e-4)
        except (RuntimeError, AssertionError):
            same = False
        if not same:
            other = next((name for name in readers if name != last), linear[0])
            raise UserError(
                f"the network cannot be taken apart after {last!r}; name another module with --split, such as {other!r}"
            )
    return whole.train()


def _plain(numbers: Sequence[float]) -> str:
    return "/".join(f"{number:g}" for number in dict.fromkeys(numbers))


def _watch(network: nn.Module, images: Tensor) -> tuple[Tensor, list[str], list[str]]:
    """The output, the names of modules in the order of their first call, and of those that are called with the images."""
    order: list[str] = []
    readers: list[str] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if name not in order:
                order.append(name)
            if inputs and inputs[0] is images:
                readers.append(name)

        return hook

    hooks = [module.register_forward_pre_hook(note(name)) for name, module in network.named_modules() if name]
    try:
        output = network(images)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the network cannot take {images.shape[1]}x{images.shape[2]}x{images.shape[3]} images ({reason}); "
            "give the size and channels that it was made for: --size, --set data.channels=1 or 3"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    return output, order, readers


def _split_point(network: nn.Module, asked: str | None, readers: list[str], order: list[str]) -> str:
    if asked is not None:
        if asked not in order:
            raise UserError.unknown("module for --split", asked, order)
        return asked
    total = sum(parameter.numel() for parameter in network.parameters())
    for name in readers or order:
        module = network.get_submodule(name)
        own = sum(parameter.numel() for parameter in module.parameters())
        if 0 < own < total / 5:
            return name
    for name in (*readers[::-1], *order):
        if any(True for _ in network.get_submodule(name).parameters()):
            return name
    raise UserError("the network has no parameters to adapt")


def _outside(last: str, names: Sequence[str]) -> list[str]:
    """Of `names`, those that neither hold `last` nor lie within it: the outermost ones that can be replaced as a whole."""
    apart = [name for name in names if not last.startswith(f"{name}.") and not name.startswith(f"{last}.") and name != last]
    return [name for name in apart if not any(name.startswith(f"{other}.") for other in apart)]


def _output_of(network: nn.Module, module: nn.Module, images: Tensor) -> Tensor:
    caught: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    try:
        network(images)
    finally:
        hook.remove()
    return caught[-1]


def whole_state_dict(adapted: nn.Module, source: Classifier) -> dict[str, Tensor] | None:
    """The weights of an adapted classifier under the names that they have in the network that `source` was made from.

    Batch norm gets the target's statistics. None where that network was one of ours, or a method has changed its layers (by
    coordinate channels, say), so that they do not fit it any more.
    """
    if not isinstance(adapted, Classifier) or not isinstance(source.backbone.trunk, Trunk):
        return None

    def whole(classifier: Classifier) -> dict[str, Tensor]:
        backbone, head = classifier.backbone, f"{source.backbone.trunk.head}."
        last, inner = f"{source.backbone.trunk.last}.", f"{source.backbone.trunk.last}.module."
        stem = {name.removeprefix("1."): value for name, value in backbone.stem.state_dict().items()}  # after Normalize
        if any(isinstance(module, Stem) for module in backbone.stem.modules()):
            stem = {name.removeprefix("network.").replace(inner, last, 1): value for name, value in stem.items()}
        else:
            stem = {last + name: value for name, value in stem.items()}
        rest = {name.removeprefix("network."): value for name, value in backbone.trunk.state_dict().items()}
        return stem | rest | {head + name: value for name, value in classifier.head.state_dict().items()}

    state, before = whole(revert_domain_batch_norm(copy.deepcopy(adapted))), whole(source)
    same = state.keys() == before.keys() and all(state[name].shape == before[name].shape for name in state)
    return state if same else None
