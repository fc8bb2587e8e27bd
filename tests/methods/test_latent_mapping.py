"""Latent mapping: its objective by hand, and that codes go where their pairs are."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.conftest import domain, small_classifier
from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, made, twins, weights
from uda import UserError
from uda.data.augment import Augment, to_float
from uda.data.batches import Batch
from uda.methods.latent_mapping import LatentMapping, match
from uda.methods.translating import Codes
from uda.models import build_classifier
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


def make(fp32: Runtime, **settings: Any) -> LatentMapping:
    return made(LatentMapping, fp32, 20, CLASSIFIER, **{"width": 4, "code_dim": 8, "hidden": 64, **settings})


# The objective by hand

WEIGHTS: dict[str, Any] = {
    "width": 4,
    "code_dim": 8,
    "hidden": 16,
    "kl_weight": 0.7,
    "code_class_weight": 13.0,
    "closeness_weight": 0.4,
    "source_weight": 0.8,
    "translated_weight": 0.6,
    "information_weight": 1.3,
    "pseudo_label_weight": 1.1,
    "rebuilt_class_weight": 1.7,
    "statistics_weight": 0.9,
    "vae_share": 0.5,
    "confidence": 0.168,
}


def classifier_by_hand(twin: LatentMapping, batch: Batch, translated: Tensor | None) -> dict[str, Tensor]:
    """One step of C; `translated`: the source's images in the target's domain."""
    logits, teacher = twin.network(batch.target), twin.teacher(batch.target_weak).detach()
    expected = {
        "class": by_hand.cross_entropy(twin.network(batch.source), batch.source_labels),
        "target_entropy": by_hand.entropy(logits),
        "target_marginal_entropy": by_hand.marginal_entropy(logits),
        "pseudo_label": by_hand.sure_cross_entropy(logits, teacher, 0.168),
    }
    total = 0.8 * expected["class"] + 1.3 * (expected["target_entropy"] - expected["target_marginal_entropy"])
    total = total + 1.1 * expected["pseudo_label"]
    if translated is not None:
        expected["translated_class"] = by_hand.cross_entropy(twin.network(translated), batch.source_labels)
        total = total + 0.6 * expected["translated_class"]
    descend(adamw(twin.network.parameters(), twin.settings), total)
    return {**expected, "total": total}


def adam(networks: nn.Module, *others: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for network in (networks, *others) for parameter in network.parameters()]
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.999))


@pytest.mark.parametrize("source_weak", [False, True])
def test_a_step_of_the_vaes_by_hand(source_weak: bool, fp32: Runtime, batch: Batch) -> None:
    method, twin = twins(LatentMapping, fp32, done=9, source_weak=source_weak, **WEIGHTS)
    x = {1: batch.source_weak if source_weak else batch.source, 2: batch.target_weak[: len(batch.source)]}
    torch.manual_seed(5)
    reconstruction, divergence, statistics, posteriors, rebuilt = *(torch.zeros(()) for _ in range(3)), [], []
    for i in (1, 2):
        vae = twin.vaes[i - 1]
        mean, log_variance = vae.encoder(x[i]).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        rebuilt.append(vae.decoder(z))
        reconstruction = reconstruction + by_hand.l2(rebuilt[-1], x[i])
        divergence = divergence + by_hand.kl_to_normal(mean, log_variance)
        drawn, real = (F.avg_pool2d(images, 2).flatten(1) for images in (rebuilt[-1], x[i]))
        for of_drawn, of_real in (
            (drawn.mean(0), real.mean(0)),
            *[[(images.var(0, correction=0) + 1e-6).sqrt() for images in (drawn, real)]],
        ):
            statistics = statistics + ((of_drawn - of_real) ** 2).sum()
        posteriors.append((mean, log_variance))
    mean, log_variance = posteriors[0]
    z_1 = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    of_class = by_hand.cross_entropy(twin.code_head(z_1), batch.source_labels)
    shown = torch.cat([rebuilt[0], batch.augment_source(rebuilt[0])])
    reading = by_hand.cross_entropy(twin.teacher(shown), torch.cat([batch.source_labels, batch.source_labels]))
    total = reconstruction + 0.7 * divergence + 13 * of_class + 0.9 * statistics + 1.7 * reading
    descend(adam(twin.vaes, twin.code_head), total)
    expected = {
        "reconstruction": reconstruction, "kl": divergence, "code_class": of_class, "statistics": statistics,
        "rebuilt_class": reading,
    }  # fmt: skip
    expected |= classifier_by_hand(twin, batch, None)
    follow(twin.teacher, twin.network, remembered=10 / 19)

    torch.manual_seed(5)
    assert_losses(method.step(batch), expected)
    assert_same_update(method, twin)


def one_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row the one chosen at random of those that are true; and whether there is one."""
    return (mask * torch.rand(mask.shape)).argmax(1), mask.any(1)


