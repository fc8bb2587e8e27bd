"""Shards: what lies where, in which order it is drawn, and what becomes of what is damaged."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from uda import UserError
from uda.atomic import held, temporary_beside
from uda.console import Display
from uda.data import shards as module
from uda.data.augment import Augment
from uda.data.batches import Stream
from uda.data.domain import Domain, LabelledDomain
from uda.data.files import ImageFiles, check, check_some, read
from uda.data.folders import find, pack
from uda.data.frame import Frame
from uda.data.shards import Members, ShardShuffle, expand, members_of

QUIET, FRAME = Display(quiet=True), Frame(8, 3)


def png(grey: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pytest.importorskip("braceexpand")


@pytest.fixture
def pattern(tmp_path: Path) -> str:
    """Three shards of four images, image n of grey n, of two classes."""
    for shard in range(3):
        numbers = range(4 * shard, 4 * shard + 4)
        write_tar(tmp_path / "s" / f"{shard}.tar", {f"{'ab'[n % 2]}/{n}.png": png(n) for n in numbers})
    return str(tmp_path / "s" / "{0..2}.tar")


def greys(images: ImageFiles, positions: list[int]) -> list[int]:
    return [int(image[0, 0, 0]) for image in next(read(images, [torch.tensor(positions)]))]


def files(pattern: str) -> ImageFiles:
    found = find(Path(pattern), labelled=False)
    return ImageFiles(found.root, found.names, FRAME)


def test_each_position_is_its_image_whatever_is_asked_for(pattern: str) -> None:
    images = files(pattern)
    assert greys(images, [11, 0, 4, 3]) == [11, 0, 4, 3]
    some = images[torch.tensor([1, 5, 6, 9])]
    assert greys(some, [3, 1]) == [9, 5]
    assert str(some.path(2)).endswith("1.tar/a/6.png")
    assert isinstance(some.names, Members)
    assert some.names.starts.tolist() == [0, 1, 3, 4]


def test_labels_are_the_first_folders_and_only_where_they_are_asked_for(pattern: str) -> None:
    assert find(Path(pattern), labelled=True).labels.tolist() == ["a", "b"] * 6  # type: ignore[union-attr]
    assert find(Path(pattern), labelled=False).labels is None


def test_a_class_file_beside_an_image_says_its_class(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"1.png": png(1), "1.cls": b"7", "x/2.cls": b"9", "x/2.png": png(2)})
    assert find(path, labelled=True).labels.tolist() == ["7", "9"]  # type: ignore[union-attr]


def test_images_without_a_class_are_no_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without a class"):
        find(write_tar(tmp_path / "0.tar", {"1.png": png(1)}), labelled=True)


def test_the_shards_are_read_through_once_until_they_change(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = members_of(pattern)
    monkeypatch.setattr(module, "_scan", lambda *given: pytest.fail("read again"))
    assert members_of(pattern)[0].key == first.key
    monkeypatch.undo()
    write_tar(Path(expand(pattern)[0]), {"a/0.png": png(0)})
    assert len(members_of(pattern)[0]) == 9


def test_an_epoch_holds_each_image_once_and_mixes_few_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN", 2)
    shuffle = ShardShuffle(np.arange(0, 101, 10))
    epoch = [shuffle.take(20) for _ in range(5)]
    assert sorted(torch.cat(epoch).tolist()) == list(range(100))
    assert all(len(set((part // 10).tolist())) == 2 for part in epoch)
    assert epoch[0].tolist() != sorted(epoch[0].tolist())


def test_an_interrupted_epoch_goes_on_with_the_very_next_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN", 2)
    shuffle = ShardShuffle(np.arange(0, 101, 10))
    shuffle.take(37)
    state, random = shuffle.state_dict(), torch.get_rng_state()
    expected = shuffle.take(150)
    other = ShardShuffle(np.arange(0, 101, 10))
    other.load_state_dict(state)
    torch.set_rng_state(random)
    assert torch.equal(other.take(150), expected)


def test_images_in_shards_stay_there_however_few_they_are(pattern: str) -> None:
    images, positions, unreadable = check(files(pattern), memory=2**30)
    assert isinstance(images, ImageFiles)
    assert (len(positions), unreadable) == (12, [])


def test_of_too_many_some_are_looked_at_and_a_damaged_one_is_replaced_with_its_label(tmp_path: Path) -> None:
    content = {f"a/{n}.png": png(n) for n in range(8)} | {"a/3.png": b"damaged"}
    path = write_tar(tmp_path / "0.tar", content)
    images, unreadable = check_some(files(str(path)), 2, lambda done: None)
    assert unreadable == []  # 0 and 4 were looked at
    with closing(Stream(images, 8)) as stream:
        drawn, _, positions = stream.next(Augment())
    assert 3 not in positions.tolist()
    assert ((drawn[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() == positions.tolist()


def test_where_one_stands_for_a_damaged_image_it_is_tested_by_its_own_label(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{n}.png": png(n) for n in range(8)} | {"3.png": b"damaged"})
    images, _ = check_some(files(str(path)), 2, lambda done: None)
    domain = LabelledDomain("t", images, tuple("01234567"), "note", torch.arange(8))
    for read_images, labels in (domain.labelled_sample(), next(domain.read([torch.arange(8)]))):
        assert read_images[:, 0, 0, 0].tolist() == labels.tolist()
        assert 3 not in labels.tolist()


def test_what_was_looked_at_and_is_damaged_since_is_said(pattern: str) -> None:
    images = files(pattern)
    write_tar(Path(expand(pattern)[0]), {f"a/{n}.png": b"x" * 100 for n in range(4)})
    with pytest.raises(UserError, match="cannot be read any more"):
        greys(images, [0])


def test_packing_keeps_files_and_classes(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / "in" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "ab"[n % 2] / f"{n}.png").write_bytes(png(n))
    pattern = pack(tmp_path / "in", tmp_path / "out", 2, 0, QUIET)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["0000.tar", "0001.tar", "0002.tar"]
    found = find(Path(pattern), labelled=True)
    shown = greys(ImageFiles(found.root, found.names, FRAME), list(range(5)))
    assert sorted(shown) == list(range(5))
    assert [("ab"[n % 2]) for n in shown] == found.labels.tolist()  # type: ignore[union-attr]


def test_packing_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{n}.png").write_bytes(png(n))
    out, pack_again = tmp_path / "out", partial(pack, tmp_path / "in", tmp_path / "out", 2, 0, QUIET)
    pack_again()
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "0001.tar").unlink()
    temporary_beside(out / "0001.tar").touch()
    before = (out / "0000.tar").stat()
    pack_again()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    assert (out / "0000.tar").stat() == before, "what was there is not packed again"
    with pytest.raises(UserError, match=r"0000\.tar holds other images than it would"):
        pack(tmp_path / "in", out, 2, 1, QUIET)
    os.utime(out / "0000.tar", (before.st_mtime - 60,) * 2)  # the images have changed since
    with pytest.raises(UserError, match=r"\.tar holds other images than it would"):
        pack_again()
    (out / "notes").touch()
    with pytest.raises(UserError, match="holds notes, which is none of these shards"):
        pack_again()


def test_a_shard_behind_a_command_is_fetched(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    path = write_tar(tmp_path / "0.tar", {"1.png": png(1), "2.png": png(2)})
    members, _ = members_of(f"pipe:cat {path}")
    assert greys(ImageFiles(Path(), members, FRAME), [1, 0]) == [2, 1]


def test_a_shard_that_another_reader_has_just_deleted_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("webdataset")
    path = write_tar(tmp_path / "0.tar", {"1.png": png(1)})
    members, _ = members_of(f"pipe:cat {path}")
    content, deleted, original = members.read(0).read(), list[Path](), Path.open

    def opened(self: Path, *given: str, **more: int) -> object:
        if self.parent.name == "fetched" and not deleted:
            deleted.append(self)
            self.unlink()  # as a reader does that has fetched the 33rd
        return original(self, *given, **more)

    monkeypatch.setattr(Path, "open", opened)
    assert members.read(0).read() == content
    assert deleted


def test_a_shard_that_cannot_be_fetched_is_no_damaged_image(tmp_path: Path, readers: None) -> None:
    pytest.importorskip("webdataset")
    path = write_tar(tmp_path / "0.tar", {"1.png": png(1), "2.png": png(2)})
    members, _ = members_of(f"pipe:cat {path}")
    path.unlink()
    with pytest.raises(UserError, match=r"^the shard pipe:cat .*0\.tar cannot be read \(.*code 1.*\); mend or leave it out$"):
        list(ImageFiles(Path(), members, FRAME).decoded([torch.arange(2)]))


def test_of_a_download_that_fails_at_its_end_nothing_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    path, whole = write_tar(tmp_path / "0.tar", {"1.png": png(1)}), tmp_path / "whole"
    whole.touch()
    members, _ = members_of(f"pipe:cat {path}; test -e {whole}")
    whole.unlink()
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be read"):
            members.read(0)
    whole.touch()
    assert members.read(0).read() == png(1)


def test_several_readers_fetch_a_shard_once(tmp_path: Path, readers: None) -> None:
    pytest.importorskip("webdataset")
    path, log = write_tar(tmp_path / "0.tar", {"1.png": png(1), "2.png": png(2)}), tmp_path / "log"
    members, _ = members_of(f"pipe:echo fetched >> {log}; sleep 0.5; cat {path}")
    log.unlink()
    list(ImageFiles(Path(), members, FRAME).decoded([torch.tensor([0]), torch.tensor([1])]))
    assert log.read_text() == "fetched\n"


def test_a_shard_that_is_deleted_each_time_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members, _ = members_of(str(write_tar(tmp_path / "0.tar", {"1.png": png(1)})))
    monkeypatch.setattr(module, "_fetch", lambda shard, path: None)
    with pytest.raises(UserError, match="have fewer processes read at a time"):
        Members(("pipe:",), members.starts, members._table, "").read(0)


def test_a_shard_that_ends_too_early_by_now_is_no_damaged_image(pattern: str) -> None:
    images = files(pattern)
    first = Path(expand(pattern)[0])
    first.write_bytes(first.read_bytes()[:600])
    with pytest.raises(UserError, match=r"0\.tar ends too early by now; put it back"):
        greys(images, [3])


@pytest.mark.parametrize(
    ("name", "line"), [("{0..1}.tar", "no shard .*1.tar"), ("x.tar", "cannot be read"), ("empty.tar", "holds no images")]
)
def test_wrong_shards_are_said_in_one_line(name: str, line: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"1.png": png(1)})
    write_tar(tmp_path / "empty.tar", {"notes.txt": b"nothing"})
    (tmp_path / "x.tar").write_bytes(b"no tar" * 500)
    with pytest.raises(UserError, match=line):
        members_of(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("x{0..99999999999}.tar", "100,000,000,000"),
        ("{x{1..10000}{1..10000},y}.tar", "100,000,001"),
        ("{a..z}{a..z}{a..z}{a..z}{0..9}.tar", "4,569,760"),
    ],
)
def test_more_shards_than_anybody_has_are_refused_before_they_are_named(name: str, count: str) -> None:
    with pytest.raises(UserError, match=f"stands for {count} shards; give at most 1,000,000"):
        expand(name)


@pytest.mark.parametrize(
    "name", ["x{0..9}.tar", "{a{0..1999},b{0..1999..2}}", "{07..10}{,.x}", "x", "{x}{5..1..-2}", r"\{1,2\}", "{1,{2,3}}{a..c}"]
)
def test_names_are_counted_as_they_are_made(name: str) -> None:
    from braceexpand import braceexpand

    assert module._stands_for(name) == len(list(braceexpand(name)))


def test_a_pipe_among_files_that_are_packed_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "a.png")
    with pytest.raises(UserError, match=r"a\.png cannot be packed \(it is a pipe"):
        pack(tmp_path / "in", tmp_path / "out", 10, 0, QUIET)


def test_what_is_kept_aside_is_the_last_and_the_others_stay_as_they_are(pattern: str) -> None:
    target = Domain("t", files(pattern), ("a", "b"), "note")
    assert target.shuffled()[:4].tolist() == [11, 10, 9, 8]
    rest = target.only(torch.arange(8))
    assert isinstance(rest.images, ImageFiles)
    assert isinstance(rest.images.names, Members)
    assert rest.images.names.starts.tolist() == [0, 4, 8, 8]
    assert sorted(ShardShuffle(rest.images.names.starts).take(8).tolist()) == list(range(8))
    assert greys(rest.images, [7, 0]) == [7, 0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "about.json").write_text("{}"),
        lambda folder: (folder / "about.json").write_text('{"starts": [0, '),
        lambda folder: (folder / "members.bin").write_bytes(b""),
        lambda folder: (folder / "members.bin").unlink(),
    ],
)
def test_a_damaged_index_is_made_anew(damage: Any, pattern: str, tmp_path: Path) -> None:
    before, _ = members_of(pattern)
    (folder,) = (tmp_path / "cache" / "uda" / "shards").iterdir()
    damage(folder)
    again, classes = members_of(pattern)
    assert (len(again), classes) == (len(before), ["a", "b"])


def test_a_shard_that_was_cut_between_two_images_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "0.tar", {f"{n}.png": png(n) for n in range(4)})
    with tarfile.open(whole) as tar:
        third = tar.getmembers()[2].offset
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:third])
    with pytest.raises(UserError, match="has no end, so that images may be missing"):
        members_of(str(tmp_path / "cut.tar"))


def test_two_shards_in_one_file_are_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "0.tar", {"0.png": png(0)}).read_bytes()
    (tmp_path / "two.tar").write_bytes(2 * whole)
    with pytest.raises(UserError, match="goes on behind its end, which hides images"):
        members_of(str(tmp_path / "two.tar"))


def test_a_scheme_that_nobody_reads_is_said() -> None:
    with pytest.raises(UserError, match=r"the shard foo://x/y\.tar cannot be read"):
        members_of("foo://x/y.tar")


def test_a_file_from_the_future_does_not_undo_what_is_packed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png(0))
    os.utime(tmp_path / "images" / "0.png", (4e9, 4e9))
    for _ in range(2):
        assert pack(tmp_path / "images", tmp_path / "s", 10, 0, QUIET)


def test_a_folder_that_another_process_packs_into_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_bytes(png(0))
    (tmp_path / "out").mkdir()
    (other := temporary_beside(tmp_path / "out" / "0000.tar")).touch()
    with held(other), pytest.raises(UserError, match="another process packs into"):
        pack(tmp_path / "in", tmp_path / "out", 2, 0, QUIET)
    assert list((tmp_path / "out").iterdir()) == [other]


def test_shards_that_could_not_be_named_are_not_packed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has braces"):
        pack(tmp_path, tmp_path / "sh {1..2}", 2, 0, QUIET)
