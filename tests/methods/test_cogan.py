"""CoGAN: its step by hand, pairs from one noise, and the -paper recipe's settings against the released objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods import reference as by_hand
from tests.methods.reference import adam, assert_losses, assert_same_update, descend, drawn_batch, follow, made, twins, weights
from tests.models.nets import DropoutNet
from uda.data.batches import Batch
from uda.methods.cogan import CoGAN
from uda.models import build_classifier
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.recipe.load import load_recipe
from uda.runtime import Runtime

NARROW: dict[str, Any] = {"width": 4, "noise_dim": 8}


def make(fp32: Runtime, **settings: Any) -> CoGAN:
    torch.manual_seed(0)
    return made(CoGAN, fp32, 10, build_classifier("lenet", 3, 16, 10), **NARROW, **settings)


def test_a_step_by_hand(fp32: Runtime, batch: Batch) -> None:
    """The target is read as it is, all of it; augmented images of it are not."""
    batch = dataclasses.replace(batch, target=torch.full_like(batch.target, torch.nan))
    lambdas = {"adversarial_weight": 0.7, "class_weight": 1.3, "pair_class_weight": 40.0, "feature_weight": 0.3}
    method, twin = twins(CoGAN, fp32, width=4, noise_dim=8, adversarial_weight_generator=0.6, **lambdas)
    generators, discriminators = twin.generators, twin.discriminators

    def features(x: torch.Tensor, i: int) -> torch.Tensor:
        return discriminators.trunks[0](discriminators.stems[i - 1](x))

    def d(x: torch.Tensor, i: int) -> torch.Tensor:
        return discriminators.real_head(features(x, i))

    def log_p(x: torch.Tensor, i: int) -> torch.Tensor:
        return by_hand.log_probabilities(discriminators.class_head(features(x, i)))

    torch.manual_seed(5)
    hidden = generators.tied(torch.randn(len(batch.source), 8))
    g_1, g_2 = (private(hidden) for private in generators.private)
    real = by_hand.is_real(d(batch.source, 1)) + by_hand.is_real(d(batch.target_weak, 2))
    expected = {
        "discriminator_adversarial": real + by_hand.is_fake(d(g_1.detach(), 1)) + by_hand.is_fake(d(g_2.detach(), 2)),
        "class": by_hand.cross_entropy(discriminators.class_head(features(batch.source, 1)), batch.source_labels),
        "pair_class": by_hand.kl(log_p(g_1.detach(), 1).detach(), log_p(g_2.detach(), 2)),
        "feature": by_hand.l2(features(g_1.detach(), 1), features(g_2.detach(), 2)),
    }
    total = 0.7 * expected["discriminator_adversarial"] + 1.3 * expected["class"] + 40 * expected["pair_class"]
    descend(adam(discriminators.parameters(), twin.settings), total + 0.3 * expected["feature"])
    expected["generator_adversarial"] = by_hand.is_real(d(g_1, 1)) + by_hand.is_real(d(g_2, 2))
    descend(adam(generators.parameters(), twin.settings), 0.6 * expected["generator_adversarial"])
    follow(twin.averaged, discriminators.target_classifier())

    torch.manual_seed(5)
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)


def test_pairs_are_alike_until_private_layers_part(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32)
    source, target = method.draw_pairs(3)
    assert source.shape == target.shape == (3, 3, 16, 16)
    assert torch.allclose(source, target), "private layers start alike"
    for _ in range(3):
        method.step(batch)
    source, target = method.draw_pairs(3)
    assert not torch.equal(source, target), "private layers have parted"


def test_the_target_stem_learns_the_classes_of_pairs_from_the_sources(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, adversarial_weight=0.0, class_weight=0.0, weight_decay=0.0)
    assert float(method.step(batch)["pair_class"]) == pytest.approx(0, abs=1e-6), "pairs start alike"
    with torch.no_grad():
        for parameter in method.generators.private[1].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    stems = [weights(stem) for stem in method.discriminators.stems]
    values = method.step(batch)
    assert float(values["pair_class"]) > 1e-5
    moved = [not torch.equal(before, weights(stem)) for before, stem in zip(stems, method.discriminators.stems, strict=True)]
    assert moved == [False, True], "the source teaches"


@pytest.mark.parametrize(("recipe", "alone"), [("mnist2usps-cogan", True), ("mnist2usps-cogan-paper", False)])
def test_the_published_private_layers_can_move_strokes(recipe: str, alone: bool, fp32: Runtime) -> None:
    """Our last layer alone makes each pixel of one place of the map before it; the published one reads other places, too."""
    private = load_recipe(recipe).method.private_generator_layers
    generators = make(fp32, private_generator_layers=private).generators
    hidden = generators.tied(torch.randn(1, 8)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(generators.private[1](hidden)[0, :, 8, 8].sum(), hidden)
    assert (int((gradient[0].abs().sum(0) > 0).sum()) == 1) == alone


def released_objective(method: CoGAN, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of D, then of G; a and b are source and target.

    Source: `src/trainer_cogan_mnist2usps.py` in `cogan_pytorch` of github.com/mingyuliutw/CoGAN, with the weights of
    `exps/mnist2usps_full_cogan.yaml`.
    """
    d, g = method.discriminators, method.generators
    torch.manual_seed(5)
    hidden = g.tied(torch.randn(len(batch.source), NARROW["noise_dim"]))
    fake_a, fake_b = (own(hidden) for own in g.private)

    def features(a: Tensor, b: Tensor) -> list[Tensor]:
        return [d.trunks[0](stem(images)) for stem, images in zip(d.stems, (a, b), strict=True)]

    def told(a: Tensor, b: Tensor, label: int) -> Tensor:
        """Cross-entropy of both domains' images at once, by two outputs: ours is what real has above fake."""
        real = d.real_head(torch.cat(features(a, b)))
        return by_hand.cross_entropy(torch.cat([torch.zeros_like(real), real], 1), torch.full((len(real),), label))

    of_a, of_b = features(fake_a, fake_b)
    squares = ((of_a - of_b) ** 2).mean() * of_a.shape[1]
    of_class = by_hand.cross_entropy(d.class_head(features(batch.source, batch.target_weak)[0]), batch.source_labels)
    of_d = told(batch.source, batch.target_weak, 1) + told(fake_a, fake_b, 0) + 0.01 * squares + 10 * of_class
    return of_d, told(fake_a, fake_b, 1)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # both players are held still
