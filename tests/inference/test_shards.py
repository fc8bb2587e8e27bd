"""Predictions for shards: every image has one row, what is done is not done again, and what is damaged is said."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.data.test_shards import png, write_tar
from uda import UserError
from uda.cluster.predict import predict_shards
from uda.console import Display
from uda.inference import shards as module
from uda.inference.predict import write_predictions
from uda.inference.shards import Asked
from uda.runs.run import Run

pytest.importorskip("braceexpand")
parquet = pytest.importorskip("pyarrow.parquet")
QUIET = Display(quiet=True)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Two shards of three images; one of the first shard's is damaged."""
    write_tar(tmp_path / "in" / "0.tar", {"0.png": png(0), "1.png": b"damaged", "2.png": png(200)})
    write_tar(tmp_path / "in" / "1.tar", {f"{n}.png": png(40 * n) for n in (3, 4, 5)})
    return str(tmp_path / "in" / "{0..1}.tar")


def asked(run: Run, which: str = "last") -> Asked:
    return Asked(run.path, which, "cpu", None, trust=False)


def rows(out: Path) -> dict[str, dict]:
    found = [row for path in sorted(out.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    assert len({row["path"] for row in found}) == len(found)
    return {row["path"]: row for row in found}


def test_every_image_has_one_row_with_what_predict_says_of_it(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    assert predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here") == 5, "one of the six is damaged"
    found = rows(tmp_path / "out")
    assert sorted(found) == [f"{n}.png" for n in range(6)]
    for n in (0, 2):
        (tmp_path / f"{n}.png").write_bytes(png(100 * n))
        write_predictions(tiny_run, tmp_path / f"{n}.png", tmp_path / "one.csv", "last", QUIET)
        name, shown = (tmp_path / "one.csv").read_text().splitlines()[1].split(",")[1:]
        assert found[f"{n}.png"]["class"] == name
        assert found[f"{n}.png"]["probability"] == pytest.approx(float(shown), abs=1e-4)


def test_a_damaged_image_is_a_row_and_a_line(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    damaged = rows(tmp_path / "out")["1.png"]
    assert damaged["class"] is damaged["probability"] is None
    assert damaged["error"]
    (line,) = (tmp_path / "out" / "unreadable.txt").read_text().splitlines()
    assert "0.tar/1.png: " in line
    (tmp_path / "out" / "unreadable.txt").unlink()  # whoever has predicted died before it listed them
    assert predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here") == 0
    assert (tmp_path / "out" / "unreadable.txt").read_text() == f"{line}\n"


def test_shards_that_are_done_are_not_read_again(
    tiny_run: Run, shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    (tmp_path / "out" / "1.parquet").unlink()
    read: list[str] = []
    original = module.opened_shard
    monkeypatch.setattr(module, "opened_shard", lambda shard: read.append(Path(shard).name) or original(shard))
    assert predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here") == 3
    assert read == ["1.tar"]


def test_another_classifiers_predictions_are_not_mixed_in(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    with pytest.raises(UserError, match="holds predictions of another run"):
        predict_shards(asked(tiny_run, "source"), shards, tmp_path / "out", QUIET, "here")


def test_what_is_found_of_a_shard_is_what_was_made_of_it(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    shard, path = str(tmp_path / "in" / "0.tar"), tmp_path / "0.parquet"
    assert module.found_done(asked(tiny_run), shard, path) is None
    made = module.predict_shard(asked(tiny_run), shard, path)
    assert (made.images, len(made.unreadable)) == (3, 1)
    assert module.found_done(asked(tiny_run), shard, path) == made


def test_a_shard_that_was_written_anew_is_predicted_anew(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    write_tar(tmp_path / "in" / "0.tar", {"0.png": png(0), "9.png": png(9)})
    assert predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here") == 2
    assert sorted(rows(tmp_path / "out")) == [f"{n}.png" for n in (0, 3, 4, 5, 9)]
    assert (tmp_path / "out" / "unreadable.txt").read_text() == ""


def test_another_shards_predictions_are_not_taken_for_its_own_and_stay(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    known = rows(tmp_path / "out")
    other = write_tar(tmp_path / "other" / "0.tar", {"8.png": png(8)})
    with pytest.raises(UserError, match=r"predictions of .*in/0\.tar, and not of .*other/0\.tar; give another -o"):
        predict_shards(asked(tiny_run), str(other), tmp_path / "out", QUIET, "here")
    assert rows(tmp_path / "out") == known


def test_names_are_as_they_are_in_the_shard(tiny_run: Run, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"-1.png": png(1), "=x.png": png(2), "caf\udce9.png": png(3)})
    predict_shards(asked(tiny_run), str(tmp_path / "0.tar"), tmp_path / "out", QUIET, "here")
    assert sorted(rows(tmp_path / "out")) == ["-1.png", "=x.png", "caf\\xe9.png"]


def test_a_shard_that_is_cut_short_leaves_no_file_and_the_others_are_done(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    first = tmp_path / "in" / "0.tar"
    first.write_bytes(first.read_bytes()[:700])
    with pytest.raises(UserError, match="1 of 2 shards failed"):
        predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["1.parquet"]


def test_an_engine_that_there_is_not_is_said(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown engine 'rey'; did you mean 'ray'"):
        predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "rey")


def test_a_damaged_table_and_a_damaged_list_are_not_an_error_of_ours(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    (tmp_path / "out" / "unreadable.txt").write_bytes(b"\xff\n")
    assert predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here") == 0
    (tmp_path / "out" / "1.parquet").write_bytes((tmp_path / "out" / "1.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"1\.parquet cannot be read .*; delete it, and it is made anew") as caught:
        predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    assert "\n" not in str(caught.value)


def test_shards_without_a_readable_image_are_refused(tiny_run: Run, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        member = tarfile.TarInfo("0.png")
        member.size = 6
        tar.addfile(member, io.BytesIO(b"broken"))
    with pytest.raises(UserError, match=r"none of the images in .*0\.tar can be read"):
        predict_shards(asked(tiny_run), str(tmp_path / "0.tar"), tmp_path / "out", QUIET, "here")


def test_images_that_are_unlike_the_target_are_said_to_be_also_where_all_shards_are_done(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (0, 1):
        write_tar(tmp_path / f"{number}.tar", {f"{number}-{n}.png": png(255 - n) for n in range(40)})
    for _ in range(2):
        predict_shards(asked(tiny_run), str(tmp_path / "{0..1}.tar"), tmp_path / "out", Display(), "here")
        assert "unlike the target that was adapted to" in capsys.readouterr().out


def test_of_selected_it_is_not_said(tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "0.tar", {f"{n}.png": png(255 - n) for n in range(40)})
    predict_shards(asked(tiny_run, "selected"), str(tmp_path / "0.tar"), tmp_path / "out", Display(), "here")
    assert "unlike" not in capsys.readouterr().out


def test_a_few_images_of_each_file_are_compared(tiny_run: Run, shards: str, tmp_path: Path) -> None:
    predict_shards(asked(tiny_run), shards, tmp_path / "out", QUIET, "here")
    found = module.some_logits(sorted((tmp_path / "out").glob("*.parquet")), len(tiny_run.classes))
    assert [len(logits) for logits in found] == [10] * 5
