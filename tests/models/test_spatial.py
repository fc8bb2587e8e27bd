"""Encoders and generators of maps."""

import pytest
import torch

from uda import UserError
from uda.models.spatial import SpatialEncoders, SpatialGenerators


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


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="multiple of 4"):
        SpatialEncoders(1, 30, 4, 2, 1)
    with pytest.raises(UserError, match="0 to 2"):
        SpatialEncoders(1, 32, 4, 2, 3)


def test_a_code_does_not_know_the_contrast_of_its_image() -> None:
    encoders = SpatialEncoders(3, 32, 4, 2, 1)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    bright, faint = (encoders.encode(scale * images, 0).mean for scale in (1.0, 0.2))
    assert torch.allclose(bright, faint, atol=0.02)
