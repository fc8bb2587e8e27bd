"""Published preprocessing: timm's and torchvision's figures, read without building or downloading anything."""

from __future__ import annotations

import pytest

from uda import UserError
from uda.models.preprocessing import Preprocessing, preprocessing_of

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("timm:resnet18", Preprocessing(224, 235, "bicubic", *IMAGENET)),  # floor(224 / 0.95)
        ("timm:resnet18.tv_in1k", Preprocessing(224, 256, "bilinear", *IMAGENET)),
        ("timm:tf_efficientnet_lite0", Preprocessing(224, 256, "bicubic", *HALF)),
        ("timm:vit_small_patch14_dinov2", Preprocessing(518, 518, "bicubic", *IMAGENET)),
        ("torchvision:squeezenet1_1", Preprocessing(224, 256, "bilinear", *IMAGENET)),
        ("torchvision:resnet50", Preprocessing(224, 232, "bilinear", *IMAGENET)),
        ("torchvision:swin_t", Preprocessing(224, 232, "bicubic", *IMAGENET)),
    ],
)
def test_the_figures_are_the_publishers(backbone: str, expected: Preprocessing) -> None:
    assert preprocessing_of(backbone) == expected


@pytest.mark.parametrize("backbone", ["strided", "lenet", "nets.py:Net", "pkg.nets:build", "given in Python"])
def test_other_networks_have_none(backbone: str) -> None:
    assert preprocessing_of(backbone) is None


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("timm:resnet1 8", "unknown timm network 'resnet1 8'; did you mean 'resnet18'"),
        ("timm:resnet18.a1_in2k", "did you mean 'resnet18.a1_in1k'"),
        ("torchvision:resnet5", "unknown torchvision network 'resnet5'; did you mean 'resnet50'"),
        ("torchvision:fcn_resnet50", "unknown torchvision network"),  # it labels pixels
    ],
)
def test_unknown_names_get_the_nearest(backbone: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        preprocessing_of(backbone)
