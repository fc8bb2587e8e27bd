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
from uda.models.layers import DomainBatchNorm, Normalize, convert_domain_batch_norm

NETWORKS = [nets.SmallResNet, nets.LogSoftmaxNet, nets.Perceptron, nets.OwnPreprocessing]
TIMM = ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto"]
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


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_split(name: str) -> None:
    foreign = build_foreign(f"timm:{name}", 3, 32, 7)
    assert foreign is not None
    network, normalize = foreign
    classifier = split_network(network.eval(), 3, 32, 7, normalize=normalize).eval()
    x = images(3, 32)
    assert torch.allclose(classifier(x), network(x), atol=1e-4)


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
        (nets.LogSoftmaxNet(), 20, None, r"cannot take 1x20x20 images .* --size"),
        (nets.NoHead(), 16, None, "must end in a linear layer"),
        (nets.SmallResNet(), 16, "layer11", "unknown module for --split 'layer11'; did you mean 'layer1'"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(256, 7)),
            16,
            None,
            r"returns \(2, 7\) for two images, and the source has 10 classes",
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
        (f"{NETS_FILE}:needs_an_argument", "it is called without arguments"),
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
