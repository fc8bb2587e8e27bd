import io
import os
import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from uda import UserError, runtime
from uda.runtime import Runtime, choose_runtime, random_state, restore_random_state, scoped_seed, seed_everything, training


def test_the_probe_leaves_random_state_and_threads() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    runtime = choose_runtime("cpu")
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
    assert runtime.precision in ("bf16", "fp32")
    assert "probe" in str(runtime)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_given_precision_is_taken(precision: str) -> None:
    assert choose_runtime("cpu", precision).precision == precision


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "gpu"])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(UserError, match="not available here; choose one of: auto, cpu"):
        choose_runtime(device)


def test_autocast_follows_the_precision() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with Runtime(torch.device("cpu"), precision, True, "").autocast():
            assert layer(x).dtype == dtype


def test_an_optimiser_step_between_two_passes_is_seen() -> None:
    """Weights cast to bf16 are cached within one autocast block; each pass must open its own."""
    runtime = Runtime(torch.device("cpu"), "bf16", True, "")
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    with runtime.autocast():
        before = layer(x)
    with torch.no_grad():
        layer.weight.add_(1.0)
    with runtime.autocast():
        assert not torch.equal(before, layer(x))


def draw() -> tuple[float, ...]:
    """One number of each generator, the GPU's included where there is one."""
    on_gpu = (torch.rand(1, device="cuda").item(),) if torch.cuda.is_available() else ()
    return random.random(), np.random.rand(), torch.rand(1).item(), *on_gpu


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.integers(0, 3))
def test_a_seed_holds_within_its_scope_and_leaves_no_trace(outside: int, inside: int, drawn: int) -> None:
    seed_everything(inside)
    seeded = draw()
    seed_everything(outside)
    expected = draw()
    seed_everything(outside)
    with scoped_seed(inside):
        assert draw() == seeded
        for _ in range(drawn):
            draw()
    assert draw() == expected


def test_random_states_come_back_after_an_error() -> None:
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with pytest.raises(ZeroDivisionError), scoped_seed(4):
        _ = draw()[0] / 0
    assert draw() == expected


def test_random_state_comes_back_from_a_file_that_holds_no_code() -> None:
    seed_everything(3)
    file = io.BytesIO()
    torch.save(random_state(), file)
    first = draw()
    file.seek(0)
    restore_random_state(torch.load(file, weights_only=True))
    assert draw() == first


@pytest.fixture
def denormals() -> Iterator[None]:
    """Puts the process back into the state that it begins in."""
    yield
    torch.set_flush_denormal(False)


def flushes() -> bool:
    return float(torch.tensor(1e-38) * 0.01) == 0


@pytest.mark.usefixtures("denormals")
@pytest.mark.parametrize("before", [False, True])
def test_denormals_are_flushed_while_computing_and_then_as_they_were(before: bool) -> None:
    torch.set_flush_denormal(before)
    with Runtime(torch.device("cpu"), "fp32", True, "").computing():
        assert flushes()
    assert flushes() == before


@pytest.mark.usefixtures("denormals")
def test_after_an_error_denormals_are_kept_again() -> None:
    with pytest.raises(ZeroDivisionError), Runtime(torch.device("cpu"), "fp32", True, "").computing():
        1 / 0  # noqa: B018
    assert not flushes()


@pytest.mark.usefixtures("denormals")
def test_one_computation_within_another_leaves_it_as_it_was() -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", True, "")
    with runtime.computing():
        with runtime.computing():
            pass
        assert flushes()
    assert not flushes()


def test_choosing_a_runtime_changes_nothing_of_the_process() -> None:
    assert not flushes()
    choose_runtime("cpu", "fp32")
    assert not flushes()


def test_images_and_weights_are_arranged_channels_last() -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", True, "")
    assert runtime.arrange(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    weight = runtime.place(nn.Conv2d(3, 8, 3)).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("limit", "free"),
    [("max", 4096 * 1024), ("3000000", 3_000_000 - 2_000_000 + 500_000), ("9000000000", 4096 * 1024)],
)
def test_free_memory_is_the_machines_or_the_containers_which_may_give_up_files(
    limit: str, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4096 kB\n",
        "/sys/fs/cgroup/memory.max": f"{limit}\n",
        "/sys/fs/cgroup/memory.current": "2000000\n",
        "/sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 500000\n",
    }
    monkeypatch.setattr(runtime, "_text", told.get)
    assert runtime.free_memory() == free


def test_a_run_trains_whatever_has_been_set_around_it() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), training():
            weight = torch.ones(1, requires_grad=True)
            (2 * weight).sum().backward()
            assert (weight.dtype, float(weight.grad or 0)) == (torch.float32, 2)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_another_thread_waits_for_its_seed() -> None:
    drawn: list[float] = []

    def draw() -> None:
        with scoped_seed(1):
            drawn.append(float(torch.rand(())))

    with scoped_seed(1):
        other = threading.Thread(target=draw)
        other.start()
        drawn.append(float(torch.rand(())))
        assert len(drawn) == 1
    other.join()
    assert drawn[0] == drawn[1]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot bind a process to cores")
def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert runtime.cores() == 1
