"""A frozen body and what is trained after it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.conftest import small_classifier
from tests.models.nets import SmallResNet
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.models.frozen import Body, DomainNorm, Resized, TwoNorms, Whole, freeze, with_head
from uda.models.layers import by_domain, convert_domain_batch_norm, learn_statistics
from uda.models.published import timm_network

IMAGES = torch.rand(4, 1, 16, 16) * 2 - 1


def resnet() -> Classifier:
    torch.manual_seed(0)
    return split_network(SmallResNet(), 1, 16, 10).eval()


@pytest.mark.parametrize("whole_backbone", [True, False])
def test_the_parts_compute_what_the_network_computed(whole_backbone: bool) -> None:
    network = resnet()
    body, rest = freeze(network, whole_backbone)
    assert torch.allclose(Whole(body, rest)(IMAGES), network(IMAGES), atol=1e-5)
    assert torch.allclose(rest(body(IMAGES)), network(IMAGES), atol=1e-5)


def test_a_body_stays_in_evaluation_mode_and_takes_no_gradient() -> None:
    network = resnet()
    body, rest = freeze(network, whole_backbone=True)
    before = {name: value.clone() for name, value in body.state_dict().items()}
    Whole(body, rest).train()(IMAGES).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    assert all(parameter.grad is None for parameter in body.parameters())
    assert rest.training
    assert rest.head.weight.grad is not None


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "tf_efficientnet_lite0"])
def test_fused_batch_norms_compute_the_same(name: str) -> None:
    network = timm_network(name, 3, 32, 10).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    body, images = Body(network), torch.rand(2, 3, 32, 32)
    fused = body.fused()
    assert torch.allclose(fused(images), body(images), rtol=1e-3, atol=1e-4)
    had, has = (sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in b.modules()) for b in (body, fused))
    assert has <= had // 4, "but for one behind a stem of several convolutions"
    assert all(not parameter.requires_grad for parameter in fused.parameters())


@pytest.mark.parametrize("whole_backbone", [True, False])
def test_two_norms_average_what_both_statistics_make_of_target_images(whole_backbone: bool) -> None:
    torch.manual_seed(0)
    body, _ = freeze(split_network(SmallResNet(), 1, 16, 10, "layer1").eval(), whole_backbone)
    target = torch.rand(40, 1, 16, 16) * 0.3
    both = TwoNorms(body, (1, 16, 16))
    assert torch.allclose(both(target), body(target), atol=1e-6), "as long as it has learned nothing"
    both.learn(target.split(20))
    alone = convert_domain_batch_norm(copy.deepcopy(body.network))
    learn_statistics(alone, alone, target.split(20))
    over = [0, *range(2, body(target).ndim)]
    own, other = body(target), alone(target)
    by_hand = (other - other.mean(over, keepdim=True)) / other.std(over, keepdim=True).clamp_min(1e-6)
    by_hand = by_hand * own.std(over, keepdim=True) + own.mean(over, keepdim=True)
    assert not torch.allclose(by_hand, own, rtol=1e-2, atol=1e-5)
    assert torch.allclose(both(target), (own + by_hand) / 2, atol=1e-6)
    assert torch.allclose(both.fused()(target), both(target), rtol=1e-3, atol=1e-4)
    assert torch.equal(body(target), own), "the source's body is left as it was"


@pytest.mark.parametrize("whole_backbone", [True, False])
def test_a_new_head_has_a_bottleneck_that_is_trained(whole_backbone: bool) -> None:
    body, rest = freeze(resnet(), whole_backbone)
    classifier = with_head(rest, 7, 20, 0.5)
    assert classifier(body(IMAGES)).shape == (4, 7)
    assert classifier.backbone(body(IMAGES)).shape == (4, 20)
    assert classifier.classes == 7
    assert classifier.backbone.feature_dim == 20
    stem = any(True for _ in classifier.backbone.stem.parameters())
    assert stem == whole_backbone, "where all is frozen, the bottleneck is the first that is trained, and UNIT's stem"


def test_features_are_normalised_by_the_statistics_of_their_own_domain() -> None:
    norm = nn.Sequential(DomainNorm(3))
    norm(torch.randn(500, 3) * 2 + 5)
    norm[0].momentum = None
    norm[0].reset_running_stats()
    source, target = torch.randn(400, 3) * 2 + 5, torch.randn(300, 3) * 0.5 - 3
    norm(source)
    network = convert_domain_batch_norm(norm)
    learn_statistics(network, network, [target])
    out = by_domain(network, torch.cat([source, target]), (400, 0), (300, 1))
    for part in out.split([400, 300]):
        assert torch.allclose(part.mean(0), torch.zeros(3), atol=1e-3)
        assert torch.allclose(part.std(0), torch.ones(3), atol=0.02)


def test_our_own_networks_can_be_frozen_too() -> None:
    network, images = small_classifier().eval(), torch.rand(2, 3, 16, 16)
    body, rest = freeze(network, whole_backbone=True)
    assert torch.allclose(Whole(body, rest)(images), network(images), atol=1e-5)


@pytest.mark.parametrize("size", [16, 24])
def test_images_of_another_side_are_read_at_one_side_and_only_they_have_a_gradient(size: int) -> None:
    body, _ = freeze(resnet(), whole_backbone=True)
    images = (torch.rand(4, 1, 8, 8) * 2 - 1).requires_grad_()
    seen = Resized(body, size)(images)
    larger = F.interpolate(images, (size, size), mode="bilinear")
    assert torch.allclose(seen, body(larger), rtol=1e-3, atol=1e-4)
    seen.square().sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum((1, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in body.parameters())


def test_a_body_that_cannot_be_fused_reads_them_itself() -> None:
    """Its normalisation is called twice, of which a list of its modules says nothing."""

    class Twice(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self[1](super().forward(images))

    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_var, 0.3, 0.6)  # type: ignore[arg-type]
    body = Body(Twice(nn.Conv2d(1, 4, 3), norm))
    assert body.fastest(IMAGES) is body
    assert torch.equal(Resized(body, 16)(IMAGES), body(IMAGES))


def test_of_one_target_image_two_norms_learn_nothing() -> None:
    body, _ = freeze(split_network(SmallResNet(), 1, 16, 10, "layer1").eval(), True)
    both, image = TwoNorms(body, (1, 16, 16)), torch.rand(1, 1, 16, 16)
    own, same = both.learn([image])
    assert torch.equal(own, same)
    assert torch.allclose(both(image), body(image), atol=1e-6)
