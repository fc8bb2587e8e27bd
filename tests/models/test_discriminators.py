"""Discriminators of image patches."""

import pytest
import torch

from uda import UserError
from uda.models.discriminators import MultiScaleDiscriminator, patch_discriminator


def test_a_deep_discriminator_judges_larger_parts() -> None:
    images = torch.zeros(2, 3, 32, 32)
    assert patch_discriminator(3, 32, 4, 2)(images).shape == (2, 1, 8, 8)
    assert patch_discriminator(3, 32, 4, 5)(images).shape == (2, 1, 1, 1)


def test_a_discriminator_does_not_need_contrast() -> None:
    judge, images = patch_discriminator(3, 32, 4, 5), torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(judge(images), judge(0.2 * images), atol=0.02)
        assert not torch.allclose(judge(images), judge(images.flip(0)), atol=0.02)


def test_each_scale_judges_parts_of_an_image_half_as_large() -> None:
    judged = MultiScaleDiscriminator(3, 36, 2, 3)(torch.zeros(2, 3, 36, 36))
    assert [tuple(logits.shape) for logits in judged] == [(2, 1, 3, 3), (2, 1, 2, 2), (2, 1, 2, 2)]


def test_scales_that_an_image_has_no_room_for_are_refused() -> None:
    with pytest.raises(UserError, match=r"discriminator_scales is 4; images of 32 pixels have room for 1 to 3"):
        MultiScaleDiscriminator(3, 32, 2, 4)
