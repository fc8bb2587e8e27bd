"""Image files: what decoding gives, what is broken, and that decoding ahead changes neither order nor random numbers."""

import os
import signal
import tempfile
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from uda import UserError
from uda.data.augment import Augment
from uda.data.batches import Batches, Stream
from uda.data.domain import LabelledDomain
from uda.data.files import ImageFiles, check, in_order, read, read_in, together, workers_for
from uda.data.frame import Frame, decode
from uda.data.settings import DataSettings
from uda.runtime import Runtime

pytestmark = pytest.mark.usefixtures("readers")
RNG = np.random.default_rng(0)


def write(root: Path, count: int, size: int = 8) -> np.ndarray:
    """`count` grey PNGs 000.png, 001.png, ...; returns their pixels."""
    root.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (count, size, size), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(root / f"{number:03d}.png")
    return pixels


def files(root: Path, size: int = 8, channels: int = 1) -> ImageFiles:
    names = np.array(sorted(os.fsencode(path.name) for path in root.iterdir()), dtype=np.bytes_)
    return ImageFiles(root, names, Frame(size, channels))


def test_decoding_keeps_pixels_and_copies_grey_to_three_channels(tmp_path: Path) -> None:
    pixels = write(tmp_path, 1)[0]
    assert np.array_equal(decode(tmp_path / "000.png", Frame(8, 1)).numpy()[0], pixels)
    assert np.array_equal(decode(tmp_path / "000.png", Frame(8, 3)).numpy(), np.stack([pixels] * 3))


def test_decoding_takes_the_central_square(tmp_path: Path) -> None:
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 4:12] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", Frame(8, 1)).numpy() == 200).all()


def test_sixteen_bits_are_cut_to_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x4020, np.uint16)).save(tmp_path / "deep.png")
    assert (decode(tmp_path / "deep.png", Frame(8, 1)).numpy() == 0x40).all()


@pytest.mark.parametrize("ending", ["jpg", "bmp", "gif", "tif", "webp", "ppm"])
def test_other_formats_and_colour_decode(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / f"red.{ending}")
    pixels = decode(tmp_path / f"red.{ending}", Frame(8, 3)).numpy()
    assert pixels[0].min() > 240
    assert pixels[1:].max() < 15


def test_small_sets_are_held_and_large_ones_are_not(tmp_path: Path) -> None:
    pixels = write(tmp_path, 5)
    held, positions, unreadable = check(files(tmp_path), memory=5 * 64)
    assert isinstance(held, torch.Tensor)
    assert np.array_equal(held[:, 0].numpy(), pixels)
    assert positions.tolist() == list(range(5))
    assert unreadable == []
    lazy, _, _ = check(files(tmp_path), memory=5 * 64 - 1)
    assert isinstance(lazy, ImageFiles)
    assert np.array_equal(torch.cat(list(read(lazy, in_order(lazy, 2))))[:, 0].numpy(), pixels)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_unreadable_files_are_left_out_and_named(tmp_path: Path, memory: int) -> None:
    pixels = write(tmp_path, 6)
    (tmp_path / "002.png").write_bytes((tmp_path / "002.png").read_bytes()[:60])
    (tmp_path / "004.png").write_bytes(b"no image")
    images, positions, unreadable = check(files(tmp_path), memory)
    assert positions.tolist() == [0, 1, 3, 5]
    assert ["002.png" in unreadable[0], "004.png" in unreadable[1], len(unreadable)] == [True, True, 2]
    assert np.array_equal(torch.cat(list(read(images, in_order(images))))[:, 0].numpy(), pixels[positions])


