"""UNIT as its authors released it for digits: settings of the -paper recipes against the released objective, on fixed tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods import reference as by_hand
from tests.methods.reference import made
from tests.models.nets import DropoutNet
from uda import UserError
from uda.data.batches import Batch
from uda.methods.unit import UNIT, UNITSettings
from uda.models import build_classifier
from uda.models.backbones import Classifier
from uda.models.custom import split_network
from uda.recipe.load import load_recipe
from uda.runtime import Runtime

WIDTHS: dict[str, Any] = {"width": 4, "code_dim": 8}


def published_network() -> Classifier:
    torch.manual_seed(7)
    return build_classifier("unit", 3, 16, 10, width=4)


def make(fp32: Runtime, recipe: str = "svhn2mnist-paper", **changes: Any) -> UNIT:
    """The recipe's method on narrow networks."""
    settings = load_recipe(recipe).method.model_dump(exclude={"name"}) | WIDTHS | changes
    return made(UNIT, fp32, 20, published_network(), **settings)


@pytest.fixture
def grey(batch: Batch) -> Batch:
    """The target is grey, as MNIST is."""
    target, weak = (images.mean(1, keepdim=True).expand(-1, 3, -1, -1) for images in (batch.target, batch.target_weak))
    return dataclasses.replace(batch, target=target, target_weak=weak)


