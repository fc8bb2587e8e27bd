"""How far two domains are apart, and how often each class comes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uda.evaluation.domains import class_shares, domain_auc, statistics


def test_statistics_are_of_light_contrast_and_sharpness() -> None:
    flat = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    stripes = flat.clone()
    stripes[..., ::2] = 0
    (white, sharp) = statistics(torch.cat([flat, stripes]))
    assert white.shape == (3 * 3 + 16,)
    assert white[:9].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert sharp[:3].tolist() == [0.5] * 3
    assert sharp[6:9].tolist() == [0.5] * 3  # all steps along a row, none down a column
    assert white[9:].tolist() == [1] * 16


def test_one_domain_is_not_told_apart_from_itself_and_another_is() -> None:
    near, same, far = torch.randn(200, 5), torch.randn(200, 5), torch.randn(200, 5) + 3
    assert 0.4 < domain_auc(near, same) < 0.6
    assert domain_auc(near, far) > 0.99


def test_a_few_images_with_many_features_are_not_told_apart_by_heart() -> None:
    assert 0.2 < domain_auc(torch.randn(20, 100), torch.randn(20, 100)) < 0.8


def blobs(counts: list[int], apart: float) -> tuple[Tensor, Tensor]:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return torch.randn(len(labels), 4) + apart * torch.nn.functional.one_hot(labels, 4), labels


def test_uneven_classes_are_seen_where_classes_look_alike() -> None:
    source, labels = blobs([150, 150, 150], apart=4.0)
    shares = class_shares(source, labels, blobs([300, 60, 40], apart=4.0)[0], 3)
    assert shares is not None
    assert shares.estimated.sum() == pytest.approx(1)
    assert shares.estimated[0] > 0.5
    assert shares.uneven


def test_even_classes_that_are_hard_to_read_are_not_taken_for_uneven() -> None:
    """A target whose classes lie between the source's: mistakes pile up in some of them."""
    source, labels = blobs([60, 60, 60, 60], apart=2.0)
    shares = class_shares(source, labels, 0.4 * blobs([60, 60, 60, 60], apart=2.0)[0] + torch.tensor([3.0, 0, 0, 0]), 4)
    assert shares is not None
    assert shares.unevenness < shares.explained
    assert not shares.uneven


def test_a_class_without_source_images_is_taken_for_even() -> None:
    source, labels = blobs([50, 0, 50], apart=4.0)
    shares = class_shares(source, labels, source, 4)
    assert shares is not None
    assert shares.estimated.tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_a_class_of_one_image_is_read_and_two_of_them_are_too_few() -> None:
    source, labels = blobs([20, 20, 1], apart=4.0)
    assert class_shares(source, labels, source, 3) is not None
    assert class_shares(source[-2:], labels[-2:], source, 3) is None


def test_four_source_images_in_two_classes_are_enough_to_ask() -> None:
    images = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert class_shares(images, torch.tensor([0, 0, 1, 1]), images, 2) is not None
