"""CoGAN: pairs from one noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.methods.reference import made, weights
from uda.data.batches import Batch
from uda.methods.cogan import CoGAN
from uda.models import build_classifier
from uda.runtime import Runtime


def make(fp32: Runtime, **settings: Any) -> CoGAN:
    torch.manual_seed(0)
    return made(CoGAN, fp32, 10, build_classifier("lenet", 3, 16, 10), width=4, noise_dim=8, **settings)


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
