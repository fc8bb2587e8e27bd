"""DRIT: what its losses and its draws do."""

import dataclasses
from typing import Any

import pytest
import torch

from tests.conftest import domain, small_classifier
from uda import losses
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.drit import Method, Settings, with_style
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


@pytest.fixture(scope="module")
def batch() -> Batch:
    source, target = domain("s", 8, 0), domain("t", 8, 1)
    return Batch(to_float(source.images), source.labels, torch.arange(8), to_float(target.images), to_float(target.images))


def make(fp32: Runtime, steps: int = 20, **settings: Any) -> Method:
    torch.manual_seed(0)
    return Method(Settings(width=8, code_dim=16, **settings), CLASSIFIER, (3, 16, 16), steps, fp32)


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
    first, again = method.drawn(batch), method.drawn(batch)
    assert first.shape == (16, 3, 16, 16)
    assert torch.equal(first, again)
    twice = batch.source[:1].expand(2, -1, -1, -1)
    same = Batch(twice, batch.source_labels[:2], torch.tensor([3, 4]), batch.target, batch.target)
    drawn = method.drawn(same)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3), "another image, another style"
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3), "another draw, another style"


def test_translating_without_a_style_draws_one_and_reconstructing_takes_the_images_own(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32)
    a, b = (method.translate(batch.source, 0, 1) for _ in range(2))
    assert not torch.equal(a, b)
    a, b = (method.translate(batch.source, 0, 0) for _ in range(2))
    assert torch.equal(a, b)
    own = method.translate(batch.source, 0, 1, method.styles(batch.target, 1))
    assert torch.equal(own, method.translate(batch.source, 0, 1, method.styles(batch.target, 1)))


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
    before = [p.clone() for p in method.translator_parameters]
    values = method.losses(batch)
    values["total"].backward()
    assert "translated_class" in values
    assert all(p.grad is None for p in method.translator_parameters)
    method.step(batch)
    assert any(not torch.equal(a, b) for a, b in zip(before, method.translator_parameters, strict=True))


def test_a_finished_translator_stays_as_it_is_while_the_classifier_learns_from_it(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, 4, translator_share=0.5, draws_from=0.5)
    early = [method.step(batch) for _ in range(2)]
    finished = [p.clone() for p in method.translator_parameters]
    late = [method.step(batch) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(finished, method.translator_parameters, strict=True))
    assert all("reconstruction" in values and "translated_class" not in values for values in early)
    assert all("reconstruction" not in values and "translated_class" in values for values in late)


def test_the_class_of_translations_can_be_read_off_augmented_ones(fp32: Runtime, batch: Batch) -> None:
    """Half of the class loss is of images that are painted all black here; they are judged real or fake as they are."""
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    plain = make(fp32, translated_class_weight=1.0).step(black)
    method = make(fp32, translated_class_weight=1.0, translated_class_augmented=True)
    with torch.no_grad():
        logits = method.classify(method.features(torch.full_like(batch.source, -1), 1))
        of_black = losses.cross_entropy(logits, batch.source_labels)
    values = method.step(black)
    assert values["generator_adversarial"] == plain["generator_adversarial"]
    expected = float(plain["generator_class"] + of_black) / 2
    assert float(values["generator_class"]) == pytest.approx(expected, abs=1e-5)
    assert float(plain["generator_class"]) != pytest.approx(expected, abs=1e-3)


def test_the_classifier_can_see_its_draws_augmented(fp32: Runtime, batch: Batch) -> None:
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    assert torch.equal(make(fp32).seen(black), make(fp32).drawn(black))
    assert (make(fp32, draws_augmented=True).seen(black) == -1).all()
