"""UNIT as translation: which terms act on what."""

from typing import Any

import pytest
import torch

from tests.conftest import domain
from tests.methods.reference import made, weights
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.unit_translation import UNITTranslation, patch_discriminator
from uda.runtime import Runtime


@pytest.fixture(scope="module")
def batch() -> Batch:
    source, target = (to_float(domain("d", 4, seed).images) for seed in (0, 1))
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(source, none, none, torch.full_like(target, torch.nan), target)


def make(fp32: Runtime, steps: int = 100, **settings: Any) -> UNITTranslation:
    return made(UNITTranslation, fp32, steps, width=4, blocks=2, discriminator_depth=2, **settings)


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
