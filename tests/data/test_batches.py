import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import domain, write_folder
from uda.data.augment import Augment, to_float
from uda.data.batches import Batches, Shuffle, Stream
from uda.data.domain import Pair
from uda.data.files import ImageFiles, in_order, read
from uda.data.frame import Frame
from uda.runtime import Runtime


@given(count=st.integers(1, 20), size=st.integers(1, 50))
@settings(max_examples=40)
def test_every_index_comes_once_per_epoch(count: int, size: int) -> None:
    shuffle = Shuffle(count)
    taken = torch.cat([shuffle.take(size) for _ in range(count)])  # count * size indices: `size` whole epochs
    assert taken.bincount(minlength=count).tolist() == [size] * count


def make(pair: Pair, runtime: Runtime) -> Batches:
    return Batches(pair.source, pair.target.without_labels(), 8, 8, Augment(rotate=10), Augment(invert=0.5), runtime)


def test_state_goes_on_with_the_very_next_batch(small_pair: Pair, fp32: Runtime) -> None:
    torch.manual_seed(0)
    batches = make(small_pair, fp32)
    batches.next()
    state, random = batches.state_dict(), torch.get_rng_state()
    expected = batches.next()
    other = make(small_pair, fp32)
    other.load_state_dict(state)
    torch.set_rng_state(random)
    got = other.next()
    assert torch.equal(got.source, expected.source)
    assert torch.equal(got.target, expected.target)
    assert torch.equal(got.source_labels, expected.source_labels)


def test_labels_stay_with_their_images(small_pair: Pair, fp32: Runtime) -> None:
    batch = Batches(small_pair.source, None, 16, 0, Augment(), Augment(), fp32).next()
    pixels = ((batch.source + 1) * 127.5).round().byte()
    for image, label in zip(pixels, batch.source_labels, strict=True):
        matches = (small_pair.source.images == image).flatten(1).all(1)
        assert small_pair.source.labels[matches].tolist() == [label.item()]


def test_the_same_images_as_they_are_stand_beside_the_augmented_ones(small_pair: Pair, fp32: Runtime) -> None:
    inverted = Augment(invert=1.0)
    batch = Batches(small_pair.source, small_pair.target.without_labels(), 8, 8, inverted, inverted, fp32).next()
    assert torch.equal(batch.target, -batch.target_weak)
    assert torch.equal(batch.source, -batch.pixels(source_weak=True)[0])
    assert torch.equal(batch.source, batch.pixels()[0])


def test_positions_say_which_images_of_each_domain_a_batch_holds(small_pair: Pair, fp32: Runtime) -> None:
    batch = Batches(small_pair.source, small_pair.target.without_labels(), 8, 12, Augment(), Augment(invert=1.0), fp32).next()
    assert torch.equal(batch.source, to_float(small_pair.source.images[batch.source_positions]))
    assert torch.equal(batch.target_weak, to_float(small_pair.target.images[batch.target_positions]))


def test_a_domain_that_is_not_read_has_no_positions(small_pair: Pair, fp32: Runtime) -> None:
    of_source = Batches(small_pair.source, None, 8, 0, Augment(), Augment(), fp32).next()
    of_target = Batches(None, small_pair.target.without_labels(), 0, 8, Augment(), Augment(), fp32).next()
    assert (len(of_source.target_positions), len(of_target.source_positions)) == (0, 0)


@given(counts=st.lists(st.integers(1, 40), min_size=2, max_size=5))
@settings(max_examples=40)
def test_even_classes_come_equally_often_in_an_epoch(counts: list[int]) -> None:
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    share = -(-len(labels) // len(counts))
    drawn = Shuffle(len(labels), labels, torch.ones(len(counts))).take(share * len(counts))
    assert labels[drawn].bincount().tolist() == [share] * len(counts)
    for k, count in enumerate(counts):  # and within a class no image a second time before all came once
        times = drawn[labels[drawn] == k].bincount(minlength=len(labels))[labels == k]
        assert times.max() - times.min() <= 1
        assert times.sum() >= min(count, share)


@given(shares=st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda shares: sum(shares) > 0.1))
@settings(max_examples=40)
def test_classes_come_in_proportion_to_their_shares(shares: list[float]) -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    found = labels[Shuffle(100, labels, torch.tensor(shares)).order].bincount(minlength=3)
    for count, share in zip(found.tolist(), shares, strict=True):
        assert abs(count - 100 * share / sum(shares)) <= 1


def test_a_class_without_images_has_no_share() -> None:
    labels = torch.tensor([0] * 50 + [2] * 50)
    assert labels[Shuffle(100, labels, torch.ones(3)).order].bincount(minlength=3).tolist() == [50, 0, 50]


def test_batches_are_the_same_however_many_processes_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several epochs, with augmentation that draws from the generator that the order once came from."""
    write_folder(domain("d", 6, 0), tmp_path, False)
    names = np.array([os.fsencode(path.name) for path in sorted(tmp_path.iterdir())])
    files, found = ImageFiles(tmp_path, names, Frame(16, 3)), []
    for images, readers in ((next(read(files, in_order(files))), 0), (files, 0), (files, 1), (files, 3)):
        monkeypatch.setattr("uda.data.files.READERS", readers)
        torch.manual_seed(0)
        stream = Stream(images, 4)
        found.append([stream.next(lambda part: part + torch.rand(len(part), 1, 1, 1))[1] for _ in range(6)])
        stream.close()
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_images_come_through_a_pipe_where_shared_memory_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(domain("d", 6, 0), tmp_path, False)
    names = np.array([os.fsencode(path.name) for path in sorted(tmp_path.iterdir())])
    files = ImageFiles(tmp_path, names, Frame(16, 3))

    def full(*_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm)")

    monkeypatch.setattr("uda.data.files.READERS", 1)
    ample = list(read(files, in_order(files)))
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    assert all(torch.equal(*pair) for pair in zip(read(files, in_order(files)), ample, strict=True))
