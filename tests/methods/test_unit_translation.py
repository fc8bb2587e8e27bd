"""UNIT as translation: its step by hand, and which terms act on what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import domain
from tests.methods import reference as by_hand
from tests.methods.reference import adam, assert_losses, assert_same_update, descend, follow, made, twins, weights
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.unit_translation import UNITTranslation
from uda.recipe.load import load_recipe
from uda.runtime import Runtime


@pytest.fixture(scope="module")
def batch() -> Batch:
    source, target = (to_float(domain("d", 4, seed).images) for seed in (0, 1))
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(source, none, none, target, torch.full_like(target, torch.nan), none)


def make(fp32: Runtime, steps: int = 100, **settings: Any) -> UNITTranslation:
    return made(UNITTranslation, fp32, steps, width=4, blocks=2, discriminator_depth=2, **settings)


@pytest.mark.parametrize("cycle", [True, False], ids=["cycle", "no cycle"])
def test_a_step_by_hand(cycle: bool, fp32: Runtime, batch: Batch) -> None:
    weights = {"adversarial_weight": 0.7, "mean_kl_weight": 1.3, "mean_reconstruction_weight": 1.7}
    cycle_weights = {"mean_cycle_kl_weight": 0.6 * cycle, "mean_cycle_weight": 0.9 * cycle}
    sizes = {"width": 4, "blocks": 1, "discriminator_depth": 2, "code_scale": 2.0}
    method, twin = twins(UNITTranslation, fp32, weight_decay=1e-3, **sizes, **weights, **cycle_weights)
    encoders, generators = twin.networks.encoders, twin.networks.generators
    x_1, x_2 = batch.source, batch.target

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


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # every network is held still
def test_the_paper_recipe_has_the_papers_objective(fp32: Runtime, batch: Batch) -> None:
    """Equations 3 to 5 with their lambdas, both divergences of eq. 5 among them, and both players held still."""
    given = load_recipe("translate-paper", {"data.source": "mnist", "data.target": "usps"}).method.model_dump(exclude={"name"})
    method = made(UNITTranslation, fp32, 100, **{**given, "width": 4, "discriminator_depth": 2})
    e, g, (d_1, d_2) = method.networks.encoders, method.networks.generators, method.discriminators
    seen: list[Tensor] = []
    method.players.step = lambda name, loss: seen.append(loss)  # type: ignore[method-assign, assignment]
    torch.manual_seed(5)
    method.step(batch)

    def codes(of_1: Tensor, of_2: Tensor) -> Tensor:
        return e.tied(torch.cat([e.private[0](of_1), e.private[1](of_2)]))

    def draw(z: Tensor, i: int) -> Tensor:
        return g.private[i - 1](g.tied(z))

    def kl(mean: Tensor) -> Tensor:
        """KL(N(mean, I) || N(0, I)), of one number of the code."""
        return (mean**2).mean() / 2

    torch.manual_seed(5)
    x_1, x_2 = batch.source, batch.target
    means = codes(x_1, x_2)
    z_1, z_2 = (means + torch.randn_like(means)).chunk(2)
    x_12, x_21 = draw(z_1, 2), draw(z_2, 1)
    back = codes(x_21, x_12)
    z_21, z_12 = (back + torch.randn_like(back)).chunk(2)
    (m_1, m_2), (m_21, m_12) = means.chunk(2), back.chunk(2)
    l_vae = 0.1 * (kl(m_1) + kl(m_2)) + 100 * ((draw(z_1, 1) - x_1).abs().mean() + (draw(z_2, 2) - x_2).abs().mean())
    l_cc = 0.1 * (kl(m_1) + kl(m_12)) + 100 * (draw(z_12, 1) - x_1).abs().mean()
    l_cc = l_cc + 0.1 * (kl(m_2) + kl(m_21)) + 100 * (draw(z_21, 2) - x_2).abs().mean()
    of_g = l_vae + l_cc + 10 * (by_hand.is_real(d_1(x_21)) + by_hand.is_real(d_2(x_12)))
    of_d = by_hand.is_real(d_1(x_1)) + by_hand.is_fake(d_1(x_21)) + by_hand.is_real(d_2(x_2)) + by_hand.is_fake(d_2(x_12))
    assert seen[0].item() == pytest.approx(10 * of_d.item(), rel=1e-6, abs=1e-5)
    assert seen[1].item() == pytest.approx(of_g.item(), rel=1e-6, abs=1e-5)


def test_no_weight_sharing_can_be_the_papers(fp32: Runtime, batch: Batch) -> None:
    """Nothing tied, no noise on codes, and domains that are drawn independently."""
    method = make(fp32, tied_layers=0, variational=False, start_alike=False)
    for pair in (method.networks.encoders.private, method.networks.generators.private):
        first, second = (next(own.parameters()) for own in pair)
        assert not torch.equal(first, second)
    values = []
    for seed, settings in ((1, {"variational": False}), (2, {"variational": False}), (2, {})):
        other = make(fp32, **settings)
        torch.manual_seed(seed)
        values.append(float(other.step(batch)["reconstruction"]))
    assert values[0] == values[1] != values[2], "nothing is drawn where codes are not"
    alike = make(fp32, tied_layers=0).networks.encoders.private
    assert torch.equal(*(next(own.parameters()) for own in alike))


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


def test_a_code_starts_larger_than_its_noise(fp32: Runtime, batch: Batch) -> None:
    small, large = (float(make(fp32, code_scale=scale).step(batch)["kl"]) for scale in (1.0, 4.0))
    assert large == pytest.approx(16 * small, rel=1e-3)