def test_too_many_unreadable_files_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, 8)
    for number in range(4):
        (tmp_path / f"00{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"4 of the first 8 images cannot be read.*mend or remove"):
        check(files(tmp_path), 1 << 20)


def test_a_file_that_vanishes_later_is_named(tmp_path: Path) -> None:
    write(tmp_path, 3)
    images, _, _ = check(files(tmp_path), 0)
    (tmp_path / "001.png").unlink()
    with pytest.raises(UserError, match=r"001\.png cannot be read any more"):
        list(read(images, in_order(images)))


@settings(max_examples=3)
@given(size=st.integers(1, 7), taken=st.integers(0, 6))
def test_a_stream_of_files_goes_on_where_one_of_pixels_would(
    tmp_path_factory: pytest.TempPathFactory, size: int, taken: int
) -> None:
    root = tmp_path_factory.mktemp("images")
    write(root, 5)
    held, _, _ = check(files(root), 1 << 20)
    streams = []
    for images in (held, files(root)):
        torch.manual_seed(0)
        with closing(Stream(images, size)) as stream, closing(Stream(images, size)) as other:
            streams.append([stream.next(Augment()) for _ in range(taken)])
            other.load_state_dict(stream.state_dict())
            for _ in range(3):
                assert torch.equal(other.next(Augment())[2], stream.next(Augment())[2])
    for (pixels, _, positions), (decoded, _, same) in zip(*streams, strict=True):
        assert torch.equal(pixels, decoded)
        assert torch.equal(positions, same)


def test_labels_stay_with_files_that_are_decoded_ahead(tmp_path: Path, fp32: Runtime) -> None:
    pixels = write(tmp_path, 9)
    domain = LabelledDomain("d", files(tmp_path), tuple("abc"), "note", torch.arange(9) % 3)
    batches = Batches(domain, None, 6, 0, Augment(), Augment(), fp32)
    with closing(batches):
        batch = batches.next()
    for image, label in zip((batch.source * 127.5 + 127.5).round().byte(), batch.source_labels, strict=True):
        number = next(n for n in range(9) if np.array_equal(image[0].numpy(), pixels[n]))
        assert label == number % 3


def test_decoding_leaves_the_random_state_alone(tmp_path: Path) -> None:
    write(tmp_path, 3)
    state = torch.get_rng_state()
    list(read(some := files(tmp_path), in_order(some)))
    assert torch.equal(state, torch.get_rng_state())


def test_workers_outlive_an_interrupt_from_the_keyboard(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the group; only the main one decides what to do about it."""
    write(tmp_path, 40)
    caught: list[int] = []
    old = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        parts = read(some := files(tmp_path), in_order(some, 1))
        next(parts)
        for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            os.kill(int(child), signal.SIGINT)
        assert len(list(parts)) == 39
    finally:
        signal.signal(signal.SIGINT, old)


def test_images_are_read_in_a_smaller_frame_whether_they_are_files_or_in_memory(tmp_path: Path) -> None:
    """The same part of them: a black border, which a central square leaves out, is not in it."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[8:56, 8:56] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    settings = DataSettings(source="a", target="b", size=48, resize=64, channels=3, drawn_size=12)
    assert settings.drawn_frame == Frame(12, 3, 16)
    files = ImageFiles(tmp_path, np.array([b"a.png"]), settings.frame)
    for images in (files, next(read(files, in_order(files, 1)))):
        (small,) = read_in(settings.drawn_frame, images)
        assert small.shape == (1, 3, 12, 12)
        assert small.dtype == torch.uint8
        assert (small[..., 1:-1, 1:-1] == 200).all()
        assert (small > 140).all(), "at the edge, what is outside has a share"


def test_little_shared_memory_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 5)
    expected = list(read(some := files(tmp_path), in_order(some, 2)))
    assert workers_for(2**20) > 0
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1, f_frsize=64))
    assert workers_for(2**20) == 0
    assert all(torch.equal(*pair) for pair in zip(read(some, in_order(some, 2)), expected, strict=True))


def test_the_main_process_reads_where_no_reader_could_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # where nobody makes a folder
    assert workers_for(1) == 0


def test_readers_outlive_one_termination_of_the_group(tmp_path: Path) -> None:
    """As `kill -TERM -GROUP` sends: the main process ends its step, and then them."""
    write(tmp_path, 40)
    parts = read(some := files(tmp_path), in_order(some, 1))
    for _ in range(4):  # until each reader has begun
        next(parts)
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        os.kill(int(child), signal.SIGTERM)
    assert len(list(parts)) == 36


@pytest.mark.parametrize(("shape", "count"), [((1, 32, 32), 256), ((3, 224, 224), 256), ((3, 4096, 4096), 1), ((512,), 256)])
def test_few_large_images_are_read_together(shape: tuple[int, ...], count: int) -> None:
    assert together(shape) == count


def test_of_no_images_none_are_read(tmp_path: Path) -> None:
    """As where a classifier makes no mistake that could be shown."""
    write(tmp_path, 3)
    assert next(read(files(tmp_path), [torch.zeros(0, dtype=torch.int64)])).shape == (0, 1, 8, 8)
