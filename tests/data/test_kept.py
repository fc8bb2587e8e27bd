"""Views of images as a frozen body keeps them."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import domain
from uda.data.augment import Augment
from uda.data.batches import Batches
from uda.data.domain import LabelledDomain
from uda.data.kept import Kept, Other, Parts
from uda.runtime import Runtime

CPU = torch.device("cpu")


def kept(count: int = 12, views: int = 5, weak: int = 2) -> Kept:
    """Features (2,) of each view: the image's number and the view's."""
    numbers = torch.stack(torch.meshgrid(torch.arange(count), torch.arange(views), indexing="ij"), -1)
    return Kept(numbers.to(torch.bfloat16), weak, CPU)


def test_the_first_view_is_tested_on() -> None:
    assert kept().tested(torch.tensor([4, 7])).tolist() == [[4, 0], [7, 0]]
    assert kept().tested(torch.tensor([4])).dtype == torch.float32


@pytest.mark.parametrize(("kind", "views"), [("weak", {0, 1}), ("strong", {2, 3, 4}), ("any", {0, 1, 2, 3, 4})])
def test_views_of_one_kind_are_drawn_for_the_images_asked_for(kind: str, views: set[int]) -> None:
    positions = torch.arange(12).repeat(20)
    drawn = kept().drawn(positions, kind)  # type: ignore[arg-type]
    assert torch.equal(drawn[:, 0].long(), positions)
    assert set(drawn[:, 1].long().tolist()) == views


def test_where_all_views_are_weak_any_of_them_stands_for_a_strong_one() -> None:
    drawn = kept(views=2, weak=2).drawn(torch.arange(12).repeat(20), "strong")
    assert set(drawn[:, 1].long().tolist()) == {0, 1}


def with_kept(name: str, count: int, seed: int) -> LabelledDomain:
    return replace(domain(name, count, seed), kept=kept(count))


def test_batches_hold_views_in_place_of_images_and_go_on_where_they_were(fp32: Runtime) -> None:
    source, target = with_kept("s", 12, 0), with_kept("t", 12, 1)

    def batches() -> Batches:
        return Batches(source, target.without_labels(), 4, 6, Augment(rotate=90), Augment(erase=1), fp32)

    torch.manual_seed(0)
    stream = batches()
    stream.next()
    state, random = stream.state_dict(), torch.get_rng_state()
    expected = stream.next()
    assert expected.source.shape == (4, 2)
    assert torch.equal(expected.source_labels, source.labels[expected.source[:, 0].long()])
    assert torch.equal(expected.target[:, 0], expected.target_weak[:, 0])
    assert torch.equal(expected.target[:, 0].long(), expected.target_positions)
    assert expected.target_weak[:, 1].max() < 2 <= expected.target[:, 1].min()
    other = batches()
    other.load_state_dict(state)
    torch.set_rng_state(random)
    got = other.next()
    assert torch.equal(got.target, expected.target)
    assert torch.equal(got.source, expected.source)


def test_batches_hold_small_images_of_the_same_positions_where_a_method_draws(fp32: Runtime) -> None:
    def small(count: int) -> torch.Tensor:
        """Each image as grey as its number."""
        return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)

    source, target = (replace(with_kept(name, 12, 0), small=small(12)) for name in "st")
    batch = Batches(source, target.without_labels(), 4, 6, Augment(), Augment(erase=1), fp32).next()
    for pixels, positions in zip(batch.pixels(), (batch.source_positions, batch.target_positions), strict=True):
        assert pixels.shape == (len(positions), 3, 8, 8)
        assert torch.equal(((pixels + 1) * 127.5).round()[:, 0, 0, 0].long(), positions)
    assert torch.equal(batch.source_positions, batch.source[:, 0].long())


def test_a_batch_without_small_images_is_drawn_from_as_it_is(fp32: Runtime) -> None:
    batch = Batches(with_kept("s", 12, 0), with_kept("t", 12, 1).without_labels(), 4, 6, Augment(), Augment(), fp32).next()
    assert batch.small is None
    assert batch.pixels()[0] is batch.source
    assert batch.pixels()[1] is batch.target_weak


def test_some_of_the_images_are_read_by_their_new_numbers_and_by_the_old_maps() -> None:
    some = kept().only(torch.tensor([3, 8, 9])).only(torch.tensor([2, 0]))
    assert (len(some), some.shape) == (2, (2, 2))
    assert some.tested(torch.tensor([0, 1]))[:, 0].tolist() == [9, 3]


def test_maps_in_parts_are_read_as_one() -> None:
    whole = kept()
    parts = replace(whole, maps=Parts([whole.maps[:5], whole.maps[5:6], whole.maps[6:]]))  # type: ignore[arg-type]
    positions = torch.tensor([11, 0, 5, 6, 4, 5])
    assert torch.equal(parts.tested(positions), whole.tested(positions))
    assert parts.shape == whole.shape


def test_another_bodys_maps_are_those_of_the_same_images() -> None:
    """Whichever of them are left, and wherever the other ones lie."""
    moved = replace(kept(), rows=torch.arange(12).flip(0))
    both = replace(kept(), other=Other(moved, torch.ones(1, 2), torch.zeros(1, 2))).only(torch.tensor([2, 9]))
    assert both.tested(torch.tensor([0, 1])).tolist() == [[(2 + 9) / 2, 0], [(9 + 2) / 2, 0]]
