"""State dicts from disk, into networks. Nothing that is read is executed."""

from __future__ import annotations

import errno
import itertools
import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from uda.errors import UserError
from uda.paths import regular


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as safetensors; those that lie in the same memory are written under each of their names.

    Raises:
        OSError: where that fails, as on a full disk.
    """
    try:
        save_file({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        raise _unwritten(path) from error


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Writes values as `torch.save` does.

    Raises:
        OSError: where that fails, as on a full disk.
    """
    try:
        torch.save(state, path)
    except RuntimeError as error:
        raise _unwritten(path) from error


def _unwritten(path: Path) -> OSError:
    """The writers in C++ and Rust have errors of their own, which say less."""
    return OSError(errno.EIO, "it was not written to its end", str(path))


def load_weights(path: Path, module: nn.Module) -> None:
    """Loads a state dict into a module: .safetensors, or what `torch.save(net.state_dict(), path)` wrote.

    A checkpoint that holds the state dict under ``state_dict``, ``model_state_dict`` or ``model`` is understood, and so is one
    saved from within DataParallel. Nothing in the file is executed. A tensor of the module that has no rows yet takes as many as
    the file has of it.

    Raises:
        UserError: where there is no such file, it is damaged, it holds more than tensors, or it is another network's.
    """
    state = read_state(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    own = module.state_dict()
    _check_fit(state, own, own, state, str(path))
    module.load_state_dict(state)


PREFIXES = ["".join(parts) for parts in itertools.product(("", "module.", "model.", "backbone."), repeat=2)]
"""what training programs put before the names of a network that they hold"""


def load_body(state: dict[str, Tensor], network: nn.Module, head: str, origin: str) -> str:
    """Loads a pretrained body's weights, which come without a head or with another one, into all of a network but its head.

    Names may begin with one or two of ``module.``, ``model.`` and ``backbone.``.

    Args:
        state: the weights, by name.
        network: keeps its head as it is.
        head: dotted name of the head's module in the network.
        origin: where the weights come from, for messages.

    Returns:
        What was loaded, and which weights are a head's, in words.

    Raises:
        UserError: where something of the body is missing, has another shape, or has no place in the network.
    """
    own = network.state_dict()
    prefix = max(PREFIXES, key=lambda prefix: sum(name.removeprefix(prefix) in own for name in state))
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    scope, body = head, [name for name in own if not name.startswith(f"{head}.")]
    while "." in scope and not any(name.startswith(f"{scope.rpartition('.')[0]}.") for name in body):
        scope = scope.rpartition(".")[0]  # all of it is head, such as a Sequential of dropout and a linear layer
    # Files from before batch norm counted its batches lack the counts, which nothing is computed from.
    needed = [name for name in body if name in state or not name.endswith("num_batches_tracked")]
    # A deeper network's file has more of what the body has; another head has a name of its own.
    branches = {name.split(".")[0] for name in body}
    heads = [name for name in state if name.startswith(f"{scope}.") or name.split(".")[0] not in branches]
    _check_fit(state, own, needed, state.keys() - set(heads), origin)
    for name in needed:
        own[name].copy_(state[name])  # of a state dict, and so without gradients
    classes = max(len(parameter) for parameter in network.get_submodule(head).parameters())
    loaded = f"{len(needed)} tensors of {origin}"
    if not heads:
        return f"{loaded}, which has no head; one is made for {classes} classes"
    named = ", ".join(heads[:3]) + (", ..." if len(heads) > 3 else "")
    outputs = state[heads[-1]].shape[:1]
    return f"{loaded}; the head ({named}{f' of {outputs[0]} classes' if outputs else ''}) is made anew for {classes}"


def _check_fit(state: dict[str, Tensor], own: dict[str, Tensor], needed: Iterable[str], used: Iterable[str], origin: str) -> None:
    """Whether a state dict's names that are used are those that a network needs, and all its tensors have the right shapes."""
    missing, extra = sorted(set(needed) - state.keys()), sorted(set(used) - own.keys())
    shared = sorted(set(needed) & state.keys())
    shapes = [name for name in shared if not _fits(own[name], state[name])]
    if missing or extra or shapes:
        other = [f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}" for name in shapes]
        parts = [_few("missing", missing), _few("not in the network", extra), _few("of another shape", other)]
        hint = (
            "give weights that were saved from the network that --model names, or else the recipe (photographs: --recipe "
            "photos), as torch.save(net.state_dict(), FILE) does"
        )
        if not missing and not extra:
            hint += "; where its head alone is another one, give it as --backbone-weights"
        raise UserError(f"{origin} is of another network: {'; '.join(part for part in parts if part)}; {hint}")
    kinds = [name for name in shared if own[name].is_floating_point() != state[name].is_floating_point()]
    if kinds:
        raise UserError(
            f"{origin}: {kinds[0]} is {state[kinds[0]].dtype}, and not {own[kinds[0]].dtype}; give weights as trained"
        )
    odd = [name for name in shared if state[name].dtype.itemsize == 1 and state[name].is_floating_point()]
    odd += [name for name in shared if state[name].layout != torch.strided or state[name].is_meta or state[name].is_complex()]
    odd += [name for name in shared if name not in odd and not state[name].isfinite().all()]
    if odd:
        raise UserError(f"{origin}: {odd[0]} holds something else than finite numbers; give weights from before training failed")


def _fits(own: Tensor, saved: Tensor) -> bool:
    without_rows = own.ndim > 0 and len(own) == 0
    return own.shape == saved.shape or (without_rows and own.shape[1:] == saved.shape[1:])


def _few(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from disk, by name; see `load_weights` for what is understood. Nothing in the file is executed.

    Raises:
        UserError: where there is no such file, it is damaged, or it holds more than tensors.
    """
    try:
        regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd with the tensors is said where they are put to use
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}; give the path of a state dict (.pt) or a .safetensors file") from None
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            if file.read(1) != b"\x80" and not zipfile.is_zipfile(path):  # as pickles, and what torch saves, begin
                raise UserError(f"{path} is no file of weights; give a state dict (.pt) or a .safetensors file") from error
        raise UserError(
            f"{path} holds more than tensors, and loading it could execute code; save torch.save(net.state_dict(), {path.name!r})"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a state dict ({reason})") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} is not a state dict; save one with torch.save(net.state_dict(), {path.name!r})")
    return dict(state)
