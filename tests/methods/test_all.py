"""What holds of every method, on drawn digits."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import small_classifier
from tests.methods.reference import SHARES, made
from tests.models.nets import SmallResNet
from uda.data.augment import Augment, to_float
from uda.data.batches import Batches
from uda.data.domain import Pair
from uda.methods import METHODS, Method
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.runtime import Runtime

STEPS = 4
SMALL: dict[str, dict[str, Any]] = {
    "unit": {"width": 8, "code_dim": 16},
    "shot": {"refresh": 2},
    "dirt_t": {"vada_share": 0.5},
    "cdan": {"largest_product": 64},
    "drit": {"width": 8, "draws": 2, "translator_share": 0.5},
    "cogan": {"width": 4},
    "latent_mapping": {"width": 4, "hidden": 16, "vae_share": 0.5, "confidence": 0.0},
    "im": {"attraction_weight": 0.5},
    "unit_translation": {"width": 4, "blocks": 1, "discriminator_depth": 2},
}
TRAINED = [name for name in METHODS if name != "adabn"]


def classifier(batch_norm: bool = False) -> Classifier:
    torch.manual_seed(0)
    return split_network(SmallResNet(3), 3, 16, 10) if batch_norm else small_classifier()


def make(name: str, runtime: Runtime, pair: Pair, start: Classifier | None = None) -> Any:
    start = start or classifier(batch_norm=name == "adabn")
    return made(METHODS[name], runtime, STEPS, start, pair.target.without_labels(), **SMALL.get(name, {}))


def batches(name: str, pair: Pair, runtime: Runtime) -> Batches:
    source = pair.source if METHODS[name].reads_source else None
    return Batches(source, pair.target.without_labels(), 8, 12, Augment(rotate=10), Augment(erase=0.3), runtime)


def images(pair: Pair) -> Tensor:
    assert isinstance(pair.target.images, Tensor)
    return to_float(pair.target.images[:8])


def read_back(state: dict[str, Any]) -> Any:
    """A state as it comes out of a checkpoint file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("name", TRAINED)
def test_losses_are_finite_and_parameters_move(name: str, batch_norm: bool, small_pair: Pair, fp32: Runtime) -> None:
    method: Method = make(name, fp32, small_pair, classifier(batch_norm))
    before = copy.deepcopy(method.state_dict())
    drawn = batches(name, small_pair, fp32)
    for _ in range(STEPS):
        values = method.step(drawn.next())
        assert all(math.isfinite(float(value)) and not value.requires_grad for value in values.values()), values
    used = method.classifier() if method.classifies else method.get_submodule("translator")
    ids = {id(parameter) for parameter in used.parameters()}
    assert any(id(now) in ids and not torch.equal(now, before[key]) for key, now in method.named_parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_method_goes_on_to_the_same_weights(name: str, small_pair: Pair, fp32: Runtime) -> None:
    """Saved after three steps: past SHOT's refresh, in DIRT-T's, DRIT's and latent mapping's second half."""
    first, drawn = make(name, fp32, small_pair), batches(name, small_pair, fp32)
    for _ in range(3):
        first.step(drawn.next())
    saved, batch = read_back({"method": first.state_dict(), "players": first.players.state_dict()}), drawn.next()
    second = make(name, fp32, small_pair)
    second.load_state_dict(saved["method"])
    second.players.load_state_dict(saved["players"])
    for method in (first, second):
        torch.manual_seed(5)
        method.step(batch)
    assert second.done == STEPS
    for (key, value), other in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(value, other), key


@pytest.mark.parametrize("name", METHODS)
def test_the_given_classifier_is_left_as_found(name: str, small_pair: Pair, fp32: Runtime) -> None:
    start = classifier(batch_norm=True)
    state, modes = copy.deepcopy(start.state_dict()), [module.training for module in start.modules()]
    method = make(name, fp32, small_pair, start)
    if name not in ("source_only", "target_only"):  # they train the classifier itself
        method.step(batches(name, small_pair, fp32).next())
    assert all(torch.equal(value, state[key]) for key, value in start.state_dict().items())
    assert modes == [module.training for module in start.modules()]


@pytest.mark.parametrize("name", METHODS)
def test_setting_up_draws_no_random_number(name: str, small_pair: Pair, fp32: Runtime) -> None:
    method = make(name, fp32, small_pair, classifier(batch_norm=True))
    state = torch.get_rng_state()
    method.setup(small_pair.target.without_labels(), type(method.players)(fp32, STEPS))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", METHODS)
def test_the_only_labels_in_a_batch_are_the_sources(name: str, small_pair: Pair, fp32: Runtime) -> None:
    batch = batches(name, small_pair, fp32).next()
    held = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    images = {"source", "source_weak", "target", "target_weak"}
    assert held.keys() | {"source_weak"} == images | {"source_labels", "source_positions", "target_positions"}
    assert vars(batch).keys() - held.keys() - {"source_weak"} == {"augment", "augment_source", "small"}
    assert batch.small is None, "no body is frozen here"
    for augment in (batch.augment, batch.augment_source):
        assert all(isinstance(value, float | int) for value in vars(augment).values())
    whole_numbers = {name: len(value) for name, value in held.items() if not value.is_floating_point()}
    count = len(batch.source)
    assert whole_numbers == {"source_labels": count, "source_positions": count, "target_positions": len(batch.target)}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if not method.reads_source])
def test_source_free_methods_step_without_the_source(name: str, small_pair: Pair, fp32: Runtime) -> None:
    batch = batches(name, small_pair, fp32).next()
    assert len(batch.source) == len(batch.source_labels) == 0
    make(name, fp32, small_pair, classifier(batch_norm=True)).step(batch)


def test_methods_are_named_after_their_files_and_name_their_settings() -> None:
    assert METHODS.keys() == {method.Settings().name for method in METHODS.values()}
    assert [name for name, method in METHODS.items() if not method.classifies] == ["unit_translation"]


@pytest.mark.parametrize("name", ["unit", "shot", "im", "supcon", "drit", "latent_mapping"])
def test_classes_are_expected_as_the_target_is_said_to_have_them(name: str, small_pair: Pair, fp32: Runtime) -> None:
    """The term of the mean prediction is that of even shares where these are given, and no other."""
    drawn, found = batches(name, small_pair, fp32).next(), []
    for shares in (None, torch.full((10,), 0.1), SHARES):
        method: Method = make(name, fp32, small_pair)
        method.settings = method.settings.model_copy(update={"information_weight": 1.0})  # which some leave at 0
        method.target_shares, method.players.done = shares, STEPS - 1
        torch.manual_seed(5)
        found.append(float(method.step(drawn)["target_marginal_entropy"]))
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert abs(found[0] - found[2]) > 0.01
