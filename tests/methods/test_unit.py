"""UNIT's step: its objective by hand, what reaches which network, what each setting does, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import small_classifier
from tests.methods import reference as by_hand
from tests.methods.reference import adam, assert_losses, assert_same_update, descend, follow, made, twins, weights
from uda.data.batches import Batch
from uda.methods.unit import UNIT
from uda.models.translators import Translator
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


def make(fp32: Runtime, steps: int = 20, **settings: Any) -> UNIT:
    return made(UNIT, fp32, steps, CLASSIFIER, **{"width": 8, "code_dim": 16, **settings})


def players_networks(method: UNIT) -> nn.ModuleDict:
    return nn.ModuleDict({name: getattr(method, name) for name in ("encoders", "generators", "discriminators")})


# The objective by hand

ALL_WEIGHTS: dict[str, Any] = {
    "width": 4,
    "code_dim": 8,
    "adversarial_weight": 0.7,
    "class_weight": 1.3,
    "feature_weight": 0.02,
    "information_weight": 0.9,
    "pseudo_label_weight": 1.1,
    "confidence": 0.165,
    "translated_class_weight_discriminator": 0.6,
    "reconstruction_weight": 0.03,
    "kl_weight": 0.4,
    "translated_class_weight": 1.7,
}
WITH_CYCLE = {"cycle_weight": 0.05, "cycle_kl_weight": 0.2}


class ByHand:
    """E_i, G_j and D_i of a method, and its objective in the words of the header."""

    def __init__(self, method: UNIT, batch: Batch) -> None:
        self.m, self.s = method, method.settings
        source, target = batch.small or (batch.source_weak if self.s.source_weak else batch.source, batch.target_weak)
        self.count = min(len(source), method.settings.drawn_batch or len(source))
        self.x = {1: source[: self.count], 2: target[: self.count]}
        self.batch, self.c, self.labels = batch, method.discriminators.class_head, batch.source_labels[: self.count]
        self.distance = {"l1": by_hand.l1, "l2": by_hand.l2}

    def q(self, x: dict[int, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Means and log-variances of both domains' codes."""
        encoders, found = self.m.encoders, []
        for i in (1, 2):
            out = encoders.tied(encoders.private[i - 1](x[i]))
            mean, spread = (out, torch.zeros_like(out)) if self.s.posterior == "unit" else out.chunk(2, 1)
            found.append((mean, 2 * (1 + spread.exp()).log().log() if self.s.posterior == "softplus" else spread))
        return found

    def sample(self, q: list[tuple[Tensor, Tensor]]) -> dict[int, Tensor]:
        mean, log_variance = (torch.cat(parts) for parts in zip(*q, strict=True))
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return {1: z[: self.count], 2: z[self.count :]}

    def g(self, z: Tensor, i: int) -> Tensor:
        return self.m.generators.private[i - 1](self.m.generators.tied(z))

    def features(self, x: Tensor, i: int) -> Tensor:
        trunks = self.m.discriminators.trunks
        return trunks[(i - 1) % len(trunks)](self.m.discriminators.stems[i - 1](x))

    def seen(self, x: Tensor, i: int) -> Tensor:
        """Features of images that are drawn, or beside drawn ones: behind a frozen body."""
        return self.features(self.m.read_drawn(x) if self.m.read_drawn else x, i)

    def d(self, x: Tensor, i: int) -> Tensor:
        return self.m.discriminators.real_head(self.seen(x, i))

    def translated_class(self, translated: Tensor) -> Tensor:
        read = [translated, *([self.batch.augment(translated)] if self.s.translated_class_augmented else [])]
        of_class = [by_hand.cross_entropy(self.c(self.seen(images, 2)), self.labels) for images in read]
        return torch.stack(of_class).mean()

    def objective_of_d(self, x: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """`x`: streams by name, such as "12"."""
        s, x = self.s, {name: images.detach() for name, images in x.items()}
        adversarial = torch.zeros(())
        for i, j in ((1, 2), (2, 1)):
            drawn = [x[f"{j}{i}"], *([x[f"{i}{i}"]] if s.adversarial_on_reconstructions else [])]
            adversarial = adversarial + by_hand.is_real(self.d(self.x[i], i)) + by_hand.is_fake(self.d(torch.cat(drawn), i))
        own_weight = s.adversarial_weight if s.adversarial_weight_discriminator is None else s.adversarial_weight_discriminator
        norm = self.distance[s.feature_norm]
        anchored = s.information_weight or s.pseudo_label_weight
        logits = self.c(self.features(self.batch.target, 2) if anchored else self.seen(self.x[2], 2))
        teacher = self.m.teacher(self.batch.target_weak).detach() if s.pseudo_label_weight else logits
        terms = {
            "discriminator_adversarial": (own_weight, adversarial),
            "class": (
                s.class_weight,
                by_hand.cross_entropy(self.c(self.features(self.batch.source, 1)), self.batch.source_labels),
            ),
            "feature": (
                s.feature_weight,
                norm(self.seen(x["11"], 1), self.seen(x["12"], 2)) + norm(self.seen(x["21"], 1), self.seen(x["22"], 2)),
            ),
            "target_entropy": (s.information_weight, by_hand.entropy(logits)),
            "target_marginal_entropy": (-s.information_weight, by_hand.marginal_entropy(logits)),
            "pseudo_label": (s.pseudo_label_weight, by_hand.sure_cross_entropy(logits, teacher, s.confidence)),
            "translated_class": (s.translated_class_weight_discriminator, self.translated_class(x["12"])),
        }
        if not s.feature_weight:
            del terms["feature"]
        if s.target_stem_class_weight:
            of_source = by_hand.cross_entropy(self.c(self.features(self.batch.source, 2)), self.batch.source_labels)
            terms["target_stem_class"] = (s.target_stem_class_weight, of_source)
        return {name: value for name, (_, value) in terms.items()}, sum(weight * value for weight, value in terms.values())

    def objective_of_g(self, q: list[tuple[Tensor, Tensor]], x: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        s, norm = self.s, self.distance[self.s.reconstruction_norm]
        adversarial = torch.zeros(())
        for i, j in ((1, 2), (2, 1)):
            drawn = [x[f"{j}{i}"], *([x[f"{i}{i}"]] if s.adversarial_on_reconstructions else [])]
            adversarial = adversarial + by_hand.is_real(self.d(torch.cat(drawn), i))
        terms = {
            "generator_adversarial": (s.adversarial_weight, adversarial),
            "reconstruction": (s.reconstruction_weight, norm(x["11"], self.x[1]) + norm(x["22"], self.x[2])),
            "kl": (s.kl_weight, by_hand.kl_to_normal(*q[0]) + by_hand.kl_to_normal(*q[1])),
            "generator_class": (s.translated_class_weight, self.translated_class(x["12"])),
        }
        if s.translated_pseudo_label_weight:
            teacher = self.m.teacher(self.batch.target_weak[: self.count]).detach()
            read = [x["21"], *([self.batch.augment_source(x["21"])] if s.translated_class_augmented else [])]
            of_teacher = [by_hand.sure_cross_entropy(self.c(self.seen(images, 1)), teacher, s.confidence) for images in read]
            terms["generator_pseudo_label"] = (s.translated_pseudo_label_weight, sum(of_teacher) / len(of_teacher))
        if s.statistics_weight:
            apart = torch.zeros(())
            for i, j in ((1, 2), (2, 1)):
                squares = (images.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)) for images in (x[f"{j}{i}"], self.x[i]))
                parts = [square.mean((3, 5)) for square in squares]
                mean, spread = zip(*((part.mean(0), (part.var(0, correction=0) + 1e-6) ** 0.5) for part in parts), strict=True)
                apart = apart + ((mean[0] - mean[1]) ** 2).sum() + ((spread[0] - spread[1]) ** 2).sum()
            terms["statistics"] = (s.statistics_weight, apart)
        if s.cycle_weight or s.cycle_kl_weight:
            back = self.q({1: x["21"], 2: x["12"]})
            z = self.sample(back)
            terms["cycle"] = (s.cycle_weight, norm(self.g(z[2], 1), self.x[1]) + norm(self.g(z[1], 2), self.x[2]))
            terms["cycle_kl"] = (s.cycle_kl_weight, by_hand.kl_to_normal(*back[0]) + by_hand.kl_to_normal(*back[1]))
        return {name: value for name, (_, value) in terms.items()}, sum(weight * value for weight, value in terms.values())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"posterior": "learned"},
        {"posterior": "softplus", "adversarial_weight_discriminator": 0.3},
        {"feature_norm": "l2", "feature_weight": 0.05},
        {"reconstruction_norm": "l2"},
        {"adversarial_on_reconstructions": True},
        WITH_CYCLE,
        {"posterior": "learned", **WITH_CYCLE},
        {"translated_class_augmented": True},
        {"translated_pseudo_label_weight": 0.8},
        {"translated_pseudo_label_weight": 0.8, "translated_class_augmented": True},
        {"statistics_weight": 0.4},
        {"source_weak": True},
        {"drawn_batch": 4},
        {"target_stem_class_weight": 0.8},
        {"target_stem_class_weight": 0.8, "tied_trunk": False},
        {"tied_trunk": False},
        {"feature_weight": 0.0},
        {"information_weight": 0.0},
        {"pseudo_label_weight": 0.0},
        {"information_weight": 0.0, "pseudo_label_weight": 0.0},
    ],
    ids=str,
)
def test_a_step_by_hand(settings: dict[str, Any], batch: Batch, fp32: Runtime) -> None:
    """D first; then E and G, against the D that this has made."""
    assert_step_by_hand(batch, *twins(UNIT, fp32, weight_decay=1e-3, **{**ALL_WEIGHTS, **settings}))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"drawn_batch": 4, "translated_pseudo_label_weight": 0.8, "target_stem_class_weight": 0.8, "statistics_weight": 0.4},
        {"source_weak": True},
        {"feature_weight": 0.0},
        {"posterior": "softplus", "adversarial_weight_discriminator": 0.3, "adversarial_on_reconstructions": True, **WITH_CYCLE},
    ],
    ids=str,
)
def test_a_step_behind_a_frozen_body_by_hand(settings: dict[str, Any], batch: Batch, fp32: Runtime) -> None:
    """Pixels beside what the body has made of images; it makes mirror images of the former, so that one can tell."""
    pair = twins(UNIT, fp32, weight_decay=1e-3, **{**ALL_WEIGHTS, **settings})
    for method in pair:
        method.read_drawn = lambda images: 0.7 * images.flip(3)
    assert_step_by_hand(dataclasses.replace(batch, small=(0.9 * batch.source.flip(1), 0.9 * batch.target_weak.flip(1))), *pair)


