"""MNIST-M: as it is published, and as it is made here."""

from pathlib import Path

import numpy as np
import pytest
import torch

from uda.data.datasets.mnist_m import blend, load_mnist_m, load_photographs


def test_digits_are_blended_by_absolute_difference_with_a_patch() -> None:
    photograph = torch.full((3, 40, 60), 200, dtype=torch.uint8)
    digits = torch.zeros(5, 3, 16, 16, dtype=torch.uint8)
    digits[:, :, 8] = 255
    blended = blend(digits, [photograph], "train", 0)
    assert (blended[:, :, 8] == 55).all()
    assert (blended[:, :, :8] == 200).all()


def test_training_and_test_patches_are_of_different_parts() -> None:
    photograph = torch.zeros(3, 40, 60, dtype=torch.uint8)
    photograph[:, :, 40:] = 100
    plain = torch.zeros(200, 3, 16, 16, dtype=torch.uint8)
    assert (blend(plain, [photograph], "train", 0) == 0).all()
    assert (blend(plain, [photograph], "test", 0) == 100).all()


def test_photographs_are_large_enough_and_not_grey() -> None:
    photographs = load_photographs()
    assert len(photographs) == 8
    for photograph in photographs:
        assert photograph.dtype == torch.uint8
        assert min(photograph.shape[1:]) > 100
        assert photograph.float().std(0).mean() > 1


def test_the_real_set_has_mnists_labels_and_says_what_it_is(real_digits: Path) -> None:
    first, again = (load_mnist_m("test", (real_digits,), 32, 3) for _ in range(2))
    assert first.images.shape == (10000, 3, 32, 32)
    assert torch.equal(first.images, again.images)
    assert first.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert "NOT the published" in first.note


@pytest.mark.parametrize("folder", ["", "mnist-m"])
def test_the_published_images_are_read_where_they_are_and_say_so(tmp_path: Path, folder: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    (tmp_path / "second" / folder).mkdir(parents=True)
    arrays = {"images": images, "labels": np.array([7, 2, 1]), "note": "the first three"}
    np.savez(tmp_path / "second" / folder / "mnist-m_test.npz", **arrays)
    domain = load_mnist_m("test", (tmp_path, tmp_path / "second"), 32, 3)
    assert np.array_equal(domain.images.permute(0, 2, 3, 1).numpy(), images)
    assert domain.labels.tolist() == [7, 2, 1]
    assert domain.note == "published MNIST-M, 3 images: the first three"
