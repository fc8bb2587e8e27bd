"""What is cut out of images, and views of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from uda.data.frame import VIEWS, Frame, as_tensor, centre, decode, draw_views, open_image

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """Wider than high, and smooth, as photographs are."""
    small = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8))
    return small.resize((90, 60), Image.Resampling.BICUBIC)


def test_the_centre_is_what_torchvision_cuts_out(photograph: Image.Image) -> None:
    """The published evaluation of ImageNet networks: the short side first, then the central square."""
    frame = Frame(28, 3, 32, "bicubic")
    published = v2.Compose([v2.Resize(32, InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(28)])
    difference = as_tensor(centre(photograph, frame)).float() - as_tensor(published(photograph)).float()
    assert difference.abs().mean() < 1.5


def test_without_a_resize_nothing_but_what_is_beside_the_square_is_cut_off() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, 2:10] = 200
    assert (as_tensor(centre(Image.fromarray(pixels), Frame(8, 3))) == 200).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_the_same_for_a_number_and_differ_between_numbers(photograph: Image.Image, channels: int) -> None:
    image, names = photograph.convert("L" if channels == 1 else "RGB"), tuple(VIEWS)
    first, again, other = (draw_views(image, Frame(16, channels), names, number) for number in (3, 3, 4))
    assert first.shape == (len(names), channels, 16, 16)
    assert torch.equal(first, again)
    same = [torch.equal(a, b) for a, b in zip(first, other, strict=True)]
    assert same == [name in ("centre", "flip") for name in names]


def test_a_kind_that_comes_twice_is_drawn_twice(photograph: Image.Image) -> None:
    one, two = draw_views(photograph, Frame(16, 3), ("crop", "crop"), 0)
    assert not torch.equal(one, two)


def test_half_of_a_masked_view_is_grey_in_patches(photograph: Image.Image) -> None:
    views = torch.stack([draw_views(photograph, Frame(32, 3), ("masked",), number)[0] for number in range(20)])
    patches = views.unfold(2, 4, 4).unfold(3, 4, 4)  # 8 along a side
    grey = (patches == 127).all(-1).all(-1).all(1)
    assert 0.4 < grey.float().mean() < 0.6


def test_lines_are_dark_along_a_form_and_white_within_and_around_it() -> None:
    pixels = np.full((64, 64, 3), 200, np.uint8)
    pixels[:, 32:] = 90
    (view,) = draw_views(Image.fromarray(pixels), Frame(64, 3), ("lines",), 0)
    dark = (view < 128).all(0)
    assert 0 < dark.float().mean() < 0.1
    assert dark.any(0).sum() < 6, "one upright line"
    assert (view[:, :, [0, 63]] == 255).all()


def test_a_file_keeps_its_shape_until_the_square_is_cut(tmp_path: Path) -> None:
    """An image is not squeezed."""
    pixels = np.zeros((10, 40), np.uint8)
    pixels[:, 15:25] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", Frame(8, 1, 10)) == 255).all()


def test_an_image_that_was_taken_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 200  # above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    Image.fromarray(pixels).rotate(90).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(decode(tmp_path / "a.png", Frame(8, 1))[0], torch.from_numpy(pixels))


@pytest.mark.parametrize(("ending", "dtype", "what"), [("tif", np.float32, "floating-point"), ("tif", np.int32, "32-bit")])
def test_pixels_of_no_known_range_are_refused(ending: str, dtype: type, what: str, tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), dtype)).save(tmp_path / f"a.{ending}")
    with pytest.raises(ValueError, match=what):
        decode(tmp_path / f"a.{ending}", Frame(8, 1))


def test_a_format_whose_reader_calls_another_program_is_no_image(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(OSError, match="cannot identify"):
        decode(tmp_path / "a.png", Frame(8, 3))


def test_twelve_bits_in_sixteen_are_not_taken_for_black(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "dark.png")
    Image.fromarray(values * 16).save(tmp_path / "right.png")
    with pytest.raises(ValueError, match="all below 4096"):
        open_image(tmp_path / "dark.png", 1, 8)
    assert np.asarray(open_image(tmp_path / "right.png", 1, 8)).max() == 255
