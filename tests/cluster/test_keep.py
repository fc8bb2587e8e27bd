"""What a frozen body makes of shards, made beforehand: fit reads it, and computes nothing of it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_shards import write_tar
from tests.training.test_keep import settings, without_seconds
from uda import UserError
from uda.cluster.keep import Where, build
from uda.console import Display
from uda.data.names import data_roots
from uda.recipe.load import load_recipe
from uda.runs.cache import Cache, cache_root
from uda.runs.run import Run
from uda.training.fit import fit

HERE = Where("cpu", "fp32")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UDA_CACHE_GIB", "1")
    pytest.importorskip("braceexpand")


@pytest.fixture
def shards(folders: Path, tmp_path: Path) -> str:
    """The target in four shards, an image of the second of which is damaged."""
    files = sorted(path for path in (folders / "target").rglob("*") if path.is_file())
    for shard in range(4):
        content = {path.name: path.read_bytes() for path in files[shard::4]}
        if shard == 1:
            content[files[5].name] = b"damaged"
        write_tar(tmp_path / "s" / f"{shard}.tar", content)
    return str(tmp_path / "s" / "{0..3}.tar")


def made(folders: Path, shards: str, where: Where = HERE, **more: Any) -> int:
    recipe = load_recipe("folders", {**settings(folders, **{"data.target": shards}), **more})
    return build(recipe, data_roots(None), where, Display(quiet=True))


def fitted(folders: Path, shards: str, out: Path, display: Display | None = None, **more: Any) -> Run:
    wanted = {**settings(folders, **{"data.target": shards}), **more}
    return fit("folders", out=out, device="cpu", precision="fp32", report=False, display=display, overrides=wanted)


def test_fit_reads_what_was_built_and_ends_as_it_would_have(
    folders: Path, shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the target's own statistics, too, which makes two bodies."""
    more = {"classifier.target_norm": "both"}
    alone = fitted(folders, shards, tmp_path / "alone", **more)
    Cache(cache_root()).clear()
    assert made(folders, shards, **more) == 2 * 95, "one of them is damaged"
    run = fitted(folders, shards, tmp_path / "run", Display(), **more)
    said = [line.strip() for line in capsys.readouterr().out.splitlines() if "features of {0..3}" in line]
    assert said == ["features of {0..3}: built before (cpu fp32)"] * 2
    assert without_seconds(run) == without_seconds(alone)
    assert run.result["target"]["train"] == 95
    assert "1.tar" in (run.path / "unreadable.txt").read_text()


def test_parts_that_are_there_stay_and_damaged_images_are_listed(folders: Path, shards: str) -> None:
    made(folders, shards)
    (kept,) = [path for path in cache_root().iterdir() if (path / "unreadable.txt").exists()]
    (line,) = (kept / "unreadable.txt").read_text().splitlines()
    assert "1.tar" in line
    (kept / "unreadable.txt").unlink()  # whoever has made the part died before it listed them
    assert made(folders, shards) == 0
    assert (kept / "unreadable.txt").read_text() == f"{line}\n"
    parts = sorted(path for path in kept.glob("*.json") if path.name != "about.json")
    assert len(parts) == 4
    read = json.loads(parts[0].read_text())["shape"][0]
    parts[0].unlink()
    assert made(folders, shards) == read
    assert made(folders, shards) == 0


@pytest.mark.usefixtures("takes")
def test_on_ray_the_parts_are_the_same(folders: Path, shards: str) -> None:
    contents = []
    for where in (HERE, HERE._replace(engine="ray")):
        assert made(folders, shards, where) == 95
        contents.append({path.name: path.read_bytes() for path in cache_root().rglob("*.bin")})
        Cache(cache_root()).clear()
    assert len(contents[0]) == 4
    assert contents[0] == contents[1]


def test_a_shard_of_damaged_images_is_a_part_and_too_many_of_them_end_the_run(folders: Path, shards: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "s" / "2.tar", {f"{n}.png": b"damaged" for n in range(30)})
    assert made(folders, shards) == 71, "and one more than the 30 is damaged"
    with pytest.raises(UserError, match="31 of the first 102 images cannot be read"):
        fitted(folders, shards, tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "gib", "message"),
    [
        ({"classifier.trainable": "all"}, "1", "nothing of this network is frozen"),
        ({"data.target": "digits"}, "1", "uda shards FOLDER"),
        ({}, "0", "nothing is kept"),
        ({}, "0.0000001", "UDA_CACHE_GIB to more"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(
    folders: Path, shards: str, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], gib: str, message: str
) -> None:
    monkeypatch.setenv("UDA_CACHE_GIB", gib)
    with pytest.raises(UserError, match=message):
        made(folders, shards, **more)
