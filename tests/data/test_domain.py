import pytest
import torch

from uda import UserError
from uda.data.domain import Domain, LabelledDomain, Pair, count_kept_aside

IMAGES = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)


def test_a_domain_without_labels_has_nowhere_to_read_them_from() -> None:
    labelled = LabelledDomain("d", IMAGES, ("a", "b"), "note", torch.tensor([0, 1, 1]))
    bare = labelled.without_labels()
    assert type(bare) is Domain
    assert not hasattr(bare, "labels")
    reachable = [value for value in vars(bare).values() if isinstance(value, torch.Tensor)]
    assert [tuple(tensor.shape) for tensor in reachable] == [(3, 1, 4, 4)]


def test_inverted_copies_double_the_images() -> None:
    doubled = Domain("d", IMAGES, ("a",), "note").with_inverted_copies()
    assert doubled.images.flatten(1)[:, 0].tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize("labels", [[0, 1, 2], [-1, 0, 1]])
def test_labels_outside_the_classes_are_refused(labels: list[int]) -> None:
    with pytest.raises(UserError, match=r"classes are 0\.\.1"):
        LabelledDomain("d", IMAGES, ("a", "b"), "note", torch.tensor(labels))


def test_a_count_of_labels_that_does_not_match_is_refused() -> None:
    with pytest.raises(UserError, match="one label per image"):
        LabelledDomain("d", IMAGES, ("a", "b"), "note", torch.tensor([0]))


def test_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        Domain("d", IMAGES[:0], ("a",), "note")


def test_the_sample_is_the_same_at_every_call(small_pair: Pair) -> None:
    target = small_pair.target.without_labels()
    assert torch.equal(target.sample(10), target.sample(10))
    assert len(target.sample(5000)) == len(target)


@pytest.mark.parametrize(
    ("images", "share", "aside"), [(1999, 0.1, 0), (2000, 0.05, 200), (3000, 0.1, 300), (60_000, 0.1, 2000), (3000, 0.0, 0)]
)
def test_so_many_target_images_are_kept_aside(images: int, share: float, aside: int) -> None:
    assert count_kept_aside(images, share) == aside


def test_what_is_kept_aside_and_what_is_not_are_all_images_once_and_samples_begin_with_the_former() -> None:
    many = Domain("d", torch.zeros(600, 1, 2, 2, dtype=torch.uint8), ("a",), "note")
    aside, trained_on = many.kept_aside(0.1)
    assert torch.cat([aside, trained_on]).sort().values.tolist() == list(range(600))
    assert torch.equal(many.sampled(len(aside)), aside)
