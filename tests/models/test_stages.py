"""Stages of networks as their authors group them."""

import pytest
import torch
from torch import nn

from tests.models.nets import SmallResNet
from uda.models.published import timm_network, torchvision_network
from uda.models.stages import stages_of


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", ["layer3", "layer4"]),
        ("tf_efficientnet_lite0", ["blocks.4", "blocks.6"]),
        ("convnext_atto", ["stages.2", "stages.3"]),
        ("vit_tiny_patch16_224", ["blocks.10", "blocks.11"]),
    ],
)
def test_timm_names_stages_itself(name: str, last: list[str]) -> None:
    with torch.random.fork_rng():
        assert stages_of(timm_network(name, 3, 224, 5), 3, 224, 5)[-2:] == last


def test_a_network_of_ones_own_has_its_parts_for_stages_and_no_head() -> None:
    assert stages_of(SmallResNet(), 1, 32, 10) == ["layer1", "layer2"]


def test_a_part_that_holds_most_is_looked_into() -> None:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert stages_of(nn.Sequential(body, nn.Linear(16, 2)), 1, 16, 2) == ["0.0", "0.1", "0.2"]


def test_squeezenets_stages_are_its_fire_modules() -> None:
    with torch.random.fork_rng():
        assert stages_of(torchvision_network("squeezenet1_1", 5), 3, 224, 5)[-1] == "features.12"
