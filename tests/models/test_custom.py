"""Networks from elsewhere: found, taken apart without changing what they compute, and put together again."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.models import nets
from uda import UserError
from uda.models import build_foreign
from uda.models.backbones import Classifier
from uda.models.custom import Trunk, load_network, split_network, whole_state_dict
from uda.models.heads import pool_before_head
from uda.models.layers import DomainBatchNorm, Normalize, convert_domain_batch_norm

NETWORKS = [nets.SmallResNet, nets.LogSoftmaxNet, nets.Perceptron, nets.OwnPreprocessing]
NETS_FILE = Path(nets.__file__)


def images(channels: int = 1, size: int = 16) -> torch.Tensor:
    return torch.rand(4, channels, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("make", NETWORKS)
def test_a_split_network_computes_what_it_did(make: type[nn.Module]) -> None:
    network = make().eval()
    classifier = split_network(network, 1, 16, 10, normalize=Normalize((0.2,), (0.4,))).eval()
    x = images()
    features = classifier.backbone(x)
    assert features.shape == (4, classifier.backbone.feature_dim)
    expected = network((x * 0.5 + 0.5 - 0.2) / 0.4)
    assert torch.allclose(classifier(x).softmax(1), expected.softmax(1), atol=1e-5)
    assert any(True for _ in classifier.backbone.stem.parameters()), "a stem without weights could not be private to a domain"


@pytest.mark.parametrize(
    ("name", "size", "split"),
    [
        ("timm:resnet10t", 32, "layer2"),
        ("timm:resnetv2_50x1_bit", 32, None),  # its head is a 1x1 convolution of a pooled map
        ("timm:mobilenetv3_small_050", 32, "blocks.3"),
        ("timm:convnext_atto", 32, "stages.1"),
        ("timm:vit_tiny_patch16_224", 32, None),
        ("timm:vit_tiny_patch16_224", 48, "blocks.3"),
        ("timm:deit_tiny_patch16_224", 32, "blocks.0"),
        ("timm:swin_tiny_patch4_window7_224", 32, "layers.1"),
        ("timm:vit_xsmall_patch16_clip_224", 32, "blocks.2"),
        ("timm:vit_small_patch14_dinov2", 28, "blocks.3"),
        ("timm:eva02_tiny_patch14_224", 28, "blocks.3"),  # its blocks are called with keywords
        ("torchvision:mobilenet_v3_small", 32, "features.4"),
        ("torchvision:squeezenet1_1", 48, "features.5"),
    ],
)
def test_networks_of_libraries_split_where_one_likes(name: str, size: int, split: str | None) -> None:
    foreign = build_foreign(name, 3, size, 7)
    assert foreign is not None
    network, normalize = foreign
    classifier = split_network(network.eval(), 3, size, 7, split, normalize).eval()
    x = images(3, size)
    with torch.no_grad():
        assert torch.allclose(classifier(x), network(normalize(x)), atol=1e-4)
        assert classifier.backbone(x).shape == (4, classifier.backbone.feature_dim)
    assert split is None or classifier.parts.startswith(f"stem up to {split},")


def test_a_position_embedding_is_trained_and_saved_by_the_half_that_adds_it() -> None:
    network, normalize = build_foreign("timm:vit_tiny_patch16_224", 3, 32, 7) or pytest.fail("no network")
    source = split_network(network.eval(), 3, 32, 7, "blocks.1", normalize).eval()
    adapted = copy.deepcopy(source)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert len(list(adapted.parameters())) == len(list(network.parameters()))
    network.load_state_dict(whole_state_dict(adapted, source) or {})
    x = images(3, 32)
    with torch.no_grad():
        assert torch.allclose(network(normalize(x)), adapted(x), atol=1e-4)


@pytest.mark.parametrize(("relu", "features"), [(True, 16 * 8 * 8), (False, 16)])
def test_a_trained_head_of_convolution_and_pooling_computes_what_it_did(relu: bool, features: int) -> None:
    """An average comes before a linear function as well as after it, but not before a ReLU."""
    network = nets.squeezing(relu).eval()
    source = split_network(network, 1, 16, 10, "0", Normalize((0.0,), (1.0,))).eval()
    x = images()
    assert torch.allclose(source(x), network(x * 0.5 + 0.5), atol=1e-5)
    assert source.backbone.feature_dim == features == source.backbone(x).shape[1]
    assert source.classes == 10
    again = nets.squeezing(relu).eval()
    again.load_state_dict(whole_state_dict(source, source) or {})
    assert torch.equal(again(x), network(x))


def test_a_new_head_of_convolution_and_pooling_becomes_linear() -> None:
    network = pool_before_head(nets.squeezing(True)).eval()
    classifier = split_network(network, 1, 16, 10, "0", Normalize((0.0,), (1.0,))).eval()
    assert type(classifier.head) is nn.Linear
    assert classifier.backbone.feature_dim == 16
    assert torch.allclose(classifier(images()), network(images() * 0.5 + 0.5), atol=1e-5)


def test_a_module_that_is_called_again_later_stays() -> None:
    network = nets.OneReLU().eval()
    classifier = split_network(network, 1, 16, 10, "conv1", Normalize((0.0,), (1.0,))).eval()
    assert torch.allclose(classifier(images()), network(images() * 0.5 + 0.5), atol=1e-5)


def test_several_heads_are_refused() -> None:
    with pytest.raises(UserError, match=r"several heads \(first, second\)"):
        split_network(nets.TwoHeads(), 1, 16, 10)


@pytest.mark.parametrize("split", ["conv1", "bn1", "layer1", "layer1.conv1", "layer2"])
def test_the_split_point_can_be_named(split: str) -> None:
    network = nets.SmallResNet().eval()
    if split == "layer1.conv1":  # its block has a short cut around it
        with pytest.raises(UserError, match=r"cannot be taken apart after 'layer1\.conv1'; name another module with --split"):
            split_network(network, 1, 16, 10, split)
        return
    classifier = split_network(network, 1, 16, 10, split).eval()
    assert torch.allclose(classifier(images()), network(images()), atol=1e-5)
    stem = sum(parameter.numel() for parameter in classifier.backbone.stem.parameters())
    until = {"conv1": 1, "bn1": 2, "layer1": 3, "layer2": 4}[split]
    assert stem == sum(p.numel() for child in list(network.children())[:until] for p in child.parameters())


def test_splitting_leaves_the_network_as_it_was() -> None:
    network = nets.SmallResNet().train()
    network.layer1.eval()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    split_network(network, 1, 16, 10)
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_gradients_reach_stem_trunk_and_head() -> None:
    classifier = split_network(nets.SmallResNet(), 1, 16, 10)
    classifier(images()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in classifier.parameters())


@pytest.mark.parametrize("make", NETWORKS)
def test_adapted_weights_load_into_the_users_own_code(make: type[nn.Module]) -> None:
    source = split_network(make(), 1, 16, 10).eval()
    adapted = convert_domain_batch_norm(copy.deepcopy(source))
    assert isinstance(adapted, Classifier)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for norm in adapted.modules():
            if isinstance(norm, DomainBatchNorm):
                norm.norms[1].running_mean.add_(1.0)
    state = whole_state_dict(adapted, source)
    assert state is not None
    network = make().eval()
    network.load_state_dict(state)
    assert torch.allclose(network(images()).softmax(1), adapted(images()).softmax(1), atol=1e-5)


def test_weights_of_a_changed_architecture_do_not_pretend_to_fit() -> None:
    source = split_network(nets.SmallResNet(), 1, 16, 10)
    other = copy.deepcopy(source)
    other.head = nn.Linear(32, 11)
    assert whole_state_dict(other, source) is None


def test_copies_share_nothing() -> None:
    classifier = split_network(nets.SmallResNet(), 1, 16, 10).eval()
    other = copy.deepcopy(classifier)
    before = other(images()).detach()
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.zero_()
    assert torch.equal(other(images()), before)
    assert isinstance(classifier.backbone.trunk, Trunk)


@pytest.mark.parametrize(
    ("network", "size", "split", "message"),
    [
        (nets.LogSoftmaxNet(), 20, None, r"cannot take 1x20x20 images .*--size"),
        (nets.NoHead(), 16, None, "must end in a linear layer"),
        (nets.SmallResNet(), 16, "layer11", "unknown module for --split 'layer11'; did you mean 'layer1'"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(256, 7)),
            16,
            None,
            "has 7 outputs, and the source has 10 classes: it needs one for each; the source may have classes",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(256, 11)),
            16,
            None,
            "has 11 outputs, and the source has 10 classes: it needs one for each; the folder of a class may be missing",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused(network: nn.Module, size: int, split: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        split_network(network, 1, size, 10, split)
    assert "\n" not in str(caught.value)


def test_factories_are_found_in_files_and_modules() -> None:
    assert type(load_network(f"{NETS_FILE}:SmallResNet")).__name__ == "SmallResNet"
    assert type(load_network(f"{NETS_FILE}:small_resnet")).__name__ == "SmallResNet"
    assert isinstance(load_network("tests.models.nets:SmallResNet"), nets.SmallResNet)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{NETS_FILE}:SmallResnet", "did you mean 'SmallResNet'"),
        (f"{NETS_FILE}:needs_an_argument", "which is called without arguments, failed"),
        (f"{NETS_FILE}:no_network", "returned str; it must return a torch.nn.Module"),
        ("missing/nets.py:Net", r"no file missing/nets\.py"),
        ("no_such_package.nets:Net", "no module no_such_package"),
    ],
)
def test_what_is_no_factory_is_said_in_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_network(name)
    assert "\n" not in str(caught.value)


def test_a_file_with_an_error_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_like_this\n")
    with pytest.raises(UserError, match=r"broken\.py cannot be imported \(ModuleNotFoundError"):
        load_network(f"{tmp_path}/broken.py:Net")
