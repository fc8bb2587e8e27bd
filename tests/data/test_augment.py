import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uda.data.augment import Augment, to_float


def images(count: int = 4, channels: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_to_float_maps_0_to_minus_one_and_255_to_one() -> None:
    assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_no_settings_change_nothing() -> None:
    x = images()
    assert torch.equal(Augment()(x), x)


def share(top: float) -> st.SearchStrategy[float]:
    """No subnormal numbers: a runtime on a CPU flushes them to zero, process-wide."""
    return st.floats(0, top, allow_subnormal=False)


@given(
    rotate=share(45), translate=share(0.3), scale=share(0.3), shear=share(0.3),
    crop=share(0.5), colour=share(1), erase=share(1), invert=share(1), mask=share(1),
    channels=st.sampled_from([1, 3]),
)  # fmt: skip
@settings(max_examples=25)
def test_shape_and_range_are_kept(channels: int, **strengths: float) -> None:
    x = images(channels=channels)
    out = Augment(**strengths)(x)
    assert out.shape == x.shape
    assert out.min() >= -1.0001
    assert out.max() <= 1.0001


def test_certain_inversion_is_the_negative() -> None:
    x = images()
    assert torch.equal(Augment(invert=1.0)(x), -x)


def test_one_draw_moves_two_batches_alike() -> None:
    augment = Augment(rotate=30, translate=0.2)
    x = images()
    matrices = augment.draw(len(x), x.device)
    assert torch.equal(augment.move(x, matrices), augment.move(x.clone(), matrices))


def test_a_shift_moves_by_its_share_of_the_side() -> None:
    x = torch.full((64, 1, 16, 16), -1.0)
    x[:, :, 8, 8] = 1.0
    columns = Augment(translate=0.25).move(x).amax((1, 2)).argmax(1)
    assert (columns - 8).abs().max() <= 4
    assert len(set(columns.tolist())) > 3


def test_a_seed_repeats_the_draws() -> None:
    augment = Augment(rotate=10, colour=0.5, invert=0.5)
    torch.manual_seed(3)
    first = augment(images())
    torch.manual_seed(3)
    assert torch.equal(first, augment(images()))


def test_gradients_reach_the_images() -> None:
    x = images().requires_grad_()
    Augment(rotate=10, colour=0.5)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_erasing_paints_one_rectangle_of_at_most_its_share() -> None:
    x = torch.full((64, 1, 32, 32), 5.0)  # outside the value range, so that paint shows
    painted = Augment(erase=0.5)(x)[:, 0] < 5
    assert painted.any((1, 2)).float().mean() > 0.8
    for mask in painted:
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum(), "not a rectangle"
        assert max(rows.sum(), columns.sum()) <= 17


@pytest.mark.parametrize("crop", [0.5])
def test_crop_enlarges(crop: float) -> None:
    x = torch.full((32, 1, 32, 32), -1.0)
    x[:, :, 8:24, 8:24] = 1.0
    assert Augment(crop=crop).move(x).gt(0).float().mean() > x.gt(0).float().mean()


def test_masking_paints_whole_patches_grey_as_many_as_its_share_on_average() -> None:
    x = torch.full((64, 3, 32, 24), 0.7)
    masked = Augment(mask=0.3, mask_patch=4)(x)
    patches = masked.unflatten(2, (4, 8)).unflatten(4, (4, 6)).transpose(3, 4).flatten(4)  # (N, C, 4, 4, pixels of a patch)
    grey = (patches == 0).all(4).all(1)
    assert torch.equal(grey, (patches == 0).any(4).any(1)), "a patch is grey in all its pixels and channels, or in none"
    assert torch.equal(masked[masked != 0], x[masked != 0])
    assert 0.25 < grey.float().mean() < 0.35
    assert not torch.equal(grey[0], grey[1]), "each image has a mask of its own"


def test_a_side_that_the_patches_do_not_divide_keeps_its_length() -> None:
    assert Augment(mask=0.5, mask_patch=5)(images(size=16)).shape == images(size=16).shape


def test_everything_masked_is_grey() -> None:
    assert torch.equal(Augment(mask=1.0)(images()), torch.zeros_like(images()))
