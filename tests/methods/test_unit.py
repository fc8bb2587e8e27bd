"""UNIT's step: what reaches which network, what each setting does, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import domain, small_classifier
from uda import losses
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.unit import Method, Settings
from uda.runtime import Runtime

SMALL = {"width": 8, "code_dim": 16}
CLASSIFIER = small_classifier()


@pytest.fixture(scope="module")
def batch() -> Batch:
    source, target = domain("s", 8, 0), domain("t", 8, 1)
    plain = to_float(target.images)
    return Batch(to_float(source.images), source.labels, torch.arange(8), -plain, plain)


def make(fp32: Runtime, steps: int = 20, **settings: Any) -> Method:
    torch.manual_seed(0)
    return Method(Settings(**{**SMALL, **settings}), CLASSIFIER, (3, 16, 16), steps, fp32)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


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
    before = {name: weights(module) for name, module in method.networks().items()}
    for _ in range(2):
        losses = method.step(batch)
    assert all(math.isfinite(value) for value in losses.values())
    for name, module in method.networks().items():
        if len(before[name]):
            assert not torch.equal(before[name], weights(module)), name
    assert method.classifier()(batch.target_weak).shape == (8, 10)


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_saved_state_goes_on_to_the_same_weights(settings: dict[str, Any], batch: Batch, fp32: Runtime) -> None:
    method = make(fp32, **settings)
    method.step(batch)
    state = {key: value if isinstance(value, int) else _copy(value) for key, value in method.state_dict().items()}
    other = make(fp32, **settings)
    other.load_state_dict(state)
    for each in (method, other):
        torch.manual_seed(5)
        each.step(batch)
    assert torch.equal(weights(method.networks()), weights(other.networks()))


def _copy(value: Any) -> Any:
    import copy

    return copy.deepcopy(value)


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


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_each_player_moves_while_the_other_is_fixed(player: str, batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    silent = method.generator_optimizer if player == "discriminator" else method.discriminator_optimizer
    silent.step = lambda *_: None  # type: ignore[method-assign]
    fixed, moving = (
        (method.encoders, method.discriminators) if player == "discriminator" else (method.discriminators, method.encoders)
    )
    before = weights(fixed), weights(moving)
    method.step(batch)
    assert torch.equal(before[0], weights(fixed))
    assert not torch.equal(before[1], weights(moving))


def test_the_generator_step_leaves_no_gradient_in_the_discriminators(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    posterior = method.encoders(batch.source, batch.target)
    streams = method.generators(posterior.sample())
    method._update_generators(batch, posterior, streams)
    assert all(parameter.grad is None for parameter in method.discriminators.parameters())


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
        of_black = losses.cross_entropy(method.student(torch.full_like(batch.source, -1)), batch.source_labels)
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


def test_the_cycle_returns_each_domain_to_itself(batch: Batch, fp32: Runtime) -> None:
    """With encoders and generators replaced by exact inverses the cycle loss is 0; crossed halves would not give 0."""
    from uda.models.translators import Posterior, Streams

    method = make(fp32, cycle_weight=1.0, cycle_kl_weight=1.0)

    class Flat(nn.Module):
        """E_1(x) = x, E_2(x) = x / 2; G_1(z) = z, G_2(z) = 2 z, without noise."""

        def forward(self, source: Tensor, target: Tensor | None = None) -> Any:
            if target is not None:
                codes = torch.cat([source.flatten(1), target.flatten(1) / 2])
                return type("Exact", (Posterior,), {"sample": lambda self: self.mean})(codes.requires_grad_(), None)
            images = source.unflatten(1, (3, 16, 16))
            first, second = images.chunk(2)
            return Streams(first, 2 * first, second, 2 * second)

    method.encoders = method.generators = Flat()  # type: ignore[assignment]
    method.generator_parameters = []
    posterior = method.encoders(batch.source, batch.target_weak)
    method.generator_parameters = [posterior.mean]  # something to differentiate with respect to
    values = method._update_generators(batch, posterior, method.generators(posterior.sample()))
    assert values["cycle"].item() == pytest.approx(0, abs=1e-3)
    assert values["reconstruction"].item() == pytest.approx(0, abs=1e-3)


def test_translating_draws_nothing_and_restores_modes(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32)
    method.encoders.train()
    modes = [module.training for module in method.networks().modules()]
    state = torch.get_rng_state()
    first, second = (method.translate(batch.source, 0, 1) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == batch.source.shape
    assert first.abs().max() <= 1
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in method.networks().modules()]


def test_the_learning_rate_falls_to_zero_at_the_end(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32, steps=4, decay_from=0.5)
    rates = []
    for _ in range(4):
        method.step(batch)
        rates.append(method.generator_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4])


def test_a_batch_may_hold_more_target_images_than_are_translated(batch: Batch, fp32: Runtime) -> None:
    half = Batch(batch.source[:4], batch.source_labels[:4], torch.arange(4), batch.target, batch.target_weak)
    seen: list[int] = []
    method = make(fp32, cycle_weight=1.0)
    method.generators.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    assert all(math.isfinite(value) for value in method.step(half).values())
    assert seen == [8, 8]  # 4 source and 4 target codes, in the streams and in the cycle
