"""A few steps of every method on small images, by one process or by several: what `tests/test_ranks.py` compares.

Run as ``python -m tests.two_processes FILE STEPS [double]`` with torchrun's variables set, it writes the weights to FILE.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tests.conftest import CHECKOUT, domain, small_classifier
from uda import ranks
from uda.collectives import average_gradients, gather
from uda.data.augment import Augment
from uda.data.batches import Batches
from uda.data.domain import LabelledDomain
from uda.evaluation.evaluator import on_labelled
from uda.methods import METHODS
from uda.methods.base import Method
from uda.players import Players
from uda.runtime import Runtime

BATCH, STEPS = 8, 5
SMALL: dict[str, dict[str, Any]] = {
    "unit_translation": {"discriminator_depth": 3, "width": 8},
    # An untrained classifier is sure of nothing: terms of confident images would be 0.
    "mean_teacher": {"confidence": 0.0},
    "supcon": {"confidence": 0.0},
    "fixmatch": {"confidence": 0.01},
    "shot": {"confidence": 0.0, "refresh": 2},
    "latent_mapping": {"confidence": 0.0, "vae_share": 0.2},
    "unit": {"confidence": 0.0, "statistics_weight": 0.4, "source_weak": True},
    "drit": {"confidence": 0.0, "source_weak": True, "drawn_batch": 4, "discriminator_scales": 2, "mode_seeking_weight": 1.0},
}
TRAINED = [name for name in METHODS if name != "adabn"]
"""adabn trains nothing"""


def start(rank: int, port: int, *words: str, caches: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """One of two processes of a run, as torchrun starts it; each may have a cache of its own, as on machines of their own."""
    told = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if caches is not None:
        told |= {"XDG_CACHE_HOME": str(caches / str(rank)), "UDA_CACHE_GIB": "1"}
    variables = {**os.environ, **told, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen([sys.executable, *words], env=variables, text=True, cwd=CHECKOUT, **options)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


@contextmanager
def noise_alike() -> Iterator[None]:
    """While it is open, torch draws one row of noise for all images, so that noise does not depend on who reads an image.

    Another one at each call: of two draws that were the same, a method may divide by how far they are apart.
    """
    calls = itertools.count()

    def alike(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def drawn(*size: Any, generator: torch.Generator | None = None, **options: Any) -> Tensor:
            if generator is not None:
                return draw(*size, generator=generator, **options)
            shape = torch.Size(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
            return draw(1, *shape[1:], generator=torch.Generator().manual_seed(next(calls)), **options).expand(shape).clone()

        return drawn

    randn = alike(torch.randn)
    with mock.patch.multiple(torch, randn=randn, rand=alike(torch.rand), randn_like=lambda like, **_: randn(like.shape).to(like)):
        yield


@contextmanager
def in_double() -> Iterator[None]:
    """While it is open, numbers are of 64 bits.

    In 32, Adam moves a weight whose gradient is nothing but rounding, such as a bias before instance norm, as far as any other.
    """
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def weights_after(name: str, steps: int = STEPS, double: bool = False) -> dict[str, Tensor]:
    """All that a method holds after some steps on batches of `BATCH` images, of all processes together."""
    source, target = domain("source", 48, 0), domain("target", 48, 1)
    target = LabelledDomain(target.name, 255 - target.images, target.classes, target.note, target.labels)
    with in_double() if double else nullcontext():
        return _weights_after(METHODS[name], SMALL.get(name, {}), steps, source, target)


def _weights_after(
    kind: type[Method], settings: dict[str, Any], steps: int, source: LabelledDomain, target: LabelledDomain
) -> dict[str, Tensor]:
    runtime = Runtime(torch.device("cpu"), "fp32", True, "test")
    torch.manual_seed(0)
    method = kind(kind.Settings(**settings), small_classifier() if kind.classifies else None, (3, 16, 16), steps, runtime)
    players = Players(runtime, steps)
    with noise_alike():
        method.setup(target.without_labels(), players)
        labelled = target if kind.reads_target_labels else source if kind.reads_source else None
        batches = Batches(labelled, target.without_labels(), BATCH, BATCH, Augment(), Augment(), runtime)
        for _ in range(steps):
            method.step(batches.next())
    return {key: value.clone() for key, value in method.state_dict().items()}


def gradient_of_gathered() -> Tensor:
    """Of the square of the sum over the batch of w x, at w = 1; each process has its part of x = 0..3."""
    weight = torch.ones((), requires_grad=True)
    whole = gather(weight * ranks.own(torch.arange(4.0)))
    (gradient,) = torch.autograd.grad(whole.sum().square(), weight)
    return gradient


def evaluated(count: int) -> tuple[Tensor, Tensor]:
    """Logits and labels of so many images, which all processes share out, by a classifier that is the same in all."""
    torch.manual_seed(0)
    runtime = Runtime(torch.device("cpu"), "fp32", True, "test")
    return on_labelled(small_classifier(), domain("d", count, 0), runtime)


def gradient_of_some() -> Tensor:
    """Of a weight that the second process's loss alone reads, beside one that no loss reads: the mean of all processes'."""
    read, unread = (nn.Parameter(torch.ones(())) for _ in range(2))
    if not ranks.first():
        (3 * read).backward()
    average_gradients([read, unread])
    assert unread.grad is None
    assert read.grad is not None
    return read.grad


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.join()
    found: dict[str, Any] = {name: weights_after(name, int(sys.argv[2]), "double" in sys.argv) for name in TRAINED}
    found["gathered"] = {"rows": gather(ranks.own(torch.arange(6))), "gradient": gradient_of_gathered()}
    found["agreed"] = {"rank": torch.tensor(ranks.agreed(ranks.rank() + 7))}
    found["anywhere"] = {"second": torch.tensor(ranks.anywhere(ranks.rank() == 1))}
    found["evaluated"] = dict(zip(("logits", "labels"), evaluated(7), strict=True))
    found["missing"] = {"gradient": gradient_of_some()}
    found["of_others"] = {"ranks": torch.tensor(ranks.of_others(ranks.rank()))}
    if ranks.first():
        torch.save(found, Path(sys.argv[1]))
