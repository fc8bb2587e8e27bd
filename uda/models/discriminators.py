"""Discriminators of image patches: one, and several that read an image at several sizes."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from uda.errors import UserError
from uda.models.spatial import instance_norm

DEEPEST, SMALLEST = 4, 8  # layers of a discriminator at each scale, and pixels a side at the last of them


def patch_discriminator(channels: int, size: int, width: int, depth: int) -> nn.Module:
    """Images (N, C, S, S) to a map of logits, each of one part of the image: 7x7, then 3x3, all of stride 2, then 1x1.

    The width doubles from layer to layer, up to 8w. Instance norm follows each convolution but the last two, where 4 pixels a
    side or more are left: without it, as in the release, images that hardly differ from white, such as maps, take far longer.
    """
    deepest = size.bit_length() - 1
    if not 1 <= depth <= deepest:
        raise UserError(
            f"method.discriminator_depth is {depth}; images of {size} pixels have room for 1 to {deepest} layers; set it so, or "
            f"have them larger: --size {2**depth}"
        )
    widths = [channels, *(width << min(number, 3) for number in range(depth))]
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        kernel = 3 if number else 7
        layers.append(nn.Conv2d(before, after, kernel, 2, kernel // 2))
        if number < depth - 1 and size >> (number + 1) >= 4:
            layers.append(instance_norm(after))
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))


class MultiScaleDiscriminator(nn.Module):
    """Patch discriminators of an image, of half of it, of a quarter, ...: images (N, C, S, S) to a map of logits for each scale.

    An image is halved by the mean of 3x3 pixels at stride 2, those beyond its border not counted. Source: Wang et al. 2018
    (pix2pixHD), section 3.2, as in the released code of Lee et al. 2018.
    """

    def __init__(self, channels: int, size: int, width: int, scales: int) -> None:
        super().__init__()
        sides = [-(-size >> number) for number in range(scales)]
        if sides[-1] < SMALLEST:
            most = sum(-(-size >> number) >= SMALLEST for number in range(size.bit_length()))
            raise UserError(f"method.discriminator_scales is {scales}; images of {size} pixels have room for 1 to {most}")
        self.scales = nn.ModuleList(
            [patch_discriminator(channels, side, width, min(DEEPEST, side.bit_length() - 1)) for side in sides]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        judged = []
        for number, scale in enumerate(self.scales):
            if number:
                images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
            judged.append(scale(images))
        return tuple(judged)
