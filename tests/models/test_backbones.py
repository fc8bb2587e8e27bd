import pytest
import torch
from torch import nn

from uda import UserError
from uda.models import build_classifier, build_foreign


@pytest.mark.parametrize("name", ["strided", "lenet", "unit"])
def test_stem_and_trunk_give_features_of_the_stated_size(name: str) -> None:
    backbone = build_classifier(name, 3, 32, 10).backbone.eval()
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
    backbone = build_classifier("unit", 3, 32, 10).backbone
    widths = [module.out_channels for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    dropouts = [module.p for module in build_classifier("unit", 3, 32, 10).modules() if isinstance(module, nn.Dropout)]
    assert widths == [64, 128, 256, 512]
    assert dropouts == [0.1, 0.3, 0.5, 0.5]
    assert backbone.feature_dim == 2 * 2 * 512


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'strided'"):
        build_classifier("strides", 3, 32, 10)
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_foreign("timm:resnet1 8", 3, 32, 10)


def test_pretrained_and_width_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(UserError, match="no pretrained weights"):
        build_foreign("lenet", 3, 32, 10, pretrained=True)
    with pytest.raises(UserError, match="no base width"):
        build_foreign("timm:resnet18", 3, 32, 10, width=16)