def mapping_by_hand(
    twin: LatentMapping, codes: list[Tensor], labels: list[Tensor], updates: int, negatives: bool = True
) -> dict[str, Tensor]:
    """Steps of both D, then of both G, between the same codes; without `negatives` those of the paper."""
    of_d, of_g = adam(twin.discriminators), adam(twin.mappers)

    def d(i: int, z: Tensor, other: Tensor) -> Tensor:
        """The pair discriminator of the codes that those of domain i are mapped to."""
        return twin.discriminators[1 - i](torch.cat([z, other], 1))

    def g(i: int, z: Tensor, e: Tensor) -> Tensor:
        return e + twin.mappers[i].move(torch.cat([z, e], 1))

    for _ in range(updates):
        pairs, drawn = torch.zeros(()), []
        for i in (0, 1):
            mine, theirs = labels[i][:, None], labels[1 - i][None]
            partner, matched = one_of((mine == theirs) & (mine >= 0))
            z, real = codes[i][matched], codes[1 - i][partner[matched]]
            e = torch.randn_like(z)
            drawn.append((z, e))
            pairs = pairs + by_hand.is_real(d(i, z, real)) + by_hand.is_fake(d(i, z, g(i, z, e).detach()))
            pairs = pairs + by_hand.is_fake(d(i, z, e))
            if negatives:
                negative, unlike = one_of((mine != theirs) & (mine >= 0) & (theirs >= 0))
                pairs = pairs + by_hand.is_fake(d(i, codes[i][unlike], codes[1 - i][negative[unlike]]))
        descend(of_d, pairs)
        deceiving = sum(by_hand.is_real(d(i, z, g(i, z, e))) for i, (z, e) in enumerate(drawn))
        closeness = sum(((e - g(i, z, e)) ** 2).mean() for i, (z, e) in enumerate(drawn))
        descend(of_g, deceiving + 0.4 * closeness)
    matched = torch.tensor(len(drawn[0][0]) / len(codes[0]))
    return {
        "discriminator_adversarial": pairs, "generator_adversarial": deceiving, "closeness": closeness, "matched": matched,
    }  # fmt: skip


def codes_by_hand(twin: LatentMapping, source: Tensor, target: Tensor) -> list[Tensor]:
    return [vae.encoder(x).chunk(2, 1)[0].detach() for vae, x in zip(twin.vaes, (source, target), strict=True)]


@pytest.mark.parametrize(("updates", "negatives"), [(1, True), (2, True), (1, False)])
def test_a_step_of_the_mapping_by_hand(updates: int, negatives: bool, fp32: Runtime, batch: Batch) -> None:
    method, twin = twins(LatentMapping, fp32, mapping_updates=updates, negatives=negatives, **WEIGHTS)
    source, target = batch.source, batch.target_weak[:5]
    labels = [torch.tensor([4, 9, 3, 3, -1, 9]), torch.tensor([3, 9, 9, -1, 2])]
    torch.manual_seed(5)
    expected = mapping_by_hand(twin, codes_by_hand(twin, source, target), labels, updates, negatives)

    torch.manual_seed(5)
    assert_losses(method.update_mapping(source, labels[0], target, labels[1]), expected)
    assert_same_update(method, twin)


