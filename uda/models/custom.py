"""A network that was not written for this: found by name, taken apart into stem, trunk and head, and put together again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uda import plugins
from uda.errors import UserError
from uda.models.backbones import Backbone, Classifier
from uda.models.heads import MapHead, as_head, head_name
from uda.models.layers import Normalize, revert_domain_batch_norm
from uda.models.published import LIBRARIES
from uda.models.watch import called_with, outside, watch
from uda.runtime import evaluating


def is_own(name: str) -> bool:
    """Whether a backbone is a user's factory: ``pkg.module:factory`` or ``nets.py:factory``."""
    return ":" in name and not name.startswith(LIBRARIES)


def load_network(name: str) -> nn.Module:
    """Calls the factory that ``PACKAGE.MODULE:FACTORY`` or ``FILE.py:FACTORY`` names, without arguments.

    Raises:
        UserError: where there is no such factory, or it does not return a network.
    """
    factory = plugins.load(name)
    with plugins.own_code(f"{name}(), which is called without arguments, failed"):
        network = factory()
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

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        raise _Reached(self.module(*inputs, **named))


class _Slot(nn.Module):
    """Stands in for a module: what it is called with is kept, and what it was given to hold is returned."""

    held: Tensor | None = None
    seen: Tensor | None = None

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        self.seen = inputs[0]
        assert self.held is not None
        return self.held


class _Zeros(nn.Module):
    """Stands in for a module: zeros of the shape that it returned for two images, and for the more or fewer that come."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        first: Tensor = inputs[0]
        return first.new_zeros(first.shape[0] * self.shape[0] // 2, *self.shape[1:])


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

    The network's own `forward` runs as it was written, on an empty image; modules of the stem return zeros, and where `last`
    stood, the hidden tensor comes in.

    Args:
        network: the whole network.
        last, head: dotted names of modules.
        before: the stem's other modules, with the shapes of what they return for two images.
        shape: (C, H, W) of images.
        outputs: the shape of what the head returns for one image.
        pooled: whether features are averaged over the map that the head reads.
    """

    def __init__(
        self,
        network: nn.Module,
        last: str,
        before: Mapping[str, Sequence[int]],
        head: str,
        shape: tuple[int, int, int],
        outputs: Sequence[int],
        pooled: bool,
    ) -> None:
        super().__init__()
        self.network, self.shape, self.last, self.head = copy.deepcopy(network), shape, last, head
        self.outputs, self.pooled = tuple(outputs), pooled
        for name, returned in before.items():
            self.network.set_submodule(name, _Zeros(returned))
        self.network.set_submodule(last, _Slot())
        self.network.set_submodule(head, _Slot())

    def forward(self, hidden: Tensor) -> Tensor:
        entry, exit_ = (self.network.get_submodule(name) for name in (self.last, self.head))
        assert isinstance(entry, _Slot)
        assert isinstance(exit_, _Slot)
        count = hidden.shape[0]  # not len(), which would fix the batch size of an exported program
        entry.held, exit_.held = hidden, hidden.new_zeros(count, *self.outputs)
        try:
            self.network(hidden.new_zeros(count, *self.shape))
            features = exit_.seen
        finally:
            entry.held = exit_.held = entry.seen = exit_.seen = None
        assert isinstance(features, Tensor)
        return features.mean((2, 3)) if self.pooled else features.flatten(1)


def split_network(
    network: nn.Module, channels: int, size: int, classes: int, split: str | None = None, normalize: Normalize | None = None
) -> Classifier:
    """Takes a classifier apart: stem | trunk | head. Computes the same as before, and is checked to.

    The head is the linear layer that is called last and has an output for each class; what a network does after it (a softmax,
    say) is left out. A 1x1 convolution whose maps are averaged is one too: features are then the averaged map, or the whole map
    where a ReLU stands between (`MapHead`). The stem ends with the module `split`; left out, it is the module that reads the
    image: the outermost one with less than a fifth of all parameters.

    Args:
        network: images (N, C, S, S), as its own preprocessing makes them, to (N, K).
        channels, size, classes: what it is going to be used for.
        split: dotted name of the stem's last module, e.g. ``"layer1"``.
        normalize: the network's own preprocessing, from images in -1..1.

    Raises:
        UserError: where the network cannot take such images, has no such head or module, or cannot be taken apart there.
    """
    normalize = normalize or Normalize((0.5,) * channels, (0.5,) * channels)
    images = normalize(_some_images(channels, size))
    network = network.cpu()
    with evaluating(network):
        seen = watch(network, images)
        name = head_name(network, images, seen, classes)
        read, expected = called_with(network, network.get_submodule(name), images)
        head = as_head(network.get_submodule(name), read, expected, seen.output)
        pooled = read.dim() == 4 and not isinstance(head, MapHead)
        returning = [reader for reader in seen.readers if reader in seen.shapes]  # a tensor, and not a tuple
        last = _split_point(network, split, returning, seen.order)
        after = outside(last, seen.order[seen.order.index(last) + 1 :])
        stem = copy.deepcopy(network.get_submodule(last)) if last in seen.readers else Stem(network, last, after)
        before = seen.replaceable_before(last, network)
        trunk = Trunk(network, last, before, name, (channels, size, size), expected.shape[1:], pooled)
        apart = not isinstance(stem, Stem) or _share_out(stem, trunk, images)
        parts = f"stem up to {last}, head {name}, images 0..1 minus {_plain(normalize.mean)} by {_plain(normalize.std)}"
        features = read.flatten(1).shape[1] if isinstance(head, MapHead) else head.in_features
        whole = Classifier(Backbone(nn.Sequential(normalize, stem), trunk, features), head, parts)
        try:
            logits = seen.output if expected.dim() == 4 else expected
            same = apart and torch.allclose(head(trunk(stem(images))), logits, atol=1e-4)
        except Exception:  # a forward that runs on zeros can fail in its own way
            same = False
        if not same:
            other = next((other for other in returning if other != last), name)
            raise UserError(
                f"the network cannot be taken apart after {last!r}; name another module with --split, such as {other!r}"
            )
    return whole.train()


