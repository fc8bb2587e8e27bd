"""Translators that begin as the identity."""

import pytest
import torch

from uda import UserError
from uda.models.layers import SOURCE, TARGET
from uda.models.shuffled import ShuffledEncoders, ShuffledGenerators

IMAGES = torch.rand(4, 3, 16, 16) * 1.8 - 0.9


def pair() -> tuple[ShuffledEncoders, ShuffledGenerators]:
    torch.manual_seed(0)
    return ShuffledEncoders(3, 16, 8, 2, 1, 30.0), ShuffledGenerators(3, 8, 2, 1, 30.0)


def test_a_translation_begins_as_its_image() -> None:
    encoders, generators = pair()
    codes = encoders.encode(IMAGES, SOURCE).mean
    assert codes.shape == (4, 48, 4, 4)
    for domain in (SOURCE, TARGET):
        assert torch.allclose(generators.decode(codes, domain), IMAGES, atol=1e-6)


def test_a_code_holds_its_image_but_for_noise_of_one_part_in_the_scale() -> None:
    encoders, generators = pair()
    streams = generators(encoders(IMAGES, -IMAGES).sample())
    assert float((streams.source_target - IMAGES).std()) == pytest.approx(1 / 30, rel=0.1)
    assert float((streams.target_source + IMAGES).std()) == pytest.approx(1 / 30, rel=0.1)


def test_every_weight_of_a_block_is_reached_by_gradients_once_it_has_moved() -> None:
    encoders, generators = pair()
    for module in (encoders, generators):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, 0, 0.1)
    streams = generators(encoders(IMAGES, -IMAGES).sample())
    torch.cat(list(streams)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in generators.parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoders.parameters())


def test_white_pixels_have_a_gradient_and_what_lies_outside_is_cut_off_in_the_end() -> None:
    _, generators = pair()
    codes = torch.full((1, 48, 4, 4), 33.0, requires_grad=True)
    generators(codes.repeat(2, 1, 1, 1)).source_source.sum().backward()
    assert codes.grad is not None
    assert codes.grad.abs().min() > 0
    assert generators.decode(codes, TARGET).max() == 1


@pytest.mark.parametrize(("size", "tied", "message"), [(18, 1, "multiple of 4"), (16, 3, "method.tied_layers is 3")])
def test_what_does_not_fit_is_refused(size: int, tied: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShuffledEncoders(3, size, 8, 2, tied, 30.0)
