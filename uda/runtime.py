"""Device, precision, memory format, threads and seeds: chosen once, printed once."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uda import ranks
from uda.errors import UserError

PRECISIONS = ("auto", "bf16", "fp32")
_SEEDED = threading.RLock()
APART = 1_000_003  # between the seeds of two processes of one run: more than anyone's seeds are


@dataclass(frozen=True)
class Runtime:
    """Where and how numbers are computed.

    Attributes:
        device: the torch device that holds images and networks.
        precision: ``"bf16"`` (autocast; parameters stay float32) or ``"fp32"``.
        channels_last: whether images and convolution weights lie channels-last in memory.
        why: one line that says how the choice was made.
    """

    device: torch.device
    precision: str
    channels_last: bool
    why: str

    @property
    def fused(self) -> bool:
        """Whether optimisers update all weights in one kernel."""
        return self.device.type != "mps"

    def autocast(self) -> AbstractContextManager[object]:
        """A context for one forward pass.

        Open a new one for each: weights cast to bf16 are kept until it closes, so an optimiser step inside would not be seen.
        """
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def computing(self) -> Iterator[None]:
        """On a CPU, takes denormal numbers for 0 while it is open: they slow small gradients down many times over.

        The mode is each thread's own, and torch's worker threads take it for good from the thread whose work starts them. So
        open it before anything is computed, images included; only this thread's mode is put back.
        """
        # torch sets this mode but does not tell it; the product is a denormal number, and 0 where the mode is on.
        before = float(torch.tensor(2e-38) * torch.tensor(1e-3)) == 0
        torch.set_flush_denormal(before or self.device.type == "cpu")
        try:
            yield
        finally:
            torch.set_flush_denormal(before)

    def place(self, module: nn.Module) -> nn.Module:
        """Moves a module here, in the chosen memory format; returns it."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last)
        return module

    def arrange(self, images: Tensor) -> Tensor:
        """Gives a batch of images (N, C, H, W) the chosen memory format; features (N, D) have but one."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last and images.ndim == 4 else images

    def __str__(self) -> str:
        layout = ", channels last" if self.channels_last else ""
        return f"{self.device}, {self.precision}{layout} ({self.why})"


def choose_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Picks the device (CUDA, then MPS, then CPU) and, by a probe of under a second, whether bf16 pays there.

    Of a run's several processes on a machine, each takes a GPU of its own.

    Raises:
        UserError: for a device that does not exist here, or an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError.unknown("precision", precision, PRECISIONS)
    chosen = _device(device)
    if precision == "fp32":
        return Runtime(chosen, "fp32", chosen.type != "mps", "asked for")
    if precision == "bf16":
        return Runtime(chosen, "bf16", True, "asked for")
    if chosen.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return Runtime(chosen, "bf16", True, torch.cuda.get_device_name(chosen))
        return Runtime(chosen, "fp32", True, f"{torch.cuda.get_device_name(chosen)} has no bf16")
    if chosen.type == "mps":
        return Runtime(chosen, "fp32", False, "Apple GPU")
    ranks.join()
    ratio = ranks.agreed(_bf16_speed_up(chosen))
    if ratio > 1.1:
        return Runtime(chosen, "bf16", True, f"{ratio:.1f}x the speed of fp32 in a probe")
    return Runtime(chosen, "fp32", True, f"bf16 ran at {ratio:.1f}x its speed in a probe")


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            mps = torch.backends.mps.is_available() and not ranks.several()  # which processes cannot exchange by
            return torch.device("mps" if mps else "cpu")
    try:
        chosen = torch.device(name)
        if chosen.type == "cuda" and ranks.several():
            chosen = torch.device("cuda", ranks.local_rank())
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        have = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        if name == "cuda" and ranks.several() and torch.cuda.is_available():
            raise UserError(
                f"this machine has {torch.cuda.device_count()} GPUs, and each process of a run takes one; start as many "
                "(--nproc-per-node), or give --device cpu"
            ) from None
        raise UserError(f"device {name!r} is not available here; choose one of: auto, {', '.join(have)}") from None
    return chosen


def _bf16_speed_up(device: torch.device) -> float:
    """How many times faster two convolutions, forward and backward, run in bf16 than in fp32.

    On one thread, in turns, and the best time of each counts: so other work on the machine does not decide. Leaves no trace
    in the random state.
    """
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Conv2d(32, 64, 5, 2, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1))
        images = torch.randn(64, 32, 32, 32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Where there are no such instructions bf16 takes ten times as long: a few images tell, and all would take seconds.
        ratio = _fastest_ratio(net, images[:8], device, rounds=2)
        return ratio if ratio < 0.5 else _fastest_ratio(net, images, device, rounds=6)
    finally:
        torch.set_num_threads(threads)


def _fastest_ratio(net: nn.Module, images: Tensor, device: torch.device, rounds: int) -> float:
    best = {"bf16": float("inf"), "fp32": float("inf")}
    for _ in range(rounds):  # the first round also pays for compiling kernels; the minimum leaves it out
        for precision in best:
            runtime = Runtime(device, precision, True, "probe")
            runtime.place(net)
            begin = time.perf_counter()
            with runtime.autocast():
                out = net(runtime.arrange(images))
            out.float().mean().backward()
            best[precision] = min(best[precision], time.perf_counter() - begin)
    return best["fp32"] / best["bf16"]


@contextmanager
def evaluating(module: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Evaluation mode, without gradients unless they are wanted; each submodule's own train/eval mode is put back after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def own_generator() -> torch.Generator:
    """A generator whose seed is drawn from torch's global one, which it leaves alone afterwards.

    What it draws is the same however far ahead it is drawn, and in all of a run's processes whose global ones are alike now.
    """
    return torch.Generator().manual_seed(int(torch.randint(2**63 - 1, ())))


def part_ways() -> None:
    """Of a run's processes, each but the first draws other numbers from now on: noise and augmentations of its own."""
    if not ranks.first():
        seed_everything((torch.initial_seed() + ranks.rank() * APART) % 2**63)


