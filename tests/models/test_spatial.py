"""Encoders and generators of maps."""

import pytest
import torch

from uda import UserError
from uda.models.spatial import SpatialEncoders, SpatialGenerators, StyledGenerators, with_style


@pytest.mark.parametrize(("size", "tied"), [(32, 0), (32, 2), (64, 1), (256, 1)])
def test_images_become_maps_and_images_again(size: int, tied: int) -> None:
    encoders, generators = SpatialEncoders(3, size, 4, 2, tied), SpatialGenerators(3, 4, 16, 2, tied)
    images = torch.rand(2, 3, size, size) * 2 - 1
    codes = encoders(images, images).mean
    assert codes.shape == (4, 16, size // 4, size // 4)
    streams = generators(codes)
    for stream in streams:
        assert stream.shape == images.shape
        assert stream.abs().max() <= 1
    assert torch.allclose(streams.source_target, generators.decode(codes[:2], 1), atol=1e-5)


@pytest.mark.parametrize("tied", [0, 1, 2])
def test_tied_layers_are_one_and_private_ones_two(tied: int) -> None:
    encoders, generators = SpatialEncoders(1, 32, 4, 2, tied), SpatialGenerators(1, 4, 16, 2, tied)
    for network in (encoders, generators):
        one = {id(p) for p in network.private[0].parameters()}
        assert not one & {id(p) for p in network.private[1].parameters()}
        blocks = [name for name, _ in network.tied.named_parameters() if "block.0.weight" in name]
        assert len(blocks) == tied


@pytest.mark.parametrize("layer", range(4))
def test_a_style_reaches_each_layer_of_a_generator_by_itself(layer: int) -> None:
    """Where the others read no style, as their first convolutions have weights of 0 for it, images differ still."""
    generators = StyledGenerators(3, 4, 2, blocks=2, tied=1)
    first = [block.modules() for block in generators.private[1]]
    convolutions = [next(m for m in part if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)) for part in first]
    with torch.no_grad():
        for number, convolution in enumerate(convolutions):
            by_input = convolution.weight if isinstance(convolution, torch.nn.Conv2d) else convolution.weight.transpose(0, 1)
            if number != layer:
                by_input[:, -2:] = 0
        contents, styles = torch.randn(1, 16, 4, 4).expand(2, -1, -1, -1), torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
        one, other = generators.decode(with_style(contents, styles), 1)
    assert (one - other).abs().max() > 1e-3
    assert one.shape == (3, 16, 16)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="0 to 2"):
        StyledGenerators(1, 4, 2, blocks=2, tied=3)
    with pytest.raises(UserError, match="multiple of 4"):
        SpatialEncoders(1, 30, 4, 2, 1)
    with pytest.raises(UserError, match="0 to 2"):
        SpatialEncoders(1, 32, 4, 2, 3)


def test_a_code_does_not_know_the_contrast_of_its_image() -> None:
    encoders = SpatialEncoders(3, 32, 4, 2, 1)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    bright, faint = (encoders.encode(scale * images, 0).mean for scale in (1.0, 0.2))
    assert torch.allclose(bright, faint, atol=0.02)