def test_both_players_losses_of_the_paper_recipe_are_the_released_ones(fp32: Runtime) -> None:
    """With weights moved apart and both players held still, and one noise for both: the second that the release draws for G
    changes what a loss is of, and not the loss.
    """
    batch = drawn_batch(6, 6)  # as in the release, as many of the target as of the source
    given = load_recipe("mnist2usps-cogan-paper").method.model_dump(exclude={"name"})
    method, _ = twins(CoGAN, fp32, classifier=build_classifier("lenet", 3, 16, 10), **{**given, **NARROW})
    seen: dict[str, Tensor] = {}
    method.players.step = lambda name, loss: seen.update({name: loss})  # type: ignore[method-assign, assignment]
    of_d, of_g = released_objective(method, batch)
    torch.manual_seed(5)
    values = method.step(batch)
    assert 0.01 * values["feature"].item() > 1e-3 * of_d.item(), "the test must tell whether features are compared"
    assert seen["discriminators"].item() == pytest.approx(of_d.item(), rel=1e-5)
    assert seen["generators"].item() == pytest.approx(of_g.item(), rel=1e-5)


def test_the_paper_recipe_is_trained_as_the_release(fp32: Runtime) -> None:
    """Adam for each player, at one rate to the end; the last step's weights; all of the target's images."""
    recipe = load_recipe("mnist2usps-cogan-paper")
    method = made(CoGAN, fp32, 20, **{**recipe.method.model_dump(exclude={"name"}), **NARROW})
    for player in method.players.state_dict()["optimizers"].values():
        (group,) = player["param_groups"]
        assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (2e-4, (0.5, 0.999), 5e-4)
    assert (recipe.method.decay_from, recipe.method.ema_decay, recipe.method.warm_start) == (1.0, 0.0, False)
    assert (recipe.training.steps, recipe.training.batch, recipe.data.target_held_out) == (10_000, 64, 0.0)


@pytest.mark.parametrize(
    "network",
    [lambda: build_classifier("unit", 3, 16, 10, width=4), lambda: split_network(DropoutNet(), 3, 16, 10)],
    ids=["layers", "a function"],
)
def test_features_of_a_pair_are_compared_without_dropouts_noise(
    network: Callable[[], Classifier], fp32: Runtime, batch: Batch
) -> None:
    torch.manual_seed(0)
    classifier = network()
    method = made(CoGAN, fp32, 10, classifier, width=4, noise_dim=8, feature_weight=1.0)
    assert method.discriminators.training
    assert method.step(batch)["feature"].item() == 0, "both stems and both generators are alike, so all pairs are"
    assert all(part.training for part in method.discriminators.modules())


def test_features_are_compared_where_that_is_asked_for(fp32: Runtime, batch: Batch) -> None:
    assert "feature" not in make(fp32).step(batch)
