import pytest
import torch
from torch import nn

from uda import UserError
from uda.models import build_backbone, build_classifier
from uda.models.layers import AppendCoordinates, ImageNorm, widen_for_coordinates

NAMES = [
    "strided",
    "lenet",
    "unit",
    "timm:resnet18",
    "timm:mobilenetv3_small_050",
    "timm:vit_tiny_patch16_224",
    "timm:convnext_atto",
]


@pytest.mark.parametrize("name", NAMES)
def test_stem_and_trunk_give_features_of_the_stated_size(name: str) -> None:
    backbone = build_backbone(name, 3, 32).eval()
    images = torch.randn(2, 3, 32, 32)
    features = backbone.trunk(backbone.stem(images))
    assert features.shape == (2, backbone.feature_dim)
    assert torch.equal(features, backbone(images))
    assert any(True for _ in backbone.stem.parameters()), "a stem without weights could not be private to a domain"


@pytest.mark.parametrize("name", ["strided", "lenet", "unit"])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 64)])
def test_our_nets_take_other_sizes_and_channels(name: str, channels: int, size: int) -> None:
    assert build_classifier(name, channels, size, 7)(torch.randn(2, channels, size, size)).shape == (2, 7)


def test_the_published_discriminator_has_the_published_widths() -> None:
    backbone = build_backbone("unit", 3, 32)
    widths = [module.out_channels for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    dropouts = [module.p for module in build_classifier("unit", 3, 32, 10).modules() if isinstance(module, nn.Dropout)]
    assert widths == [64, 128, 256, 512]
    assert dropouts == [0.1, 0.3, 0.5, 0.5]
    assert backbone.feature_dim == 2 * 2 * 512


def test_a_timm_network_from_scratch_has_no_batch_norm() -> None:
    assert not any(isinstance(module, nn.BatchNorm2d) for module in build_backbone("timm:resnet18", 3, 32).modules())


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'strided'"):
        build_backbone("strides", 3, 32)
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_backbone("timm:resnet1 8", 3, 32)


def test_pretrained_and_width_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(UserError, match="no pretrained weights"):
        build_backbone("lenet", 3, 32, pretrained=True)
    with pytest.raises(UserError, match="no base width"):
        build_backbone("timm:resnet18", 3, 32, width=16)


def test_image_norm_is_group_norm_with_one_group() -> None:
    norm = ImageNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = torch.randn(3, 6, 5, 5)
    expected = nn.functional.group_norm(images, 1, norm.weight, norm.bias)
    assert torch.allclose(norm(images), expected, atol=1e-5)


def test_coordinates_run_from_minus_one_to_one() -> None:
    out = AppendCoordinates()(torch.zeros(2, 3, 4, 6))
    assert out.shape == (2, 5, 4, 6)
    assert out[0, 3, 0].tolist() == pytest.approx([-1, -0.6, -0.2, 0.2, 0.6, 1])
    assert out[1, 4, :, 0].tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])


def test_widening_for_coordinates_changes_nothing_at_first_and_learns() -> None:
    stem = build_backbone("strided", 3, 32).stem
    images = torch.randn(2, 3, 32, 32)
    before = stem(images).detach()
    wide = widen_for_coordinates(stem)
    after = wide(images)
    assert torch.allclose(before, after, atol=1e-5)
    after.square().sum().backward()
    first = next(module for module in wide.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad[:, 3:].abs().sum() > 0