def assert_step_by_hand(batch: Batch, method: UNIT, twin: UNIT) -> None:
    batch = dataclasses.replace(
        batch, augment=lambda images: 0.5 * images.flip(2), augment_source=lambda images: 0.6 * images.flip(3)
    )
    hand = ByHand(twin, batch)
    of_d = adam(twin.discriminators.parameters(), twin.settings)
    of_g = adam([*twin.encoders.parameters(), *twin.generators.parameters()], twin.settings)
    torch.manual_seed(5)
    q = hand.q(hand.x)
    z = hand.sample(q)
    streams = {f"{i}{j}": hand.g(z[i], j) for i in (1, 2) for j in (1, 2)}
    expected, total = hand.objective_of_d(streams)
    descend(of_d, total)
    of_generators, total = hand.objective_of_g(q, streams)
    descend(of_g, total)

    torch.manual_seed(5)
    assert_losses(method.step(batch), expected | of_generators)
    follow(twin.teacher, method.discriminators.target_classifier())
    follow(twin.translator, Translator(method.encoders, method.generators))
    assert_same_update(method, twin)


# What each part does

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
    assert stem_moves(target_stem_class_weight=1.0)


def test_self_training_begins_after_a_share_of_the_steps(batch: Batch, fp32: Runtime) -> None:
    off = {"adversarial_weight": 0.0, "feature_weight": 0.0}
    method = make(fp32, steps=2, self_training_from=0.5, **off)
    moves = []
    for _ in range(2):
        before = weights(method.discriminators.stems[1])
        method.step(batch)
        moves.append(not torch.equal(before, weights(method.discriminators.stems[1])))
    assert moves == [False, True]


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
