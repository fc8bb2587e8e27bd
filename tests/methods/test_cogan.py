"""CoGAN: pairs from one noise."""

import pytest
import torch

from tests.conftest import domain
from uda.data.augment import to_float
from uda.data.batches import Batch
from uda.methods.cogan import Method, Settings
from uda.models import build_classifier
from uda.runtime import Runtime


def test_pairs_share_their_tied_layers_and_each_player_moves_only_itself(fp32: Runtime) -> None:
    torch.manual_seed(0)
    method = Method(Settings(width=4), build_classifier("lenet", 3, 16, 10), (3, 16, 16), 10, fp32)
    source, target = method.draw_pairs(3)
    assert source.shape == target.shape == (3, 3, 16, 16)
    assert torch.allclose(source, target), "private layers start alike"
    first = domain("s", 8, 0)
    images = to_float(first.images)
    generators = [p.clone() for p in method.generators.parameters()]
    trunk = [p.clone() for p in method.discriminators.trunks.parameters()]
    for _ in range(3):
        method.step(Batch(images, first.labels, torch.arange(8), -images, -images))
    assert any(not torch.equal(a, b) for a, b in zip(generators, method.generators.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(trunk, method.discriminators.trunks.parameters(), strict=True))
    source, target = method.draw_pairs(3)
    assert not torch.equal(source, target), "private layers have parted"


def test_the_target_learns_the_classes_of_pairs_and_plain_images_are_what_it_is_judged_by(fp32: Runtime) -> None:
    settings = Settings(width=4, adversarial_weight=0.0, class_weight=0.0, weight_decay=0.0)
    method = Method(settings, build_classifier("lenet", 3, 16, 10), (3, 16, 16), 10, fp32)
    first = domain("s", 8, 0)
    images = to_float(first.images)
    batch = Batch(images, first.labels, torch.arange(8), torch.full_like(images, float("nan")), images)
    assert float(method.step(batch)["pair_class"]) == pytest.approx(0, abs=1e-6), "pairs start alike"
    with torch.no_grad():
        for parameter in method.generators.private[1].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    stems = [[p.clone() for p in stem.parameters()] for stem in method.discriminators.stems]
    values = method.step(batch)
    assert float(values["pair_class"]) > 1e-5
    assert torch.isfinite(torch.stack(list(values.values()))).all()
    moved = [
        any(not torch.equal(a, b) for a, b in zip(before, stem.parameters(), strict=True))
        for before, stem in zip(stems, method.discriminators.stems, strict=True)
    ]
    assert moved == [False, True], "the source teaches"
