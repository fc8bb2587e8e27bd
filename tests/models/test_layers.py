"""Batch norm by domain, preprocessing, and the other shared layers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from uda import UserError
from uda.models import build_classifier
from uda.models.layers import (
    SOURCE,
    TARGET,
    AppendCoordinates,
    DomainBatchNorm,
    ImageNorm,
    Normalize,
    by_domain,
    convert_domain_batch_norm,
    draws_noise,
    learn_statistics,
    read_grey,
    revert_domain_batch_norm,
    widen_for_coordinates,
    write_grey,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def learned(target_mean: float) -> nn.Module:
    net = convert_domain_batch_norm(network())
    batches = [target_mean + torch.randn(16, 1, 8, 8) for _ in range(4)]
    net.eval()
    learn_statistics(net, net, batches)
    return net.train()


def test_each_row_is_normalised_by_its_own_domain() -> None:
    net = learned(5.0)
    source, target = torch.randn(3, 1, 8, 8), 5 + torch.randn(2, 1, 8, 8)
    both = by_domain(net, torch.cat([source, target]), (3, SOURCE), (2, TARGET))
    assert torch.allclose(both[:3], by_domain(net, source, (3, SOURCE)))
    assert torch.allclose(both[3:], net(target)), "without rows, all are the target's"
    assert not torch.allclose(both[:3], net(source)), "the two domains have statistics of their own"


def test_training_passes_change_no_statistics() -> None:
    net = learned(5.0)
    before = copy.deepcopy(dict(net.named_buffers()))
    by_domain(net, torch.randn(4, 1, 8, 8), (2, SOURCE), (2, TARGET))
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())


def test_learned_statistics_are_those_of_the_target() -> None:
    plain, net = network(), learned(5.0)
    norm = net[1]  # type: ignore[index]
    images = 5 + torch.randn(500, 1, 8, 8)
    hidden = plain[0](images)
    assert torch.allclose(norm.norms[TARGET].running_mean, hidden.mean((0, 2, 3)), atol=0.1)
    assert torch.allclose(norm.norms[TARGET].running_var, hidden.var((0, 2, 3)), rtol=0.2)
    assert torch.equal(norm.norms[SOURCE].running_mean, plain[1].running_mean)


def test_going_back_leaves_plain_batch_norm_with_the_targets_statistics() -> None:
    net = learned(5.0).eval()
    images = 5 + torch.randn(4, 1, 8, 8)
    expected = net(images)
    plain = revert_domain_batch_norm(net)
    assert not any(isinstance(module, DomainBatchNorm) for module in plain.modules())
    assert torch.equal(plain(images), expected)


def test_scale_and_shift_are_shared() -> None:
    net = convert_domain_batch_norm(network())
    assert len(list(net.parameters())) == len(list(network().parameters()))


def test_normalize_is_torchvisions_normalisation() -> None:
    images = torch.rand(2, 3, 4, 4)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    from torchvision.transforms.v2 import functional

    assert torch.allclose(Normalize(mean, std)(images * 2 - 1), functional.normalize(images, list(mean), list(std)), atol=1e-5)


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
    stem = build_classifier("strided", 3, 32, 10).backbone.stem
    images = torch.randn(2, 3, 32, 32)
    before = stem(images).detach()
    wide = widen_for_coordinates(stem)
    after = wide(images)
    assert torch.allclose(before, after, atol=1e-5)
    after.square().sum().backward()
    first = next(module for module in wide.modules() if isinstance(module, nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad[:, 3:].abs().sum() > 0


def test_a_stem_without_a_convolution_cannot_be_widened() -> None:
    with pytest.raises(UserError, match=r'set method\.coordinates = "none"'):
        widen_for_coordinates(nn.Linear(4, 4))


def test_a_stem_reads_grey_images_as_one_channel_and_makes_of_them_what_it_made() -> None:
    stem = build_classifier("strided", 3, 32, 10).backbone.stem
    images = torch.randn(2, 1, 32, 32).expand(-1, 3, -1, -1)
    before = stem(images)
    narrow = read_grey(stem, 3)
    assert torch.allclose(narrow(images), before, atol=1e-5)
    assert next(module for module in narrow.modules() if isinstance(module, nn.Conv2d)).in_channels == 1
    with pytest.raises(UserError, match=r"set method\.grey_target = false"):
        read_grey(nn.Linear(4, 4), 3)


def test_last_layers_draw_one_channel_and_repeat_it() -> None:
    drawn = write_grey(nn.Sequential(nn.Conv2d(4, 3, 1), nn.Tanh()), 3)(torch.randn(2, 4, 8, 8))
    assert drawn.shape == (2, 3, 8, 8)
    assert torch.equal(drawn[:, 0], drawn[:, 2])


class FunctionalDropout(nn.Module):
    """As users write it, without a layer that says so."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.rate, self.training)


@pytest.mark.parametrize(
    ("layer", "noise"),
    [
        (nn.Dropout2d(0.1), True),
        (DropPath(0.1), True),
        (StochasticDepth(0.1, "row"), True),
        (StochasticDepth(1e-6, "batch"), True),
        (FunctionalDropout(0.1), True),
        (nn.Dropout(0.0), False),
        (FunctionalDropout(0.0), False),
        (nn.Conv2d(3, 3, 1), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_dropped_in_training_is_known(layer: nn.Module, noise: bool) -> None:
    assert draws_noise(nn.Sequential(nn.ReLU(), layer), torch.zeros(2, 3, 4, 4)) == noise


def test_looking_for_noise_leaves_everything_as_it_was() -> None:
    """A network in evaluation mode, its batch norm, and the numbers that are drawn next."""
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert draws_noise(net, torch.zeros(2, 3, 4, 4))
    assert all(torch.equal(now, before[name]) for name, now in net.state_dict().items())
    assert not any(part.training for part in net.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("count", "as_one"), [(33, [32, 1]), (1, [1])])
def test_one_image_is_no_batch_of_its_own(count: int, as_one: list[int]) -> None:
    """Batch norm takes no batch of one value a channel, and would weigh one image like all of another batch."""
    net = convert_domain_batch_norm(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))).eval()
    images, norm = torch.randn(count, 3), net[1].norms[TARGET]
    before = norm.running_mean.clone()
    learn_statistics(net, net, images.split(as_one))
    expected = net[0](images).mean(0) if count > 1 else before
    assert torch.allclose(norm.running_mean, expected, atol=1e-6)
