"""State dicts from elsewhere: which are understood, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.nets import SmallResNet
from uda import UserError
from uda.models.weights import load_body, load_weights, read_state, save_state, save_tensors


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.float().flatten() for value in module.state_dict().values()])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model_state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_the_usual_ways_to_save_are_understood(wrap: Any, tmp_path: Path) -> None:
    network, other = SmallResNet(), SmallResNet()
    torch.save(wrap(network.state_dict()), tmp_path / "net.pt")
    load_weights(tmp_path / "net.pt", other)
    assert torch.equal(weights(network), weights(other))


def test_safetensors_are_understood(tmp_path: Path) -> None:
    network, other = SmallResNet(), SmallResNet()
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    load_weights(tmp_path / "net.safetensors", other)
    assert torch.equal(weights(network), weights(other))


class Trap:
    """Unpickling it would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_a_file_of_words_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import torch\n")
    with pytest.raises(UserError, match=r"train.py is no file of weights; give a state dict"):
        read_state(tmp_path / "train.py")


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1), "trap": Trap(tmp_path / "trace")}, tmp_path / "net.pt")
    with pytest.raises(UserError, match="holds more than tensors, and loading it could execute code"):
        load_weights(tmp_path / "net.pt", SmallResNet())
    assert not (tmp_path / "trace").exists()


def test_a_whole_pickled_module_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(SmallResNet(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"save torch\.save\(net\.state_dict\(\), 'net\.pt'\)"):
        load_weights(tmp_path / "net.pt", SmallResNet())


def test_weights_of_another_network_say_which_names(tmp_path: Path) -> None:
    state = SmallResNet().state_dict()
    state["fc2.weight"] = state.pop("fc.weight")
    state["fc.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(UserError, match="another network") as caught:
        load_weights(tmp_path / "net.pt", SmallResNet())
    said = str(caught.value)
    assert "1 missing (fc.weight)" in said
    assert "1 not in the network (fc2.weight)" in said
    assert "fc.bias is (7,), not (10,)" in said


@pytest.mark.parametrize(("content", "message"), [(b"", "cannot be read"), (b"rubbish", "cannot be read|more than tensors")])
def test_damaged_files_are_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    for name in ("net.pt", "net.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            load_weights(tmp_path / name, SmallResNet())
        assert "\n" not in str(caught.value)


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "net.pt")
    with pytest.raises(UserError, match="is not a state dict"):
        load_weights(tmp_path / "net.pt", SmallResNet())


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.", "module.backbone."])
def test_a_body_loads_under_another_head_whatever_its_names_begin_with(prefix: str) -> None:
    other, network = SmallResNet(), SmallResNet()
    state = {f"{prefix}{name}": value for name, value in other.state_dict().items() if not name.startswith("fc.")}
    state |= {"classifier.weight": torch.zeros(1000, 32), "classifier.bias": torch.zeros(1000)}
    head = weights(network.fc)
    said = load_body(state, network, "fc", "body.pt")
    assert said == "42 tensors of body.pt; the head (classifier.weight, classifier.bias of 1000 classes) is made anew for 10"
    assert torch.equal(weights(network.layer2), weights(other.layer2))
    assert torch.equal(weights(network.fc), head)


def test_a_head_of_the_right_size_is_not_taken_either() -> None:
    """Its classes are others."""
    other, network = SmallResNet(), SmallResNet()
    head = weights(network.fc)
    assert load_body(other.state_dict(), network, "fc", "body.pt").endswith(
        "the head (fc.weight, fc.bias of 10 classes) is made anew for 10"
    )
    assert torch.equal(weights(network.fc), head)


def test_counts_of_batches_may_be_missing() -> None:
    state = {name: value for name, value in SmallResNet().state_dict().items() if not name.endswith("num_batches_tracked")}
    assert load_body(state, SmallResNet(), "fc", "body.pt").startswith("35 tensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.conv1.weight"), r"1 missing \(layer2\.conv1\.weight\)"),
        (lambda state: state.update({"layer2.conv3.weight": torch.zeros(1)}), r"1 not in the network \(layer2\.conv3\.weight\)"),
        (lambda state: state.update({"bn1.weight": torch.zeros(9)}), r"1 of another shape \(bn1\.weight is \(9,\), not \(8,\)\)"),
    ],
)
def test_a_body_of_another_network_is_refused_and_nothing_is_loaded(change: Any, message: str) -> None:
    state, network = SmallResNet().state_dict(), SmallResNet()
    before = weights(network)
    change(state)
    with pytest.raises(UserError, match=rf"body\.pt is of another network: {message}"):
        load_body(state, network, "fc", "body.pt")
    assert torch.equal(weights(network), before)


@pytest.mark.parametrize("save", [save_state, save_tensors])
def test_what_cannot_be_written_is_an_error_of_the_system(
    save: Callable[[dict[str, torch.Tensor], Path], None], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="not written to its end"):
        save({"weight": torch.zeros(3)}, tmp_path / "nowhere" / "file")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float8_e4m3fn])
def test_weights_of_another_kind_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    torch.save({name: value.to(dtype) for name, value in network.state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"is torch\.|something else than finite numbers"):
        load_weights(tmp_path / "w.pt", network)
