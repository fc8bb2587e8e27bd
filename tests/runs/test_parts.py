"""Parts of shards, gathered for whichever images are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.test_shards import png, write_tar
from uda.data.shards import members_of
from uda.runs.parts import PartsFolder


@pytest.fixture
def pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three shards of four images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pytest.importorskip("braceexpand")
    for shard in range(3):
        write_tar(tmp_path / "s" / f"{shard}.tar", {f"{n}.png": png(n) for n in range(4 * shard, 4 * shard + 4)})
    return str(tmp_path / "s" / "{0..2}.tar")


def write(parts: PartsFolder, pattern: str, lost: int = -1) -> None:
    """Maps (1, 1) of each image: its number in all shards; one of them may be lost."""
    for number, shard in enumerate(members_of(pattern)[0].shards):
        numbers = [n for n in range(4 * number, 4 * number + 4) if n != lost]
        gone = {lost % 4: f"{lost} is damaged"} if 0 <= lost // 4 == number else {}
        parts.write(parts.name(shard), [torch.tensor(numbers).float().view(-1, 1, 1)], gone, "cpu fp32")


@pytest.mark.parametrize("asked", [list(range(12)), [0, 1, 2, 3, 4, 5], [1, 5, 6, 9], [8]])
def test_each_image_that_is_asked_for_has_its_own_map(pattern: str, tmp_path: Path, asked: list[int]) -> None:
    parts = PartsFolder(tmp_path)
    write(parts, pattern, lost=5)
    found = parts.gather(members_of(pattern)[0][np.array(asked)])
    assert found is not None
    read = found.maps[found.rows, torch.zeros(len(found.rows), dtype=torch.int64)].flatten().tolist()
    assert read == [number for number in asked if number != 5]
    assert [asked[position] for position in found.readable.tolist()] == read
    assert found.unreadable == (("5 is damaged",) if 5 in asked else ())


def test_where_a_part_is_missing_or_its_shard_has_changed_nothing_is_gathered(pattern: str, tmp_path: Path) -> None:
    parts = PartsFolder(tmp_path)
    write(parts, pattern)
    shards = members_of(pattern)[0].shards
    write_tar(Path(shards[1]), {"4.png": png(4)})
    assert parts.gather(members_of(pattern)[0]) is None
    assert parts.found(parts.name(shards[1])) is None
    assert parts.gather(members_of(shards[2])[0]) is not None
