"""Latent mapping: its objective by hand, and that codes go where their pairs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import domain, small_classifier
from tests.methods.reference import made, weights
from uda import UserError
from uda.data.augment import to_float
from uda.methods.latent_mapping import LatentMapping, match
from uda.methods.translating import Codes
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


def make(fp32: Runtime, **settings: Any) -> LatentMapping:
    return made(LatentMapping, fp32, 20, CLASSIFIER, **{"width": 4, "code_dim": 8, "hidden": 64, **settings})


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
    values = [float(method.update_vaes(source, labels, target)["reconstruction"]) for _ in range(40)]
    assert values[-1] < 0.6 * values[0]


@pytest.mark.parametrize("encoder", ["backbone", "convolutional"])
def test_codes_of_the_source_tell_its_class(fp32: Runtime, encoder: str) -> None:
    method = make(fp32, encoder=encoder)
    images = domain("d", 32, 0)
    source, target = to_float(images.images), to_float(domain("d", 16, 1).images)
    for _ in range(60):
        method.update_vaes(source, images.labels, target)
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


def test_a_pairing_has_a_class_for_each(fp32: Runtime) -> None:
    with pytest.raises(UserError, match="pairing"):
        make(fp32, pairing=(1, 2))
