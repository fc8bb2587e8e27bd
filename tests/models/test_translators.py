import pytest
import torch
from torch import nn

from uda import UserError
from uda.models.backbones import strided
from uda.models.translators import (
    SOURCE,
    TARGET,
    Posterior,
    Spread,
    TiedEncoders,
    TiedGenerators,
    backbone_layers,
    convolutional_layers,
    generator_layers,
)


def encoders(private: int, spread: Spread = "unit", kind: str = "convolutional", coordinates: bool = False) -> TiedEncoders:
    if kind == "backbone":
        backbone = strided(3, 32, 8)
        return TiedEncoders(backbone_layers(backbone), backbone.feature_dim, 16, private, spread, coordinates)
    return TiedEncoders(convolutional_layers(3, 32, 8), 64, 16, private, spread, coordinates)


@pytest.mark.parametrize("kind", ["convolutional", "backbone"])
@pytest.mark.parametrize("private", range(5))
def test_as_many_layers_are_private_as_asked_for(kind: str, private: int) -> None:
    pair = encoders(private, kind=kind)
    with torch.no_grad():
        for parameter in pair.private[TARGET].parameters():
            parameter.zero_()
    assert len(pair.private[SOURCE]) == private
    images = torch.randn(2, 3, 32, 32)
    same = torch.allclose(pair.encode(images, SOURCE).mean, pair.encode(images, TARGET).mean)
    assert same == (private == 0)


def test_both_domains_in_one_pass_are_each_domain_alone() -> None:
    pair = encoders(1)
    source, target = torch.randn(2, 2, 3, 32, 32)
    both = pair(source, target).mean
    alone = torch.cat([pair.encode(source, SOURCE).mean, pair.encode(target, TARGET).mean])
    assert torch.allclose(both, alone, atol=1e-5)


@pytest.mark.parametrize("spread", ["unit", "learned", "softplus"])
def test_codes_spread_with_the_posterior(spread: Spread) -> None:
    posterior = encoders(1, spread).encode(torch.randn(1, 3, 32, 32).expand(2000, -1, -1, -1), SOURCE)
    noise = posterior.sample() - posterior.mean
    expected = torch.ones(16) if posterior.log_variance is None else (0.5 * posterior.log_variance).exp()[0]
    assert torch.allclose(noise.std(0), expected, atol=0.15)
    assert (posterior.log_variance is None) == (spread == "unit")


def test_a_published_sigma_is_the_softplus_of_an_output() -> None:
    outputs = torch.tensor([[3.0, -1.0, 0.0, 2.0], [0.5, 0.25, -4.0, 8.0]])
    posterior = Posterior.of(outputs, "softplus")
    assert torch.equal(posterior.mean, outputs[:, :2])
    assert posterior.log_variance is not None
    assert torch.allclose(posterior.log_variance.exp().sqrt(), (1 + outputs[:, 2:].exp()).log(), atol=1e-5)


def test_slopes_are_those_asked_for() -> None:
    layers = [*convolutional_layers(3, 32, 2, 0.01), *generator_layers(3, 32, 2, 4, 0.01)]
    slopes = [part.negative_slope for layer in layers for part in layer.modules() if isinstance(part, nn.LeakyReLU)]
    assert slopes == [0.01] * 8


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("private", [0, 2, 4])
def test_generators_make_images_in_range_and_name_their_streams(size: int, private: int) -> None:
    pair = TiedGenerators(3, size, 4, 16, private)
    codes = torch.randn(6, 16)
    streams = pair(codes)
    assert streams.source_target.shape == (3, 3, size, size)
    assert torch.cat(streams).abs().max() <= 1
    assert torch.allclose(streams.source_target, pair.decode(codes[:3], TARGET), atol=1e-5)
    assert torch.allclose(streams.target_source, pair.decode(codes[3:], SOURCE), atol=1e-5)


def test_wrong_counts_and_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="0 to 4"):
        encoders(5)
    with pytest.raises(UserError, match="private_generator_layers"):
        TiedGenerators(3, 32, 4, 16, 9)
    with pytest.raises(UserError, match="need at least 8"):
        TiedGenerators(3, 7, 4, 16, 2)


@pytest.mark.parametrize("size", [8, 9, 28, 30, 33, 64, 100, 224])
def test_depth_follows_the_size(size: int) -> None:
    generators = TiedGenerators(1, size, 2, 16, 2)
    assert generators.decode(torch.randn(2, 16), 0).shape == (2, 1, size, size)
    layers = convolutional_layers(1, size, 2)
    assert nn.Sequential(*layers)(torch.randn(2, 1, size, size)).shape == (2, 16, 1, 1)
