"""DRIT: its objective by hand, and what its draws do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tests.conftest import small_classifier
from tests.methods import reference as by_hand
from tests.methods.reference import made, weights
from uda.data.batches import Batch
from uda.methods.drit import DRIT, with_style
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


def make(fp32: Runtime, steps: int = 20, **settings: Any) -> DRIT:
    return made(DRIT, fp32, steps, CLASSIFIER, **{"width": 8, "code_dim": 16, **settings})


@pytest.mark.parametrize("encoder", ["map", "backbone"])
def test_reconstruction_falls(fp32: Runtime, batch: Batch, encoder: Any) -> None:
    method = make(fp32, 60, encoder=encoder, content_weight=0.1)
    values = [float(method.step(batch)["reconstruction"]) for _ in range(40)]
    assert sum(values[-5:]) < 0.95 * sum(values[:5])


def test_a_style_belongs_to_the_code_whatever_its_shape() -> None:
    styles = torch.tensor([[1.0, 2.0]])
    assert with_style(torch.zeros(1, 3), styles).tolist() == [[0, 0, 0, 1, 2]]
    spread = with_style(torch.zeros(1, 3, 4, 4), styles)
    assert spread.shape == (1, 5, 4, 4)
    assert (spread[0, 3] == 1).all()
    assert (spread[0, 4] == 2).all()


def test_an_image_has_the_same_draws_in_every_epoch_and_others_than_its_neighbour(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, draws=2)
    first, again = method.translations(batch), method.translations(batch)
    assert first.shape == (12, 3, 16, 16)
    assert torch.equal(first, again)
    twice = batch.source[:1].expand(2, -1, -1, -1)
    same = Batch(twice, batch.source_labels[:2], torch.tensor([3, 4]), batch.target, batch.target)
    drawn = method.translations(same)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3), "another image, another style"
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3), "another draw, another style"


def test_translating_without_a_style_draws_one_and_reconstructing_takes_the_images_own(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32)
    a, b = (method.translate(batch.source, 0, 1) for _ in range(2))
    assert not torch.equal(a, b)
    a, b = (method.translate(batch.source, 0, 0) for _ in range(2))
    assert torch.equal(a, b)
    own = method.translate(batch.source, 0, 1, method.styles(batch.target_weak[:6], 1))
    assert torch.equal(own, method.translate(batch.source, 0, 1, method.styles(batch.target_weak[:6], 1)))


@pytest.mark.parametrize(
    ("weight", "name"),
    [
        ("mode_seeking_weight", "mode_seeking"),
        ("translated_class_weight", "generator_class"),
        ("information_weight", "target_entropy"),
    ],
)
def test_a_weight_of_zero_leaves_its_term_out(fp32: Runtime, batch: Batch, weight: str, name: str) -> None:
    assert name not in make(fp32).step(batch)
    assert name in make(fp32, **{weight: 1.0}).step(batch)


def test_the_translator_moves_and_the_classifiers_loss_does_not_move_it(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, draws_from=0.0)
    before = weights(method.networks)
    values = method.losses(batch)
    values["total"].backward()
    assert "translated_class" in values
    assert all(p.grad is None for p in method.networks.parameters())
    method.step(batch)
    assert not torch.equal(before, weights(method.networks))


def test_a_finished_translator_stays_as_it_is_while_the_classifier_learns_from_it(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, 4, translator_share=0.5, draws_from=0.5)
    early = [method.step(batch) for _ in range(2)]
    finished = weights(method.networks), weights(method.translator)
    late = [method.step(batch) for _ in range(2)]
    assert torch.equal(finished[0], weights(method.networks))
    assert torch.equal(finished[1], weights(method.translator))
    assert all("reconstruction" in values and "translated_class" not in values for values in early)
    assert all("reconstruction" not in values and "translated_class" in values for values in late)


def test_the_class_of_translations_can_be_read_off_augmented_ones(fp32: Runtime, batch: Batch) -> None:
    """Half of the class loss is of images that are painted all black here; they are judged real or fake as they are."""
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    plain = make(fp32, translated_class_weight=1.0).step(black)
    method = make(fp32, translated_class_weight=1.0, translated_class_augmented=True)
    with torch.no_grad():
        logits = method.classify(method.features(torch.full_like(batch.source, -1), 1))
        of_black = by_hand.cross_entropy(logits, batch.source_labels)
    values = method.step(black)
    assert values["generator_adversarial"] == plain["generator_adversarial"]
    expected = float(plain["generator_class"] + of_black) / 2
    assert float(values["generator_class"]) == pytest.approx(expected, abs=1e-5)
    assert float(plain["generator_class"]) != pytest.approx(expected, abs=1e-3)


def test_the_classifier_can_see_its_draws_augmented(fp32: Runtime, batch: Batch) -> None:
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    assert not (make(fp32).translations(black) == -1).any()
    assert (make(fp32, draws_augmented=True).translations(black) == -1).all()
