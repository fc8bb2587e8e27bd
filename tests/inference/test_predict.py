"""Using a finished run: predictions as CSV, accuracy on labelled images."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uda import UserError
from uda.console import Display
from uda.data.augment import to_float
from uda.data.frame import Frame, decode
from uda.inference.predict import Spaced, as_cell, evaluate, evaluation_table, not_for_unknown, unlike, write_predictions
from uda.recipe.load import resolve
from uda.runs.run import Run

QUIET = Display(quiet=True)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_gets_the_class_that_the_classifier_gives_it(own_run: Run, folders: Path, tmp_path: Path) -> None:
    count = write_predictions(own_run, folders / "test", tmp_path / "p.csv", "last", QUIET)
    table = rows(tmp_path / "p.csv")
    assert count == len(table) == 96
    for row in table[::10]:
        image = to_float(decode(folders / "test" / row["path"], Frame(16, 1))[None])
        probability, number = (own_run.classifier(image) / own_run.temperature()).softmax(1).max(1)
        assert row["class"] == own_run.classes[int(number)]
        assert float(row["probability"]) == pytest.approx(float(probability), abs=1e-3)


def test_one_file_an_array_and_a_csv_are_images_too(own_run: Run, folders: Path, tmp_path: Path) -> None:
    one = next((folders / "target").iterdir())
    (tmp_path / "list.csv").write_text(f"{one}\n")
    np.savez(tmp_path / "a.npz", images=np.asarray(Image.open(one).convert("L"))[None])
    names = {}
    for place in (one, tmp_path / "list.csv", tmp_path / "a.npz"):
        write_predictions(own_run, place, tmp_path / "p.csv", "last", QUIET)
        (row,) = rows(tmp_path / "p.csv")
        names[row["path"]] = row["class"]
    assert list(names) == [one.name, str(one), "0"]
    assert len(set(names.values())) == 1


def test_unreadable_images_have_no_row_and_are_named(
    own_run: Run, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next((folders / "target").iterdir())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    (tmp_path / "in" / "b.png").write_bytes(good.read_bytes())
    assert write_predictions(own_run, tmp_path / "in", tmp_path / "p.csv", "selected", Display()) == 1
    assert [row["path"] for row in rows(tmp_path / "p.csv")] == ["b.png"]
    assert "no row for 1 image that cannot be read: a.png" in capsys.readouterr().out


def test_a_failed_prediction_leaves_the_old_file(own_run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("old")
    with pytest.raises(UserError, match="no images at"):
        write_predictions(own_run, tmp_path / "nothing", tmp_path / "p.csv", "last", QUIET)
    assert (tmp_path / "p.csv").read_text() == "old"


def test_what_a_run_lacks_is_said_before_anything_is_written(own_run: Run, folders: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(own_run.path, tmp_path / "run"), device="cpu", precision="fp32")
    (run.path / "outputs" / "last.safetensors").unlink()
    with pytest.raises(UserError, match=r"last\.safetensors"):
        write_predictions(run, folders / "test", tmp_path / "p.csv", "last", QUIET)
    assert not (tmp_path / "p.csv").exists()


def test_evaluation_agrees_with_the_run(own_run: Run, folders: Path) -> None:
    result = evaluate(own_run, str(folders / "test"), "last", None, QUIET)
    assert result["accuracy"] == own_run.target_accuracy
    assert result["confusion"] == own_run.result["confusion"]["last"]
    before = evaluate(own_run, str(folders / "test"), "source", None, QUIET)
    assert before["accuracy"] == own_run.accuracy["source_only"]


def test_evaluation_takes_a_part_of_the_classes_and_no_other(own_run: Run, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "3").symlink_to(folders / "test" / "3")
    result = evaluate(own_run, str(tmp_path / "some"), "last", None, QUIET)
    assert [name for name, share in zip(result["classes"], result["per_class"], strict=True) if share is not None] == ["3"]
    assert evaluation_table(result).row_count == 1
    (tmp_path / "some" / "three").symlink_to(folders / "test" / "3")
    with pytest.raises(UserError, match="unknown: three"):
        evaluate(own_run, str(tmp_path / "some"), "last", None, QUIET)


def test_images_of_further_classes_count_as_unknown_where_that_is_asked_for(own_run: Run, folders: Path, tmp_path: Path) -> None:
    for name, digit in (("3", "3"), ("further", "4")):
        (tmp_path / "some").mkdir(exist_ok=True)
        (tmp_path / "some" / name).symlink_to(folders / "test" / digit)
    with pytest.raises(UserError, match="with --unknown further classes count as unknown"):
        evaluate(own_run, str(tmp_path / "some"), "last", None, QUIET)
    result = evaluate(own_run, str(tmp_path / "some"), "last", None, QUIET, unknown=True)
    here, further = (len(list((folders / "test" / digit).iterdir())) for digit in "34")
    assert (result["images"], result["open_set"]["images"]) == (here, further)
    write_predictions(own_run, tmp_path / "some", tmp_path / "p.csv", "last", QUIET, unknown=True)
    left = [row["unnamed"] == "unknown" for row in rows(tmp_path / "p.csv") if row["path"].startswith("further")]
    assert result["open_set"]["unknown"] == pytest.approx(sum(left) / further)
    assert "open set" in str(evaluation_table(result).caption)


@pytest.mark.parametrize(
    ("which", "method", "noted"), [("last", "shot", True), ("last", "dance", False), ("source", "shot", False)]
)
def test_a_classifier_that_was_not_made_to_tell_unknown_classes_is_said_not_to_be(own_run: Run, which, method, noted) -> None:
    run = Run(own_run.path, device="cpu", precision="fp32")
    run.recipe = resolve(run.recipe, {"method.name": method}).recipe
    assert bool(not_for_unknown(run, which)) == noted


def test_the_most_doubtful_images_are_left_unnamed(own_run: Run, folders: Path, tmp_path: Path) -> None:
    write_predictions(own_run, folders / "test", tmp_path / "all.csv", "last", QUIET)
    count = write_predictions(own_run, folders / "test", tmp_path / "some.csv", "last", QUIET, reject=0.25)
    whole, table = rows(tmp_path / "all.csv"), rows(tmp_path / "some.csv")
    assert [row["path"] for row in table] == [row["path"] for row in whole]
    left = [row for row in table if row["unnamed"] == "doubtful"]
    assert (count, len(left)) == (96, 24)
    assert all((row["class"] == "") == (row["unnamed"] == "doubtful") for row in table)
    kept = [float(row["probability"]) for row in table if not row["unnamed"]]
    assert max(float(row["probability"]) for row in left) <= min(kept)
    assert "unnamed" not in whole[0]
    with pytest.raises(UserError, match="from 0 to 1"):
        write_predictions(own_run, folders / "test", tmp_path / "p.csv", "last", QUIET, reject=25)


def test_photographs_by_name_are_evaluated_as_their_folder_is(own_run: Run, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "office").mkdir()
    (tmp_path / "office" / "scan").symlink_to(folders / "test")
    by_name = evaluate(own_run, "office/scan", "last", tmp_path, QUIET)
    by_path = evaluate(own_run, str(folders / "test"), "last", None, QUIET)
    assert by_name["data"] == "office/scan"
    assert by_name["confusion"] == by_path["confusion"]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@x", "'@x"),
        ("-a", "'-a"),
        ("-1", "-1"),
        ("a=1", "a=1"),
        ("\n=1", "'\n=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("\uff0ba", "'\uff0ba"),
        ("\uff0da", "'\uff0da"),
        ("\uff20a", "'\uff20a"),
    ],
)
def test_no_cell_starts_a_formula(text: str, cell: str) -> None:
    assert as_cell(text) == cell


def test_a_name_that_is_no_text_keeps_its_bytes(own_run: Run, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    name = b"\xff[red].png"
    (tmp_path / "in" / os.fsdecode(name)).write_bytes(next((folders / "target").iterdir()).read_bytes())
    write_predictions(own_run, tmp_path / "in", tmp_path / "p.csv", "last", Display())
    assert (tmp_path / "p.csv").read_bytes().splitlines()[1].startswith(name + b",")


@pytest.mark.parametrize(("shift", "count", "said"), [(0.0, 200, False), (3.0, 200, True), (0.0, 20, False), (3.0, 19, False)])
def test_images_that_are_read_otherwise_than_the_target_are_said_to_be_unlike_it(shift: float, count: int, said: bool) -> None:
    new = torch.randn(count, 5)
    new[:, 0] += shift
    assert bool(unlike(torch.randn(300, 5), list(new))) == said


@pytest.mark.parametrize(("images", "said"), [("test", False), ("black", True)])
def test_so_are_labelled_images_that_are_evaluated(
    images: str, said: bool, own_run: Run, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / own_run.classes[0]).mkdir()
    for number in range(30):
        Image.new("L", (16, 16)).save(tmp_path / own_run.classes[0] / f"{number}.png")
    evaluate(own_run, str(folders / images if images == "test" else tmp_path), "last", None, Display())
    assert ("unlike the target" in capsys.readouterr().out) == said


def test_the_source_classifier_predicts_where_a_run_recommends_it_and_says_why(
    own_run: Run, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recommending = Run(own_run.path, device="cpu")
    recommending.result.update(recommended="source", recommended_because="it went wrong")
    write_predictions(recommending, folders / "target", tmp_path / "a.csv", "recommended", Display())
    assert "it went wrong (--which last" in capsys.readouterr().out
    write_predictions(own_run, folders / "target", tmp_path / "b.csv", "source", QUIET)
    write_predictions(own_run, folders / "target", tmp_path / "c.csv", "last", QUIET)
    recommended, source, last = (rows(tmp_path / f"{name}.csv") for name in "abc")
    assert recommended == source != last
    sure = np.mean([float(row["probability"]) for row in source])
    assert sure <= own_run.result["estimated"]["source_only"] + 0.05 or sure == pytest.approx(1 / len(own_run.classes), abs=0.02)


@pytest.mark.parametrize("block", [1, 7, 256])
def test_what_is_compared_is_spaced_evenly_whatever_the_blocks(block: int) -> None:
    spaced = Spaced(100)
    for part in torch.arange(1000.0)[:, None].split(block):
        spaced.add(part)
    assert [int(value) for value in spaced.kept] == list(range(0, 1000, 16))
