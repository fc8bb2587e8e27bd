"""Networks built from a recipe, and the check before a run begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import NETS
from tests.models.nets import SmallResNet, squeezing
from uda import UserError
from uda.data.frame import Frame
from uda.models.backbones import lenet
from uda.players import Players
from uda.recipe.load import load_recipe
from uda.recipe.schema import Recipe
from uda.runs.build import build_checked, build_networks, channels_taken, starts_published
from uda.runtime import Runtime

SPOILS = """
import torch
from uda.methods.base import OneNetwork


class Spoils(OneNetwork):
    def __init__(self, settings, classifier, shape, steps, runtime):
        super().__init__(settings, classifier, shape, steps, runtime)
        torch.rand(5)
        for parameter in classifier.parameters():
            parameter.data.zero_()
"""


def test_the_check_of_a_method_leaves_the_classifier_and_the_random_state_alone(fp32: Runtime, tmp_path: Path) -> None:
    """A run goes on with the classifier that was checked, and from the random state that built it."""
    (tmp_path / "own.py").write_text(SPOILS)
    built = []
    for method in ("dann", f"{tmp_path / 'own.py'}:Spoils"):
        torch.manual_seed(0)
        recipe = load_recipe("synth2digits", {"method.name": method, "classifier.width": 8}).with_frame(Frame(32, 3))
        built.append((build_checked(recipe, 10, fp32), torch.get_rng_state()))
    (first, state), (second, other) = built
    assert first is not None
    assert second is not None
    assert torch.equal(state, other)
    assert all(torch.equal(a, b) for a, b in zip(first.classifier.parameters(), second.classifier.parameters(), strict=True))


def recipe(backbone: str, **settings: Any) -> Recipe:
    overrides = {"classifier.backbone": backbone, "method.name": "shot"}
    overrides |= {f"classifier.{key}": str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    return load_recipe("synth2digits", overrides).with_frame(Frame(32, 3))


def open_recipe(backbone: str, **settings: Any) -> Recipe:
    """Whose images say how many channels they have."""
    given = recipe(backbone, **settings)
    return given.model_copy(update={"data": given.data.model_copy(update={"channels": None})})


def parameters(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in module.parameters()])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"backbone": f"{NETS}:SmallResNet"}, 1),
        ({"backbone": f"{NETS}:Perceptron"}, None),
        ({"backbone": f"{NETS}:Perceptron", "mean": [0.5], "std": [0.5]}, 1),
        ({"backbone": f"{NETS}:Perceptron", "mean": [0.5, 0.5]}, None),
        ({"backbone": "timm:resnet10t"}, None),
        ({"backbone": "lenet"}, None),
    ],
)
def test_a_network_of_ones_own_says_how_many_channels_it_takes(settings: dict[str, Any], expected: int | None) -> None:
    assert channels_taken(open_recipe(**settings)) == expected


def test_so_does_one_that_is_given_in_python() -> None:
    assert channels_taken(open_recipe("lenet"), SmallResNet(3)) == 3


def test_where_the_recipe_says_it_nobody_asks_the_network() -> None:
    assert channels_taken(recipe(f"{NETS}:SmallResNet")) is None


@pytest.mark.parametrize(
    ("backbone", "settings", "expected"),
    [
        ("timm:resnet10t", {}, True),
        ("torchvision:resnet18", {}, True),
        ("timm:resnet10t", {"pretrained": False}, False),
        ("timm:resnet10t", {"weights": "net.pt"}, False),
        ("timm:resnet10t", {"backbone_weights": "body.pt"}, False),
        ("lenet", {}, False),
        ("nets.py:Net", {}, False),
    ],
)
def test_a_librarys_network_starts_published_unless_a_file_gives_weights(
    backbone: str, settings: dict[str, Any], expected: bool
) -> None:
    assert starts_published(recipe(backbone, **settings).classifier) is expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "a.pt", "backbone_weights": "b.pt"}, "--weights .* or --backbone-weights .*, not both"),
        ({"pretrained": True, "weights": "a.pt"}, r"classifier\.weights both say where weights come from"),
        ({"pretrained": True, "backbone_weights": "b.pt"}, r"classifier\.backbone_weights both say where weights come from"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        starts_published(recipe("timm:resnet10t", **settings).classifier)


def test_a_pretrained_body_gets_a_head_that_does_not_depend_on_it(fp32: Runtime, tmp_path: Path) -> None:
    body = {f"module.{name}": value + 1 for name, value in SmallResNet(3).state_dict().items() if not name.startswith("fc")}
    torch.save(body | {"last.weight": torch.zeros(1000, 32)}, tmp_path / "body.pt")
    (tmp_path / "own.py").write_text(
        "import torch\nfrom tests.models.nets import SmallResNet\ndef build(): return SmallResNet(3)\n"
    )
    built = []
    for settings in ({"backbone_weights": tmp_path / "body.pt"}, {}):
        torch.manual_seed(0)
        classifier = build_checked(recipe(f"{tmp_path / 'own.py'}:build", **settings), 10, fp32)
        assert classifier is not None
        built.append(classifier.classifier)
    started, fresh = built
    assert torch.equal(parameters(started.head), parameters(fresh.head))
    assert torch.equal(next(started.backbone.parameters()), body["module.conv1.weight"])
    assert started.start == "42 tensors of body.pt; the head (last.weight of 1000 classes) is made anew for 10"
    assert fresh.start == ""


@pytest.mark.parametrize("bottleneck", [0, 16])
def test_only_what_came_pretrained_moves_slower_than_what_is_new(fp32: Runtime, tmp_path: Path, bottleneck: int) -> None:
    torch.save(build_networks(recipe("lenet"), 10, fp32).classifier.state_dict(), tmp_path / "body.pt")
    slow = {}
    for weights in (tmp_path / "body.pt", None):
        wanted = recipe("lenet", backbone_weights=weights, bottleneck=bottleneck, pretrained_rate=0.25)
        classifier, players = build_networks(wanted, 10, fp32, begin=True).classifier, Players(fp32, 1)
        players.slow_down(classifier)
        players.add("all", classifier.parameters(), torch.optim.SGD, lr=1.0)
        groups = players.state_dict()["optimizers"]["all"]["param_groups"]
        slow[weights] = sum(len(group["params"]) for group in groups if group["lr"] == 0.25)
    assert slow == {tmp_path / "body.pt": len(list(lenet(3, 32).parameters())), None: 0}


def test_a_body_of_ours_loads_too(fp32: Runtime, tmp_path: Path) -> None:
    first = build_networks(recipe("lenet"), 10, fp32).classifier
    torch.save(first.state_dict(), tmp_path / "body.pt")
    other = build_networks(recipe("lenet", backbone_weights=tmp_path / "body.pt"), 10, fp32, begin=True).classifier
    assert torch.equal(parameters(other.backbone), parameters(first.backbone))
    assert not torch.equal(parameters(other.head), parameters(first.head))


def test_what_is_read_from_a_run_needs_neither_download_nor_file(fp32: Runtime, tmp_path: Path) -> None:
    """Nor does it wait for a connection."""
    for settings in ({}, {"backbone_weights": tmp_path / "gone.pt"}):
        assert build_networks(recipe("timm:resnet10t", **settings), 10, fp32).classifier.start == ""


def test_squeezenet_keeps_its_head_only_where_it_comes_trained(fp32: Runtime, tmp_path: Path) -> None:
    fresh = build_networks(recipe("torchvision:squeezenet1_1", pretrained=False), 10, fp32, begin=True).classifier
    assert type(fresh.head) is nn.Linear
    assert fresh.backbone.feature_dim == 512
    (tmp_path / "own.py").write_text("from tests.models.nets import squeezing\ndef build(): return squeezing(True)\n")
    torch.save(squeezing(True).state_dict(), tmp_path / "net.pt")
    grey = recipe(f"{tmp_path / 'own.py'}:build", weights=tmp_path / "net.pt").with_frame(Frame(16, 1))
    trained = build_networks(grey, 10, fp32, begin=True).classifier.eval()
    network = squeezing(True).eval()
    network.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    images = torch.rand(2, 1, 16, 16)
    assert torch.allclose(trained(images * 2 - 1), network(images), atol=1e-5)


@pytest.mark.parametrize("key", ["classifier.batch", "training.batch", "training.target_batch"])
def test_batch_norm_wants_two_images(key: str, fp32: Runtime) -> None:
    settings = {"classifier.backbone": "timm:resnet10t", "classifier.pretrained": False, "method.name": "mcc", key: 1}
    with pytest.raises(UserError, match=f"{key} is 1, and batch norm learns from two images"):
        build_checked(load_recipe("synth2digits", settings), 10, fp32)
