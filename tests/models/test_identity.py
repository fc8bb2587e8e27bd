"""Translators that begin as the identity."""

import pytest
import torch

from uda import UserError
from uda.models.identity import IdentityEncoders, IdentityGenerators
from uda.models.layers import SOURCE, TARGET

IMAGES = torch.rand(4, 3, 16, 16) * 1.8 - 0.9


def pair() -> tuple[IdentityEncoders, IdentityGenerators]:
    torch.manual_seed(0)
    return IdentityEncoders(3, 8, 2, 1, 30.0), IdentityGenerators(3, 8, 2, 1, 30.0)


def test_a_translation_begins_as_its_image() -> None:
    encoders, generators = pair()
    codes = encoders.encode(IMAGES, SOURCE).mean
    assert codes.shape == IMAGES.shape
    for domain in (SOURCE, TARGET):
        assert torch.allclose(generators.decode(codes, domain), IMAGES, atol=1e-6)


def test_a_code_holds_its_image_but_for_noise_of_one_part_in_the_scale() -> None:
    encoders, generators = pair()
    streams = generators(encoders(IMAGES, -IMAGES).sample())
    assert float((streams.source_target - IMAGES).detach().std()) == pytest.approx(1 / 30, rel=0.1)
    assert float((streams.target_source + IMAGES).detach().std()) == pytest.approx(1 / 30, rel=0.1)


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
    codes = torch.full((1, 3, 8, 8), 33.0, requires_grad=True)
    generators(codes.repeat(2, 1, 1, 1)).source_source.sum().backward()
    assert codes.grad is not None
    assert codes.grad.abs().min() > 0
    assert generators.decode(codes, TARGET).max() == 1


def test_nothing_of_a_plain_image_is_changed_into_a_pattern() -> None:
    _, generators = pair()
    for parameter in generators.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    drawn = generators.decode(torch.full((1, 3, 16, 16), 6.0), TARGET)
    assert torch.allclose(drawn, drawn[..., :1, :1].expand_as(drawn), atol=1e-5)
    assert (drawn - 0.2).abs().min() > 1e-3
    assert drawn.abs().max() < 1


def test_more_blocks_than_there_are_cannot_be_tied() -> None:
    with pytest.raises(UserError, match=r"method\.tied_layers is 3"):
        IdentityEncoders(3, 8, 2, 3, 30.0)
