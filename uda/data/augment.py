"""Augmentation of whole batches, on the device the batch is on, differentiable in the images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from uda.types import Section, UnitInterval


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1: the one normalisation that every data set goes through.

    What a frozen body has made of images is floats, and stays as it is.
    """
    if images.is_floating_point():
        return images.float()
    return images.float().div_(127.5).sub_(1.0)


def to_pixels(images: Tensor) -> Tensor:
    """float -1..1 to uint8 0..255, the inverse of `to_float`; what lies outside is cut off."""
    return images.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)


class Augment(Section):
    """Random affine, crop, colour, erasing, inversion and masking; every strength at 0 leaves images as they are.

    Draws come from torch's global generator of the batch's device, so a seeded run repeats itself.
    """

    rotate: NonNegativeFloat = 0.0
    """largest rotation, degrees either way"""
    translate: NonNegativeFloat = 0.0
    """largest shift, as a share of the image side"""
    scale: NonNegativeFloat = 0.0
    """largest change of size: factor 1 - scale .. 1 + scale"""
    shear: NonNegativeFloat = 0.0
    """largest horizontal shear (tangent)"""
    crop: UnitInterval = 0.0
    """a random window with sides of 1 - crop .. 1 of the image, stretched to the whole"""
    colour: NonNegativeFloat = 0.0
    """strength of contrast, brightness and (three channels) tint changes"""
    erase: UnitInterval = 0.0
    """largest side, as a share of the image's, of a rectangle that is painted over in one grey level"""
    flip: UnitInterval = 0.0
    """probability that an image is mirrored, left to right"""
    invert: UnitInterval = 0.0
    """probability that an image is turned into its negative"""
    mask: UnitInterval = 0.0
    """probability that a square patch is painted over with mid-grey (0): on average the share of an image that is hidden"""
    mask_patch: PositiveInt = 8
    """the number of such patches along a side"""

    def __call__(self, images: Tensor) -> Tensor:
        """float (N, C, H, W) in -1..1 to the same; what falls outside the frame repeats the border."""
        return self.repaint(self.move(images))

    def draw(self, count: int, device: torch.device) -> Tensor:
        """(count, 2, 3) affine matrices in the -1..1 coordinates of `torch.nn.functional.affine_grid`."""
        rotate, shift_x, shift_y, scale, stretch, shear, window, window_x, window_y = torch.rand(9, count, device=device) * 2 - 1
        angle = rotate * math.radians(self.rotate)
        cos, sin = torch.cos(angle), torch.sin(angle)
        size = 1.0 / (1.0 + scale * self.scale)
        aspect = 1.0 + stretch * self.scale / 2
        window = 1.0 - self.crop * (window + 1) / 2
        a, b = size * aspect * cos, -size * sin + shear * self.shear
        c, d = size * sin, size / aspect * cos
        # A shift of t image sides is 2t in -1..1; a smaller window may sit anywhere that leaves it inside the image.
        x = 2 * shift_x * self.translate + window_x * (1 - window)
        y = 2 * shift_y * self.translate + window_y * (1 - window)
        return torch.stack([torch.stack([window * a, window * b, x], 1), torch.stack([window * c, window * d, y], 1)], 1)

    @property
    def moves(self) -> bool:
        return any((self.rotate, self.translate, self.scale, self.shear, self.crop))

    def move(self, images: Tensor, matrices: Tensor | None = None) -> Tensor:
        """Affine part and crop; give the `matrices` of one `draw` to move several batches alike."""
        if not self.moves:
            return images
        if matrices is None:
            matrices = self.draw(len(images), images.device)
        grid = F.affine_grid(matrices.to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def repaint(self, images: Tensor) -> Tensor:
        """Mirroring, colour, erasing, inversion and masking."""
        count, channels = images.shape[:2]
        if self.flip:
            mirrored = torch.rand(count, 1, 1, 1, device=images.device) < self.flip
            images = torch.where(mirrored, images.flip(3), images)
        if self.colour:

            def draw(channels: int) -> Tensor:
                return torch.rand(count, channels, 1, 1, device=images.device) * 2 - 1

            contrast = 1 + self.colour * draw(1)
            shift = 0.5 * self.colour * draw(1)
            if channels == 3:
                contrast, shift = contrast * (1 + 0.5 * self.colour * draw(3)), shift + 0.25 * self.colour * draw(3)
            mean = images.mean((1, 2, 3), keepdim=True)
            images = ((images - mean) * contrast + mean + shift).clamp(-1, 1)
        if self.erase:
            rows, columns = (torch.linspace(0, 1, side, device=images.device) for side in images.shape[2:])
            height, width, y, x, grey = torch.rand(5, count, 1, 1, 1, device=images.device)
            tall = (rows.view(1, 1, -1, 1) - y).abs() < height * self.erase / 2
            wide = (columns.view(1, 1, 1, -1) - x).abs() < width * self.erase / 2
            images = torch.where(tall & wide, 2 * grey - 1, images)
        if self.invert:
            flip = torch.rand(count, 1, 1, 1, device=images.device) < self.invert
            images = torch.where(flip, -images, images)
        if self.mask:
            shown = torch.rand(count, 1, self.mask_patch, self.mask_patch, device=images.device) >= self.mask
            images = images * F.interpolate(shown.to(images.dtype), images.shape[2:])  # nearest: a patch has one value
        return images
