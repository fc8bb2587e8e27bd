import pytest
import torch
from torch import nn

from uda import UserError
from uda.runtime import Runtime, choose_runtime, random_state, restore_random_state, seed_everything


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


def test_random_state_comes_back() -> None:
    seed_everything(3)
    state = random_state()
    first = torch.rand(3)
    restore_random_state(state)
    assert torch.equal(first, torch.rand(3))


def test_images_and_weights_are_arranged_channels_last() -> None:
    runtime = Runtime(torch.device("cpu"), "fp32", True, "")
    assert runtime.arrange(torch.zeros(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)
    weight = runtime.place(nn.Conv2d(3, 8, 3)).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
