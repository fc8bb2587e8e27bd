"""State dicts from disk, into networks. Nothing that is read is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from uda.errors import UserError


def load_weights(path: Path, module: nn.Module) -> None:
    """Loads a state dict into a module: .safetensors, or what `torch.save(net.state_dict(), path)` wrote.

    A checkpoint that holds the state dict under ``state_dict``, ``model_state_dict`` or ``model`` is understood, and so is one
    saved from within DataParallel. Nothing in the file is executed. A tensor of the module that has no rows yet takes as many as
    the file has of it.

    Raises:
        UserError: where there is no such file, it is damaged, it holds more than tensors, or it is another network's.
    """
    state = _read_state(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in sorted(own.keys() & state.keys()) if not _fits(own[name], state[name])]
    if missing or extra or shapes:
        other = [f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}" for name in shapes]
        parts = [_few("missing", missing), _few("not in the network", extra), _few("of another shape", other)]
        raise UserError(f"{path} is of another network: {'; '.join(part for part in parts if part)}")
    module.load_state_dict(state)


def _fits(own: Tensor, saved: Tensor) -> bool:
    without_rows = own.ndim > 0 and len(own) == 0
    return own.shape == saved.shape or (without_rows and own.shape[1:] == saved.shape[1:])


def _few(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no weights at {path}; give the path of a state dict (.pt) or a .safetensors file") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors, and loading it could execute code; save torch.save(net.state_dict(), {path.name!r})"
        ) from error
    except Exception as error:  # a damaged file makes the readers raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a state dict ({reason})") from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} is not a state dict; save one with torch.save(net.state_dict(), {path.name!r})")
    return dict(state)