def released_objective(method: UNIT, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of D, then of E and G, up to a constant; a and b are source and target, of three channels and of one."""
    d, e, g = method.discriminators, method.encoders, method.generators
    x_a, x_b = batch.source, batch.target_weak[: len(batch.source)]
    hidden = torch.cat([e.private[0](x_a), e.private[1](x_b)])
    mu, raw = e.tied(hidden).chunk(2, 1)
    sd = (1 + raw.exp()).log()
    torch.manual_seed(5)
    z = mu + sd * torch.randn_like(mu)
    (x_aa, x_ba), (x_ab, x_bb) = (own(g.tied(z)).chunk(2) for own in g.private)

    def features(a: Tensor, b: Tensor) -> list[Tensor]:
        return [d.trunks[0](stem(images)) for stem, images in zip(d.stems, (a, b), strict=True)]

    def judged(a: Tensor, b: Tensor) -> Tensor:
        return d.real_head(torch.cat(features(a, b)))

    def squares(a: Tensor, b: Tensor) -> Tensor:
        """The mean of all squares times an image's numbers."""
        return ((a - b) ** 2).mean() * a[0].numel()

    f_aa, f_bb = features(x_aa, x_bb)
    f_ba, f_ab = features(x_ba, x_ab)
    real, fake = by_hand.is_real(judged(x_a, x_b)), by_hand.is_fake(judged(x_ba, x_ab)) + by_hand.is_fake(judged(x_aa, x_bb))
    of_class = by_hand.cross_entropy(d.class_head(features(x_a, x_b)[0]), batch.source_labels)
    of_d = real + 0.5 * fake + 10 * of_class + 1e-4 * (squares(f_ab, f_aa) + squares(f_ba, f_bb))
    deceiving = by_hand.is_real(judged(x_ba, x_ab)) + by_hand.is_real(judged(x_aa, x_bb))
    encoding = 2 * (mu**2 + sd**2 - (sd**2).log()).sum() / len(mu)
    likelihood = squares(x_aa, x_a) + squares(x_bb[:, :1], x_b[:, :1])
    return of_d, deceiving + 1e-4 * encoding + 1e-3 * likelihood


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # both players are held still
def test_both_players_losses_are_the_released_ones(grey: Batch, fp32: Runtime) -> None:
    """Without dropout, whose place is tested below, and with both players held still."""
    method = make(fp32)
    method.eval()
    seen: list[Tensor] = []
    method.players.step = lambda name, loss: seen.append(loss)  # type: ignore[method-assign, assignment]
    expected = released_objective(method, grey)
    torch.manual_seed(5)
    method.step(grey)
    constant = 1e-4 * 2 * WIDTHS["code_dim"]  # log 1 of the divergence, which the release leaves out
    assert seen[0].item() == pytest.approx(expected[0].item(), abs=1e-5)
    assert seen[1].item() + constant == pytest.approx(expected[1].item(), abs=1e-5)


def test_the_optimisers_are_the_released_ones(fp32: Runtime) -> None:
    method = make(fp32)
    for player in method.players.state_dict()["optimizers"].values():
        (group,) = player["param_groups"]
        assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (2e-4, (0.5, 0.999), 5e-4)


def test_dropout_stands_before_both_heads_and_not_in_feature_matching(grey: Batch, fp32: Runtime) -> None:
    method = make(fp32, initial_weights="layers", grey_target=False)
    heads = method.discriminators.real_head, method.discriminators.class_head
    assert [[part.p for part in head.modules() if isinstance(part, nn.Dropout)] for head in heads] == [[0.5], [0.5]]
    assert method.discriminators.training
    values = method.step(grey)
    assert values["feature"].item() == 0, "both stems and both generators are alike, so all pairs are"
    assert all(part.training for part in method.discriminators.modules())
    judged = [method.discriminators.real_head(torch.ones(1, 32)).item() for _ in range(20)]
    assert len({*judged}) > 1, "real or fake is told through dropout"


def test_dropout_stands_not_in_feature_matching_behind_a_frozen_body_either(batch: Batch, fp32: Runtime) -> None:
    method = make(fp32, initial_weights="layers", grey_target=False)
    method.read_drawn = lambda images: 0.7 * images.flip(3)
    values = method.step(dataclasses.replace(batch, small=(batch.source.flip(1), batch.target_weak.flip(1))))
    assert values["feature"].item() == 0


def test_dropout_that_is_a_function_of_an_own_network_stands_not_in_feature_matching(batch: Batch, fp32: Runtime) -> None:
    torch.manual_seed(0)
    method = made(UNIT, fp32, 20, split_network(DropoutNet(), 3, 16, 10), encoder="convolutional", width=4, code_dim=8)
    assert method.discriminators.training
    assert method.step(batch)["feature"].item() == 0, "both stems and both generators are alike, so all pairs are"


def test_weights_are_drawn_as_in_the_release_and_for_each_domain_alone(fp32: Runtime) -> None:
    method = make(fp32, width=32, code_dim=64)
    convolution = next(part for part in method.generators.modules() if isinstance(part, nn.ConvTranspose2d))
    assert convolution.weight.std().item() == pytest.approx(0.02, rel=0.05)
    code = method.encoders.tied[-1]
    assert code.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert code.bias.std().item() == pytest.approx(0.002, rel=0.3)
    trunk = next(part for part in method.discriminators.trunks.modules() if isinstance(part, nn.Conv2d))
    fans = 25 * (trunk.in_channels + trunk.out_channels)
    bound = 2**0.5 * (6 / fans) ** 0.5
    assert 0.98 * bound < trunk.weight.abs().max().item() <= bound
    assert (trunk.bias == 0.1).all()
    for pair in (method.encoders.private, method.generators.private, method.discriminators.stems):
        first, second = (next(part for part in own.modules() if hasattr(part, "weight")).weight for own in pair)
        assert not torch.equal(first[:, :1], second[:, :1])
    slopes = {part.negative_slope for part in method.modules() if isinstance(part, nn.LeakyReLU)}
    assert slopes == {0.01}


def test_a_grey_target_is_read_and_drawn_as_one_channel(grey: Batch, fp32: Runtime) -> None:
    method = make(fp32, initial_weights="layers", warm_start=True)
    firsts = [
        next(part for part in own.modules() if isinstance(part, nn.Conv2d))
        for own in (*method.discriminators.stems, *method.encoders.private)
    ]
    assert [part.in_channels for part in firsts] == [3, 1, 5, 3], "the encoders read coordinates, too"
    drawn = method.translate(grey.source, 0, 1)
    assert drawn.shape == grey.source.shape
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    expected = published_network().eval()(grey.target_weak)
    assert torch.allclose(method.classifier()(grey.target_weak), expected, atol=1e-5), "what it made of grey images before"


def test_behind_a_frozen_body_a_grey_target_is_drawn_as_one_channel_and_read_by_the_body(grey: Batch, fp32: Runtime) -> None:
    settings = UNITSettings(**WIDTHS, encoder="convolutional", grey_target=True)
    method = UNIT(settings, published_network(), (3, 16, 16), 20, fp32, lambda images: images)
    assert [next(iter(own.parameters())).shape[1] for own in method.encoders.private] == [5, 3], "with coordinates"
    drawn = method.translate(grey.source, 0, 1)
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    assert method.discriminators.target_classifier()(grey.target_weak).shape == (len(grey.target_weak), 10)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"warm_start": True}, "start afresh"),
        ({"private_encoder_layers": 0}, "last layer of the target's own"),
        ({"encoder": "pixels"}, "another method.encoder"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(wrong: dict[str, Any], said: str, fp32: Runtime) -> None:
    with pytest.raises(UserError, match=said):
        make(fp32, **wrong)


@pytest.mark.parametrize("recipe", ["mnist2usps-paper", "usps2mnist-paper"])
def test_the_other_pairs_share_all_but_the_channels(recipe: str) -> None:
    first, other = (load_recipe(name).method.model_dump() for name in ("svhn2mnist-paper", recipe))
    assert {name for name in first if first[name] != other[name]} == {"grey_target"}