@pytest.mark.parametrize("source_weak", [False, True])
def test_a_step_after_the_vaes_are_done_by_hand(source_weak: bool, fp32: Runtime, batch: Batch) -> None:
    """Classes of target images are the teacher's."""
    labelled = dataclasses.replace(batch, source_labels=torch.tensor([7, 7, 3, 0, 3, 5]))
    method, twin = twins(LatentMapping, fp32, done=10, mapping_updates=1, source_weak=source_weak, **WEIGHTS)
    source = batch.source_weak if source_weak else batch.source
    count = len(batch.source)
    target = batch.target_weak[:count]
    sure, label = by_hand.log_probabilities(twin.teacher(target)).exp().max(1)
    of_target = torch.where(sure > 0.168, label, -1)
    torch.manual_seed(5)
    codes = codes_by_hand(twin, source, target)
    expected = mapping_by_hand(twin, codes, [labelled.source_labels, of_target], 1)
    e = torch.randn(count, 8)
    mapped = e + twin.mappers[0].move(torch.cat([codes[0], e], 1))
    expected |= classifier_by_hand(twin, labelled, twin.vaes[1].decoder(mapped).detach())
    follow(twin.teacher, twin.network, remembered=11 / 20)

    torch.manual_seed(5)
    assert_losses(method.step(labelled), expected)
    assert_same_update(method, twin)


# What each part does


def test_matches_have_the_same_label_and_those_without_one_are_known() -> None:
    labels, others = torch.tensor([3, 1, 7, -1]), torch.tensor([1, 3, 3, -1])
    for _ in range(20):
        partner, matched = match(labels, others)
        assert matched.tolist() == [True, True, False, False]
        assert others[partner[:2]].tolist() == [3, 1]


def test_negatives_are_of_another_class_that_is_known() -> None:
    labels, others = torch.tensor([3, 1, -1]), torch.tensor([1, 3, 3, -1])
    for _ in range(20):
        negative, unlike = match(labels, others, equal=False)
        assert unlike.tolist() == [True, True, False]
        assert others[negative[:2]].tolist() == [1, 3]
    assert not match(torch.tensor([1]), torch.tensor([1, -1]), equal=False)[1].any()


def test_vaes_learn_to_draw_their_domain(fp32: Runtime) -> None:
    method = make(fp32)
    source, target = (to_float(domain("d", 16, seed).images) for seed in (0, 1))
    labels = torch.arange(len(source)) % 10
    values = [float(method.update_vaes(source, labels, target, Augment())["reconstruction"]) for _ in range(40)]
    assert values[-1] < 0.6 * values[0]


def test_rebuilt_source_images_are_read_as_their_class(fp32: Runtime) -> None:
    """By a classifier that knows the images; nothing else teaches the decoder."""
    images = domain("d", 32, 0)
    source, target = to_float(images.images), to_float(domain("d", 16, 1).images)
    classifier = copy.deepcopy(CLASSIFIER)
    optimizer = torch.optim.Adam(classifier.parameters(), 1e-3)
    for _ in range(60):
        descend(optimizer, by_hand.cross_entropy(classifier(source), images.labels))
    made_of = {"width": 4, "code_dim": 8, "hidden": 64, "code_class_weight": 0.0}
    method = made(LatentMapping, fp32, 20, classifier, **made_of)
    for _ in range(60):
        method.update_vaes(source, images.labels, target, Augment())
    with torch.no_grad():
        read = method.teacher(method.translate(source, 0, 0)).argmax(1)
    assert (read == images.labels).float().mean() > 0.8