@contextmanager
def scoped_seed(seed: int) -> Iterator[None]:
    """Seeds Python, NumPy and torch, and puts their random states back at the end.

    These are the whole process's: another thread that wants its own waits until then.
    """
    with _SEEDED:
        state = random_state()
        seed_everything(seed)
        try:
            yield
        finally:
            restore_random_state(state)


@contextmanager
def training() -> Iterator[None]:
    """Gradients and float32, whatever whoever calls from Python has set: it may be within ``torch.no_grad()``."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, of types that a checkpoint can hold."""
    name, keys, *rest = np.random.get_state(legacy=True)
    numpy_state = (name, torch.from_numpy(np.asarray(keys, np.int64)), *rest)
    state: dict[str, Any] = {"python": random.getstate(), "numpy": numpy_state, "cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """What `random_state` returned."""
    name, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def cores() -> int:
    """How many cores this process may run on: fewer than the machine has where it is bound to some (taskset, cpusets, Slurm)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory(device: torch.device | None = None) -> int | None:
    """How many bytes this process may still take, of a GPU's memory, or of the machine's and its container's.

    None where that is not told.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    told = re.search(r"MemAvailable: +(\d+) kB", _text("/proc/meminfo"))
    limit, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    free = [1024 * int(told[1])] if told else []
    if limit.isdecimal() and used.isdecimal():  # files that were read count as used, until somebody needs the room
        given_up = re.search(r"^inactive_file (\d+)", _text("/sys/fs/cgroup/memory.stat"), re.MULTILINE)
        free.append(int(limit) - int(used) + (int(given_up[1]) if given_up else 0))
    return min(free, default=None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def machine() -> str:
    """One line for the run folder: processor, cores, operating system."""
    import platform

    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"
