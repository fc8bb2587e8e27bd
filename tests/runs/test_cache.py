"""What is kept for other runs."""

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from uda import UserError
from uda.atomic import temporary_beside
from uda.data.files import ImageFiles
from uda.data.frame import Frame
from uda.models.weights import save_tensors
from uda.runs.cache import (
    MAPS,
    WEIGHTS,
    Cache,
    digest,
    digest_of_images,
    limit,
    map_file,
    writable_cache,
    write_about,
    write_maps,
)


def keep(cache: Cache, key: str, count: int = 100, used: float | None = None) -> None:
    with cache.writing(key) as folder:
        shape, dtype = write_maps(folder / MAPS, [torch.zeros(count, 2)])
        write_about(folder, {"what": key, "shape": shape, "dtype": dtype})
    if used is not None and cache.root is not None:
        os.utime(cache.root / key / "about.json", (used, used))


@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from([torch.float32, torch.bfloat16]))
def test_maps_come_back_as_they_were_written(counts: list[int], dtype: torch.dtype) -> None:
    folder = Path(tempfile.mkdtemp())
    blocks = [torch.randn(count + 1, 2, 3).to(dtype) for count in counts] or [torch.zeros(1, 2, 3, dtype=dtype)]
    shape, name = write_maps(folder / MAPS, blocks)
    assert torch.equal(map_file(folder / MAPS, shape, name), torch.cat(blocks))


def test_a_file_that_is_too_short_is_not_read(tmp_path: Path) -> None:
    write_maps(tmp_path / MAPS, [torch.zeros(2, 3)])
    with pytest.raises(UserError, match="uda cache clear"):
        map_file(tmp_path / MAPS, [3, 3], "float32")


def test_what_is_kept_is_found_under_its_key_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept")
    keep(cache, "one")
    assert cache.find("two") is None
    found = cache.find("one")
    assert found is not None
    assert found[0]["what"] == "one"


def test_a_full_disk_is_said_of_the_cache_and_with_the_ways_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept")
    with (
        pytest.raises(UserError, match=r"/kept cannot be written \(No space left on device\); .*--no-cache"),
        cache.writing("one"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert cache.entries() == []


def test_what_is_not_finished_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept")

    def interrupted() -> None:
        with cache.writing("one") as folder:
            write_about(folder, {})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cache.find("one") is None
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_another_machine_has_kept_this_moment_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both replace the same folder, which is there again by the time."""
    cache = Cache(tmp_path)
    key = digest("a")
    with cache.writing(key) as folder:
        write_about(folder, {"what": "mine"})
        keep(cache, key)
        monkeypatch.setattr("uda.runs.cache.shutil.rmtree", lambda *_, **__: None)
    found = cache.find(key)
    assert found is not None
    assert found[0]["what"] == key


def test_what_a_dead_process_was_computing_is_deleted_by_the_next(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept")
    dead = temporary_beside(tmp_path / "kept" / "one")
    dead.mkdir(parents=True)
    (dead / MAPS).touch()
    with cache.writing("one") as mine:
        write_about(mine, {})
        keep(cache, "two")  # of another process, at the same time
    assert cache.find("one") is not None
    assert not dead.exists()


def test_a_cache_without_a_root_keeps_nothing_but_maps_stay_readable() -> None:
    cache = Cache(None)
    with cache.writing("one") as folder:
        shape, dtype = write_maps(folder / MAPS, [torch.ones(2, 3)])
        maps = map_file(folder / MAPS, shape, dtype)
    assert not folder.exists()
    assert torch.equal(maps, torch.ones(2, 3))
    assert cache.find("one") is None
    assert cache.entries() == []


def test_what_was_not_read_for_longest_is_deleted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    monkeypatch.setenv("UDA_CACHE_GIB", "1")
    for number, key in enumerate("abc"):
        keep(cache, key, 10_000, used=1000.0 + number)
    cache.find("a")
    monkeypatch.setenv("UDA_CACHE_GIB", str(200_000 / 2**30))  # of 80 kB each, two fit
    keep(cache, "d", 10_000)
    assert {entry.path.name for entry in cache.entries()} == {"a", "d"}
    assert cache.clear() > 160_000
    assert cache.entries() == []


@pytest.mark.parametrize("given", ["much", "inf", "nan", "-5", "1e305"])
def test_a_limit_that_is_no_size_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UDA_CACHE_GIB", given)
    with pytest.raises(UserError, match="UDA_CACHE_GIB"):
        limit()


def test_a_digest_tells_values_shapes_and_types_apart() -> None:
    zeros = torch.zeros(4)
    same = [zeros, torch.zeros(4)]
    others = [torch.zeros(2, 2), torch.zeros(4, dtype=torch.float64), torch.zeros(3), "zeros", nn.Linear(2, 2), nn.Linear(2, 2)]
    assert digest(same[0]) == digest(same[1])
    assert len({digest(part) for part in (zeros, *others)}) == 1 + len(others)
    assert digest("a", "b") != digest("ab")


def test_of_images_in_files_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"content")
    files = ImageFiles(tmp_path, np.array([b"a.png", b"b.png"]), Frame(8, 1))
    before = digest_of_images(files)
    (tmp_path / "b.png").write_bytes(b"other")
    assert digest_of_images(files) != before


def test_images_are_known_by_content_and_order() -> None:
    images = torch.randint(0, 256, (3, 1, 2, 2), dtype=torch.uint8)
    assert digest_of_images(images) == digest_of_images(images.clone())
    assert digest_of_images(images) != digest_of_images(images.flip(0))


def test_damaged_weights_are_not_found(tmp_path: Path) -> None:
    cache, module = Cache(tmp_path / "kept"), torch.nn.Linear(2, 2)
    with cache.writing("one") as folder:
        save_tensors(module.state_dict(), folder / WEIGHTS)
        write_about(folder, {})
    assert cache.load("one", module)
    weights = tmp_path / "kept" / "one" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4])
    assert not cache.load("one", module)


def test_a_linked_cache_is_cleared(tmp_path: Path) -> None:
    keep(Cache(tmp_path / "disk"), "one")
    (tmp_path / "disk" / "of others.txt").write_text("")
    (tmp_path / "kept").symlink_to(tmp_path / "disk")
    assert Cache(tmp_path / "kept").clear() > 0
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["of others.txt"]


def test_where_the_cache_cannot_be_made_nothing_is_kept_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UDA_CACHE_GIB", "1")
    said: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert writable_cache(True, said.append).root is None
    assert "cannot be written (Not a directory); let $XDG_CACHE_HOME" in said.pop()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert writable_cache(True, said.append).root == tmp_path / "uda" / "kept"
    assert said == []
