import numpy as np
import torch

from uda.data.datasets.synthetic import draw_street_digits, load_handwritten_digits


def test_a_seed_draws_the_same_images_and_another_seed_others() -> None:
    images, labels = draw_street_digits(50, seed=5)
    again, labels_again = draw_street_digits(50, seed=5)
    other, _ = draw_street_digits(50, seed=6)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(images, other)


def test_drawing_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    draw_street_digits(10, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_images_are_full_range_colour_and_all_classes_occur() -> None:
    images, labels = draw_street_digits(300, seed=0)
    assert images.dtype == torch.uint8
    assert images.shape == (300, 3, 32, 32)
    assert images.min() < 30
    assert images.max() > 225
    assert set(labels.tolist()) == set(range(10))
    assert not torch.equal(images[:, 0], images[:, 1])


def test_both_polarities_occur() -> None:
    images, _ = draw_street_digits(300, seed=0)
    grey = images.float().mean(1)
    lighter_middle = grey[:, 10:22, 12:20].amax((1, 2)) - grey.median(2).values.median(1).values > 60
    assert 0.2 < lighter_middle.float().mean() < 0.95


def test_the_handwriting_is_split_once_without_overlap_and_by_class() -> None:
    train, test = (load_handwritten_digits(split, 8, 1) for split in ("train", "test"))
    assert (len(train), len(test)) == (1197, 600)
    counts = np.bincount(test.labels.numpy(), minlength=10)
    assert counts.min() >= 58
    again = load_handwritten_digits("test", 8, 1)
    assert torch.equal(test.images, again.images)


def test_the_handwriting_is_light_on_dark_over_the_whole_range() -> None:
    images = load_handwritten_digits("train", 32, 1).images
    assert images.min() == 0
    assert images.max() == 255
    assert images[:, 0, 10:22, 10:22].float().mean() > 2 * images[:, 0, :, :2].float().mean()
