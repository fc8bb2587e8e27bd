"""What holds of every method, on drawn digits."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import small_classifier
from tests.models.nets import SmallResNet
from uda import UserError
from uda.data.augment import Augment, to_float
from uda.data.batches import Batches
from uda.data.domain import Pair
from uda.methods import METHODS, Method
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.runtime import Runtime

STEPS = 4
SMALL = {
    "unit": {"width": 8, "code_dim": 16},
    "shot": {"refresh": 2},
    "dirt_t": {"vada_share": 0.5},
    "cdan": {"largest_product": 64},
    "drit": {"width": 8, "draws": 2},
    "cogan": {"width": 4},
    "latent_mapping": {"width": 4, "hidden": 16, "vae_share": 0.5, "confidence": 0.0},
}
TRAINED = [name for name in METHODS if name != "adabn"]


def classifier(batch_norm: bool = False) -> Classifier:
    torch.manual_seed(0)
    return split_network(SmallResNet(3), 3, 16, 10) if batch_norm else small_classifier()


def make(name: str, runtime: Runtime, pair: Pair, start: Classifier | None = None) -> Any:
    torch.manual_seed(1)
    module = METHODS[name]
    method = module.Method(module.Settings(**SMALL.get(name, {})), start or classifier(), (3, 16, 16), STEPS, runtime)
    if hasattr(method, "prepare"):
        method.prepare(pair.target.without_labels())
    return method


def batches(name: str, pair: Pair, runtime: Runtime) -> Batches:
    source = pair.source if getattr(METHODS[name], "READS_SOURCE", True) else None
    return Batches(source, pair.target.without_labels(), 8, 12, Augment(rotate=10), Augment(erase=0.3), runtime)


def images(pair: Pair) -> Tensor:
    assert isinstance(pair.target.images, Tensor)
    return to_float(pair.target.images[:8])


@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("name", TRAINED)
def test_losses_are_finite_and_parameters_move(name: str, batch_norm: bool, small_pair: Pair, fp32: Runtime) -> None:
    method: Method = make(name, fp32, small_pair, classifier(batch_norm))
    before = copy.deepcopy(method.classifier().state_dict())
    drawn = batches(name, small_pair, fp32)
    for _ in range(STEPS):
        values = method.step(drawn.next())
        assert all(math.isfinite(float(value)) and not value.requires_grad for value in values.values()), values
    after = method.classifier().state_dict()
    moved = [key for key, value in after.items() if not torch.equal(value, before[key])]
    assert any("backbone" in key for key in moved)


@pytest.mark.parametrize("name", TRAINED)
def test_a_saved_method_goes_on_and_predicts_as_the_first(name: str, small_pair: Pair, fp32: Runtime) -> None:
    first, drawn = make(name, fp32, small_pair), batches(name, small_pair, fp32)
    for _ in range(3):  # past SHOT's refresh and into DIRT-T's second half
        first.step(drawn.next())
    state, batch = copy.deepcopy(first.state_dict()), drawn.next()
    torch.manual_seed(5)
    first.step(batch)
    second = make(name, fp32, small_pair)
    second.load_state_dict(state)
    torch.manual_seed(5)
    second.step(batch)
    a, b = first.classifier().eval(), second.classifier().eval()
    assert torch.equal(a(images(small_pair)), b(images(small_pair)))


@pytest.mark.parametrize("name", METHODS)
def test_the_given_classifier_and_the_random_state_are_left_as_found(name: str, small_pair: Pair, fp32: Runtime) -> None:
    start = classifier(batch_norm=True)
    weights, modes = copy.deepcopy(start.state_dict()), [module.training for module in start.modules()]
    method = make(name, fp32, small_pair, start)
    state = torch.get_rng_state()
    if hasattr(method, "prepare"):
        method.prepare(small_pair.target.without_labels())
    assert torch.equal(state, torch.get_rng_state()), "preparing draws nothing"
    if name not in ("source_only", "target_only"):  # they train the classifier itself
        method.step(batches(name, small_pair, fp32).next())
        assert all(torch.equal(value, weights[key]) for key, value in start.state_dict().items())
        assert modes == [module.training for module in start.modules()]


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_has_nowhere_to_read_target_labels_from(name: str, small_pair: Pair, fp32: Runtime) -> None:
    batch = batches(name, small_pair, fp32).next()
    held = {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}
    assert len(held) == 5
    assert vars(batch).keys() - held.keys() == {"augment"}
    assert all(isinstance(value, float) for value in vars(batch.augment).values())
    whole_numbers = {name: len(value) for name, value in held.items() if not value.is_floating_point()}
    count = len(batch.source)
    assert whole_numbers == {"source_labels": count, "source_positions": count}, "the only labels are the source's"


@pytest.mark.parametrize("name", [name for name, module in METHODS.items() if not getattr(module, "READS_SOURCE", True)])
def test_source_free_methods_are_given_no_source(name: str, small_pair: Pair, fp32: Runtime) -> None:
    batch = batches(name, small_pair, fp32).next()
    assert len(batch.source) == len(batch.source_labels) == 0
    make(name, fp32, small_pair, classifier(batch_norm=True)).step(batch)


def test_adabn_takes_the_targets_statistics_and_nothing_else(small_pair: Pair, fp32: Runtime) -> None:
    start = classifier(batch_norm=True)
    method = make("adabn", fp32, small_pair, start)
    a, b = start.eval()(images(small_pair)), method.classifier().eval()(images(small_pair))
    assert not torch.allclose(a, b)
    own = dict(start.named_parameters())
    assert all(torch.equal(value, own[key.replace(".norms.0", "")]) for key, value in method.classifier().named_parameters())
    with pytest.raises(UserError, match="this network has no batch norm"):
        make("adabn", fp32, small_pair)


def test_shots_head_stays_as_the_source_left_it(small_pair: Pair, fp32: Runtime) -> None:
    method, start = make("shot", fp32, small_pair), classifier()
    for _ in range(STEPS):
        method.step(batches("shot", small_pair, fp32).next())
    assert torch.equal(method.classifier().head.weight, start.head.weight)  # type: ignore[arg-type]


def test_dann_reverses_the_gradient_at_the_features(fp32: Runtime) -> None:
    from uda.methods.dann import ReverseGradient, ramp

    features = torch.ones(3, requires_grad=True)
    ReverseGradient.apply(features, 0.5).sum().backward()
    assert features.grad is not None
    assert features.grad.tolist() == [-0.5] * 3
    assert [ramp(0, 10), round(ramp(10, 10), 3)] == [0, 1]


def test_mcd_moves_heads_and_backbone_against_each_other(small_pair: Pair, fp32: Runtime) -> None:
    method = make("mcd", fp32, small_pair)
    warm = method.step(batches("mcd", small_pair, fp32).next())
    assert "discrepancy" not in warm, "until the second head knows the classes, nothing follows it"
    values = method.step(batches("mcd", small_pair, fp32).next())
    assert values["discrepancy"] < values["head_discrepancy"] * 1.5
    assert isinstance(method.classifier(), nn.Module)


def test_the_unlabelled_batch_of_mean_teacher_is_what_teaches(small_pair: Pair, fp32: Runtime) -> None:
    method = make("mean_teacher", fp32, small_pair)
    batch = batches("mean_teacher", small_pair, fp32).next()
    blank = replace(batch, target_weak=torch.zeros_like(batch.target_weak))
    method.teacher.head.weight.mul_(50)  # sure of everything, so that every image counts
    with torch.no_grad():
        assert method.losses(batch)["consistency"] != method.losses(blank)["consistency"]
