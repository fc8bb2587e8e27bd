"""UNIT's step: its objective by hand, what reaches which network, what each setting does, and that nothing is done twice."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import small_classifier
from tests.methods import reference as by_hand
from tests.methods.reference import adam, assert_losses, assert_same_update, descend, follow, made, weights
from uda.data.batches import Batch
from uda.methods.unit import UNIT
from uda.models.translators import Streams, Translator
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


def make(fp32: Runtime, steps: int = 20, **settings: Any) -> UNIT:
    return made(UNIT, fp32, steps, CLASSIFIER, **{"width": 8, "code_dim": 16, **settings})


def players_networks(method: UNIT) -> nn.ModuleDict:
    return nn.ModuleDict({name: getattr(method, name) for name in ("encoders", "generators", "discriminators")})


VARIANTS: list[dict[str, Any]] = [
    {},
    {"encoder": "convolutional"},
    {"posterior": "learned"},
    {"tied_trunk": False},
    {"warm_start": False},
    {"feature_weight": 0.0},
    {"feature_norm": "l2", "reconstruction_norm": "l2"},
    {"adversarial_on_reconstructions": True},
    {"adversarial_on_reconstructions": True, "feature_weight": 0.0},
    {"adversarial_on_reconstructions": True, "translated_class_augmented": True},
    {"cycle_weight": 100.0, "cycle_kl_weight": 0.1},
    {"information_weight": 0.0, "pseudo_label_weight": 0.0, "translated_class_weight": 0.0},
    *({"coordinates": where} for where in ("none", "discriminator", "both")),
    {"private_encoder_layers": 0, "private_generator_layers": 0},
    {"private_encoder_layers": 3, "private_generator_layers": 4},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_every_setting_trains_with_finite_losses_and_moves_all_networks(
    settings: dict[str, Any], batch: Batch, fp32: Runtime
) -> None:
    method = make(fp32, **settings)
    before = {name: weights(module) for name, module in players_networks(method).items()}
    for _ in range(2):
        losses = method.step(batch)
    assert all(math.isfinite(value) for value in losses.values())
    for name, module in players_networks(method).items():
        if len(before[name]):
            assert not torch.equal(before[name], weights(module)), name
    assert method.classifier()(batch.target_weak).shape == (len(batch.target_weak), 10)


def test_with_a_warm_start_it_begins_at_the_source_classifier(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    assert torch.allclose(method.classifier()(batch.target_weak), CLASSIFIER(batch.target_weak), atol=1e-5)


def test_without_a_warm_start_it_does_not(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32, warm_start=False)
    assert not torch.allclose(method.classifier()(batch.target_weak), CLASSIFIER(batch.target_weak), atol=1e-2)


def test_the_given_classifier_is_left_alone(batch: Batch, fp32: Runtime) -> None:
    before = weights(CLASSIFIER)
    make(fp32, coordinates="both").step(batch)
    assert torch.equal(before, weights(CLASSIFIER))


def test_the_trunk_is_tied_and_the_stems_are_not(fp32: Runtime) -> None:
    discriminators = make(fp32).discriminators
    assert len(discriminators.trunks) == 1
    assert not {id(p) for p in discriminators.stems[0].parameters()} & {id(p) for p in discriminators.stems[1].parameters()}
    assert len(make(fp32, tied_trunk=False).discriminators.trunks) == 2


def test_only_the_anchors_bring_class_information_to_the_target_stem(batch: Batch, fp32: Runtime) -> None:
    off = {"adversarial_weight": 0.0, "feature_weight": 0.0, "information_weight": 0.0, "pseudo_label_weight": 0.0}

    def stem_moves(**settings: Any) -> bool:
        method = make(fp32, **{**off, **settings})
        before = weights(method.discriminators.stems[1])
        method.step(batch)
        return not torch.equal(before, weights(method.discriminators.stems[1]))

    assert not stem_moves()
    assert stem_moves(information_weight=1.0)
    assert stem_moves(translated_class_weight_discriminator=1.0)


def test_a_step_runs_each_network_once_per_player(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    calls: dict[str, int] = {}

    def count(name: str) -> Any:
        def hook(*_: object) -> None:
            calls[name] = calls.get(name, 0) + 1

        return hook

    named = {
        "encoder tied": method.encoders.tied,
        "generator tied": method.generators.tied,
        "source stem": method.discriminators.stems[0],
        "target stem": method.discriminators.stems[1],
        "trunk": method.discriminators.trunks[0],
    }
    for name, module in named.items():
        module.register_forward_hook(count(name))
    method.step(batch)
    assert calls == {"encoder tied": 1, "generator tied": 1, "source stem": 2, "target stem": 2, "trunk": 2}


def test_the_class_of_translations_can_be_read_off_augmented_ones(batch: Batch, fp32: Runtime) -> None:
    """Half of the class loss is of images that are painted all black here; they are judged real or fake as they are."""
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    plain, method = make(fp32).step(black), make(fp32, translated_class_augmented=True)
    values = method.step(black)
    assert values["generator_adversarial"] == plain["generator_adversarial"]
    with torch.no_grad():
        student = method.discriminators.target_classifier()
        of_black = by_hand.cross_entropy(student(torch.full_like(batch.source, -1)), batch.source_labels)
    expected = float(plain["generator_class"] + of_black) / 2
    assert float(values["generator_class"]) == pytest.approx(expected, abs=1e-5)
    assert float(plain["generator_class"]) != pytest.approx(expected, abs=1e-3)


def test_l1_and_l2_feature_matching_differ(batch: Batch, fp32: Runtime) -> None:
    values = []
    for norm in ("l1", "l2"):
        method = make(fp32, feature_norm=norm)
        method.step(batch)  # before it, both stems and both private generator layers are alike, and the distance is 0
        values.append(method.step(batch)["feature"])
    assert values[0] != values[1]


def test_translating_draws_nothing_and_restores_modes(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    method.encoders.train()
    modes = [module.training for module in method.modules()]
    state = torch.get_rng_state()
    first, second = (method.translate(batch.source, 0, 1) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == batch.source.shape
    assert first.abs().max() <= 1
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in method.modules()]


def test_the_learning_rate_falls_to_zero_at_the_end(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32, steps=4, decay_from=0.5)
    rates = []
    for _ in range(4):
        method.step(batch)
        rates.append(method.players.state_dict()["optimizers"]["generators"]["param_groups"][0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 0])


def test_a_batch_may_hold_more_target_images_than_are_translated(batch: Batch, fp32: Runtime) -> None:
    seen: list[int] = []
    method = make(fp32, cycle_weight=1.0)
    method.generators.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    method.step(batch)
    count = len(batch.source)
    assert len(batch.target) > count
    assert seen == [2 * count, 2 * count]  # source and target codes, in the streams and in the cycle
