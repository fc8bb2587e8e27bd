"""Networks by timm's and torchvision's names: their published weights, and bodies from files."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import CHECKOUT
from uda import UserError
from uda.models import build_foreign
from uda.models.custom import find_head
from uda.models.heads import pool_before_head
from uda.models.published import as_named_here, check_published
from uda.models.weights import load_body, read_state

WEIGHTS = CHECKOUT.parent / "shared" / "data" / "weights"


def network(name: str, channels: int = 3, size: int = 32, classes: int = 31, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    foreign = build_foreign(name, channels, size, classes)
    assert foreign is not None
    return foreign[0].eval()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name can be looked up, and nothing was fetched before."""

    def nowhere(*_: object, **__: object) -> Any:
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:vit_tiny_patch16_224", "torchvision:squeezenet1_1"])
def test_weights_that_cannot_be_fetched_are_one_line_with_two_ways_out(name: str, offline: None) -> None:
    with pytest.raises(UserError, match=rf"the weights of {name}, https://\S+, cannot be had") as caught:
        build_foreign(name, 3, 32, 7, pretrained=True)
    said = str(caught.value)
    assert "\n" not in said
    assert "--backbone-weights FILE" in said
    assert "--set classifier.pretrained=false" in said


def test_a_network_without_published_weights_is_named() -> None:
    check_published("timm:resnet10t")
    check_published("torchvision:resnet18")
    with pytest.raises(UserError, match=r"no weights of timm:mixer_s16_224 are published; .*--backbone-weights FILE"):
        check_published("timm:mixer_s16_224")


def test_images_that_a_network_cannot_take_are_not_blamed_on_its_weights(offline: None) -> None:
    with pytest.raises(UserError, match=r"timm:xcit_nano_12_p8_224 cannot be built for 3x4x4 images .*--size 224"):
        build_foreign("timm:xcit_nano_12_p8_224", 3, 4, 7, pretrained=True)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_random_weights_have_the_published_preprocessing(name: str) -> None:
    _, normalize = build_foreign(name, 3, 32, 7) or pytest.fail("no network")
    assert (normalize.mean, normalize.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_grey_images_have_the_mean_of_the_published_figures() -> None:
    _, normalize = build_foreign("timm:resnet10t", 1, 32, 7) or pytest.fail("no network")
    assert normalize.mean == pytest.approx((0.449,), abs=1e-6)


def test_position_embeddings_and_channels_come_in_the_networks_number() -> None:
    """As timm itself does it for weights that it downloads."""
    large, small = network("timm:vit_tiny_patch16_224", size=64, classes=5), network("timm:vit_tiny_patch16_224", 1, 32)
    state = as_named_here(large.state_dict(), small)
    load_body(state, small, "head", "body.pt")
    own, whole = small.state_dict(), large.state_dict()
    assert own["pos_embed"].shape == (1, 1 + 2 * 2, 192)
    assert torch.equal(own["pos_embed"][:, 0], whole["pos_embed"][:, 0]), "the class token's own"
    assert torch.allclose(own["patch_embed.proj.weight"], whole["patch_embed.proj.weight"].sum(1, keepdim=True))


def test_old_names_of_densenets_are_understood() -> None:
    old = {"features.denseblock1.denselayer2.norm.1.weight": torch.zeros(3), "features.norm0.weight": torch.zeros(2)}
    names = as_named_here(old, nn.Linear(1, 1))
    assert list(names) == ["features.denseblock1.denselayer2.norm1.weight", "features.norm0.weight"]


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        (
            "timm:tf_efficientnet_lite0",
            "tf_efficientnet_lite0_imagenet.safetensors",
            "; the head (classifier.bias, classifier.weight of 1000 classes) is made anew for 31",
        ),
        (
            "torchvision:squeezenet1_1",
            "squeezenet1_1_imagenet_features.safetensors",
            ", which has no head; one is made for 31 classes",
        ),
    ],
)
def test_real_bodies_load_under_a_head_that_does_not_depend_on_them(name: str, file: str, said: str) -> None:
    if not (WEIGHTS / file).exists():
        pytest.skip(f"no {WEIGHTS / file}")
    built, fresh = (pool_before_head(network(name)).eval() for _ in range(2))
    head, state = find_head(built, 3, 32, 31), read_state(WEIGHTS / file)
    assert load_body(as_named_here(state, built), built, head, file).endswith(said)
    own, drawn = built.state_dict(), fresh.state_dict()
    for key in own:
        if key.startswith(f"{head}."):
            assert torch.equal(own[key], drawn[key])
        elif key in state:
            assert torch.equal(own[key], state[key])
    assert sum(key in state for key in own if not key.startswith(f"{head}.")) > 40