@pytest.mark.parametrize("encoder", ["backbone", "convolutional"])
def test_codes_of_the_source_tell_its_class(fp32: Runtime, encoder: str) -> None:
    method = make(fp32, encoder=encoder)
    images = domain("d", 32, 0)
    source, target = to_float(images.images), to_float(domain("d", 16, 1).images)
    for _ in range(60):
        method.update_vaes(source, images.labels, target, Augment())
    told = method.code_head(method.encode(source, 0).values).argmax(1)
    assert (told == images.labels).float().mean() > 0.8


def test_the_source_vae_starts_from_the_source_classifier(fp32: Runtime) -> None:
    method = make(fp32)
    began = method.vae(0).encoder[0]
    for a, b in zip(began.parameters(), CLASSIFIER.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_mapped_codes_move_to_the_paired_class(fp32: Runtime) -> None:
    """Two classes, whose codes are far apart in the other domain: after training a code of one is mapped to its pair's side."""
    method = make(fp32)
    labels = torch.arange(64) % 2
    direction = torch.ones(8)
    codes = [torch.randn(64, 8) * 0.1 + (labels * 4 - 2)[:, None] * direction * sign for sign in (1.0, -1.0)]
    method.encode = lambda images, domain: Codes(codes[domain], domain)  # type: ignore[method-assign]
    for _ in range(150):
        method.update_mapping(torch.zeros(64, 1), labels, torch.zeros(64, 1), labels)
    with torch.no_grad():
        mapped = method.mappers[0](codes[0], torch.randn(64, 8))
    near = (mapped[:, None] - torch.stack([codes[1][0], codes[1][1]])).norm(dim=2).argmin(1)
    assert (near == labels).float().mean() > 0.9


def test_nothing_is_learned_from_a_batch_without_a_match(fp32: Runtime) -> None:
    method = make(fp32)
    before = weights(method.mappers)
    images = to_float(domain("d", 4, 0).images)
    values = method.update_mapping(images, torch.zeros(4, dtype=torch.int64), images, torch.full((4,), -1))
    assert float(values["matched"]) == 0
    assert torch.equal(before, weights(method.mappers))


def test_saved_vaes_are_used_again_and_others_are_refused(fp32: Runtime, tmp_path: Path) -> None:
    first, file = make(fp32), tmp_path / "method.safetensors"
    with torch.no_grad():
        for parameter in first.vaes.parameters():
            parameter.add_(0.1)
    save_file({name: value.contiguous() for name, value in first.state_dict().items()}, file)
    second = make(fp32, vaes=str(file))
    assert second.vae_steps == 0
    assert torch.equal(weights(first.vaes), weights(second.vaes))
    with pytest.raises(UserError, match="no VAEs of this size"):
        make(fp32, width=8, vaes=str(file))
    with pytest.raises(UserError, match="no VAEs"):
        make(fp32, vaes=str(tmp_path / "nowhere.safetensors"))


def test_the_vaes_of_a_recipe_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert LatentMapping.Settings(vaes="run/method.safetensors").vaes == str(tmp_path / "run" / "method.safetensors")


def test_codes_are_without_the_noise_of_dropout(fp32: Runtime, batch: Batch) -> None:
    torch.manual_seed(0)
    method = made(LatentMapping, fp32, 20, build_classifier("unit", 3, 16, 10, width=4), width=4, code_dim=8, hidden=16)
    a, b = (method.encode(batch.source, 0).values for _ in range(2))
    assert torch.equal(a, b)
    assert method.vaes.training, "what trains is left as it was"


def test_a_style_is_the_noise_of_the_mapping(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32)
    first, again = (method.translate(batch.source, 0, 1, method.draw_styles(1).expand(6, -1)) for _ in range(2))
    assert not torch.equal(first, again), "another draw, another image"
    style = method.draw_styles(6)
    assert style.shape == (6, 8)
    assert torch.equal(*(method.translate(batch.source, 0, 1, style) for _ in range(2)))
