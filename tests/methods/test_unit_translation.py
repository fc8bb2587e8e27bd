"""UNIT as translation: its step by hand, and which terms act on what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conftest import domain
from tests.methods import reference as by_hand
from tests.methods.reference import adam, assert_losses, assert_same_update, descend, follow, made, twins, weights
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.unit_translation import UNITTranslation, patch_discriminator
from uda.runtime import Runtime


@pytest.fixture(scope="module")
def batch() -> Batch:
    source, target = (to_float(domain("d", 4, seed).images) for seed in (0, 1))
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(source, none, none, torch.full_like(target, torch.nan), target, none)


def make(fp32: Runtime, steps: int = 100, **settings: Any) -> UNITTranslation:
    return made(UNITTranslation, fp32, steps, width=4, blocks=2, discriminator_depth=2, **settings)


@pytest.mark.parametrize("cycle", [True, False], ids=["cycle", "no cycle"])
def test_a_step_by_hand(cycle: bool, fp32: Runtime, batch: Batch) -> None:
    weights = {"adversarial_weight": 0.7, "mean_kl_weight": 1.3, "mean_reconstruction_weight": 1.7}
    cycle_weights = {"mean_cycle_kl_weight": 0.6 * cycle, "mean_cycle_weight": 0.9 * cycle}
    sizes = {"width": 4, "blocks": 1, "discriminator_depth": 2, "code_scale": 2.0}
    method, twin = twins(UNITTranslation, fp32, weight_decay=1e-3, **sizes, **weights, **cycle_weights)
    encoders, generators = twin.networks.encoders, twin.networks.generators
    x_1, x_2 = batch.source, batch.target_weak

    def codes(of_1: torch.Tensor, of_2: torch.Tensor) -> torch.Tensor:
        return 2 * torch.cat([encoders.tied(encoders.private[0](of_1)), encoders.tied(encoders.private[1](of_2))])

    def g(z: torch.Tensor, i: int) -> torch.Tensor:
        return generators.private[i - 1](generators.tied(z))

    torch.manual_seed(5)
    means = codes(x_1, x_2)
    z_1, z_2 = (means + torch.randn_like(means)).chunk(2)
    x_11, x_12, x_21, x_22 = g(z_1, 1), g(z_1, 2), g(z_2, 1), g(z_2, 2)

    d_1, d_2 = twin.discriminators
    of_d = by_hand.is_real(d_1(x_1)) + by_hand.is_real(d_2(x_2))
    of_d = of_d + by_hand.is_fake(d_1(x_21.detach())) + by_hand.is_fake(d_2(x_12.detach()))
    descend(adam(twin.discriminators.parameters(), twin.settings), 0.7 * of_d)

    expected = {
        "generator_adversarial": by_hand.is_real(d_1(x_21)) + by_hand.is_real(d_2(x_12)),
        "reconstruction": (x_11 - x_1).abs().mean() + (x_22 - x_2).abs().mean(),
        "kl": (means[:4] ** 2).mean() / 2 + (means[4:] ** 2).mean() / 2,
    }
    total = 0.7 * expected["generator_adversarial"] + 1.7 * expected["reconstruction"] + 1.3 * expected["kl"]
    if cycle:
        back = codes(x_21, x_12)
        z_21, z_12 = (back + torch.randn_like(back)).chunk(2)
        expected["cycle"] = (g(z_12, 1) - x_1).abs().mean() + (g(z_21, 2) - x_2).abs().mean()
        expected["cycle_kl"] = (back[:4] ** 2).mean() / 2 + (back[4:] ** 2).mean() / 2
        total = total + 0.9 * expected["cycle"] + 0.6 * expected["cycle_kl"]
    descend(adam(twin.networks.parameters(), twin.settings), total)

    torch.manual_seed(5)
    assert_losses(method.step(batch), {"discriminator_adversarial": of_d, **expected})
    follow(twin.translator, method.networks)
    assert_same_update(method, twin)


def test_reconstruction_and_cycle_fall(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, learning_rate=1e-3)
    values = [{name: float(value) for name, value in method.step(batch).items()} for _ in range(50)]
    for name in ("reconstruction", "cycle"):
        assert values[-1][name] < 0.6 * values[0][name]


def test_without_the_cycle_its_terms_are_not_computed(fp32: Runtime, batch: Batch) -> None:
    values = make(fp32, cycle_weight=0.0, cycle_kl_weight=0.0).step(batch)
    assert not {"cycle", "cycle_kl"} & values.keys()


@pytest.mark.parametrize("tied", [0, 1, 2])
def test_tied_layers_are_a_setting(fp32: Runtime, tied: int) -> None:
    networks = make(fp32, tied_layers=tied).networks
    for network in (networks.encoders, networks.generators):
        assert len(list(network.tied.parameters())) == 8 * tied


def test_each_player_moves_only_itself(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, adversarial_weight=0.0)
    before = weights(method.discriminators)
    method.step(batch)
    assert torch.equal(before, weights(method.discriminators))


def test_a_deep_discriminator_judges_larger_parts() -> None:
    images = torch.zeros(2, 3, 32, 32)
    assert patch_discriminator(3, 32, 4, 2)(images).shape == (2, 1, 8, 8)
    assert patch_discriminator(3, 32, 4, 5)(images).shape == (2, 1, 1, 1)


def test_a_discriminator_does_not_need_contrast() -> None:
    judge, images = patch_discriminator(3, 32, 4, 5), torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(judge(images), judge(0.2 * images), atol=0.02)
        assert not torch.allclose(judge(images), judge(images.flip(0)), atol=0.02)


def test_a_code_starts_larger_than_its_noise(fp32: Runtime, batch: Batch) -> None:
    small, large = (float(make(fp32, code_scale=scale).step(batch)["kl"]) for scale in (1.0, 4.0))
    assert large == pytest.approx(16 * small, rel=1e-3)