def find_head(network: nn.Module, channels: int, size: int, classes: int) -> str:
    """The dotted name of the module that `split_network` takes for the head.

    Raises:
        UserError: where the network cannot take such images, or has no such module.
    """
    images = _some_images(channels, size)
    with evaluating(network):
        return head_name(network, images, watch(network, images), classes)


def _share_out(stem: Stem, trunk: Trunk, images: Tensor) -> bool:
    """Leaves each weight that both halves have a copy of, such as a position embedding, to the one that it has a part in.

    The other keeps the values, which its forward wants, but neither trains nor saves them. False where it has a part in both.
    """
    both = dict(stem.network.named_parameters()).keys() & dict(trunk.network.named_parameters()).keys()
    if not both:
        return True
    of_stem, of_trunk = _weights_of(stem, images), _weights_of(trunk, stem(images))
    if both & of_stem & of_trunk:
        return False
    for name in both:
        owner, _, attribute = name.rpartition(".")
        other = (trunk if name in of_stem else stem).network.get_submodule(owner)
        value = getattr(other, attribute).detach()
        delattr(other, attribute)
        other.register_buffer(attribute, value, persistent=False)
    return True


def _weights_of(part: Stem | Trunk, inputs: Tensor) -> set[str]:
    """Names of the parameters that have a part in the output of a stem or trunk."""
    named = dict(part.network.named_parameters())
    frozen = [parameter for parameter in named.values() if not parameter.requires_grad]
    part.requires_grad_(True)
    try:
        with torch.enable_grad():
            found = torch.autograd.grad(part(inputs).sum(), list(named.values()), allow_unused=True)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    return {name for name, gradient in zip(named, found, strict=True) if gradient is not None}


def _some_images(channels: int, size: int) -> Tensor:
    """Two drawn images in -1..1, always the same."""
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _plain(numbers: Sequence[float]) -> str:
    return "/".join(f"{number:g}" for number in dict.fromkeys(numbers))


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


def whole_state_dict(adapted: nn.Module, source: Classifier) -> dict[str, Tensor] | None:
    """The weights of an adapted classifier under the names that they have in the network that `source` was made from.

    Batch norm gets the target's statistics. None where that network was one of ours, or a method has changed its layers (by
    coordinate channels, say), so that they do not fit it any more.
    """
    if not isinstance(adapted, Classifier) or not isinstance(source.backbone.trunk, Trunk):
        return None

    outputs = source.backbone.trunk.outputs

    def whole(classifier: Classifier) -> dict[str, Tensor]:
        backbone, head = classifier.backbone, f"{source.backbone.trunk.head}."
        last, inner = f"{source.backbone.trunk.last}.", f"{source.backbone.trunk.last}.module."
        stem = {name.removeprefix("1."): value for name, value in backbone.stem.state_dict().items()}  # after Normalize
        if any(isinstance(module, Stem) for module in backbone.stem.modules()):
            stem = {name.removeprefix("network.").replace(inner, last, 1): value for name, value in stem.items()}
        else:
            stem = {last + name: value for name, value in stem.items()}
        rest = {name.removeprefix("network."): value for name, value in backbone.trunk.state_dict().items()}
        top = {head + name: value for name, value in classifier.head.state_dict().items()}
        if len(outputs) == 3:  # the head was a convolution
            top = {name: value[:, :, None, None] if name == f"{head}weight" else value for name, value in top.items()}
        return stem | rest | top

    state, before = whole(revert_domain_batch_norm(copy.deepcopy(adapted))), whole(source)
    same = state.keys() == before.keys() and all(state[name].shape == before[name].shape for name in state)
    return state if same else None
