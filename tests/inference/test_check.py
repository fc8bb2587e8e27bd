"""Accuracy from a few labels: the table, the figures, and what is wrong with a table."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import NETS, SHORT
from uda.data.domain import Pair
from uda.data.files import ImageFiles, read
from uda.errors import UserError
from uda.evaluation.evaluator import predict
from uda.inference.check import (
    NONE,
    TABLE,
    UNSURE,
    Drawn,
    check_table,
    draw,
    judge,
    keep,
    length,
    read_table,
    told,
    verdict,
    write_table,
)
from uda.runs.run import Run
from uda.training.fit import fit


def truth(pair: Pair, names: tuple[str, ...]) -> dict[str, str]:
    """What a person would answer: the target's files are named by their number."""
    labels = pair.target.labels  # type: ignore[attr-defined]
    return {name: pair.target.classes[labels[int(Path(name).stem)]] for name in names}


def test_drawn_images_and_their_predictions_are_those_of_the_run(own_run: Run) -> None:
    drawn = draw(own_run, 20, 0)
    assert isinstance(drawn.target.images, ImageFiles)
    files = [drawn.target.images.path(number) for number in drawn.positions.tolist()]
    pixels = [torch.from_numpy(np.array(Image.open(file).convert("L"))) for file in files]
    classifier = own_run.load_classifier()
    images = torch.stack(pixels)[:, None].float() / 127.5 - 1
    assert classifier(images).argmax(1).tolist() == drawn.after.tolist()
    assert own_run.load_classifier("source")(images).argmax(1).tolist() == drawn.before.tolist()


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_images_that_could_not_be_read_are_not_drawn(trainable: str, folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "target", tmp_path / "target")
    (tmp_path / "target" / "0000.png").write_bytes(b"no image")
    images = {"data.source": str(folders / "source"), "data.target": str(tmp_path / "target")}
    network = {"classifier.backbone": f"{NETS}:SmallResNet", "data.channels": 1, "method.name": "im"}
    short = {key: value for key, value in SHORT.items() if not key.startswith("method.")}
    few: dict[str, object] = {
        "classifier.steps": 2,
        "training.steps": 2,
        "training.evaluate_every": 2,
        "classifier.trainable": trainable,
    }
    run = fit(
        "folders", out=tmp_path / "run", device="cpu", precision="fp32", report=False, overrides=short | images | network | few
    )
    drawn = draw(run, 1000, 0)
    assert sorted(drawn.names) == [f"{number:04d}.png" for number in range(1, 96)]
    assert isinstance(drawn.target.images, ImageFiles)
    pixels = torch.cat(list(read(drawn.target.images, [drawn.positions])))
    assert predict(run.load_classifier(), pixels, run.runtime).argmax(1).tolist() == drawn.after.tolist()


def test_all_images_looked_at_give_the_true_accuracies(own_run: Run, small_pair: Pair) -> None:
    drawn = draw(own_run, 1000, 0)
    answers = truth(small_pair, drawn.names)
    result = judge(own_run, drawn, answers, 0)
    labels = torch.tensor([drawn.classes.index(answers[name]) for name in drawn.names])
    assert result["labels"] == len(drawn.names) == 96
    assert result["accuracy"]["adapted"] == pytest.approx(float((drawn.after == labels).float().mean()))
    assert result["accuracy"]["source"] == pytest.approx(float((drawn.before == labels).float().mean()))
    for name, (low, high) in result["interval"].items():
        assert low <= result["accuracy"][name] <= high


def test_an_image_of_no_class_is_wrong(own_run: Run) -> None:
    drawn = draw(own_run, 30, 0)
    assert judge(own_run, drawn, dict.fromkeys(drawn.names, NONE), 0)["accuracy"] == {"adapted": 0, "source": 0}


def test_the_better_one_is_named(own_run: Run) -> None:
    drawn = draw(own_run, 96, 0)
    as_adapted = dict(zip(drawn.names, drawn.predicted, strict=True))
    as_source = {name: drawn.classes[number] for name, number in zip(drawn.names, drawn.before.tolist(), strict=True)}
    assert (drawn.before != drawn.after).float().mean() > 0.2, "else this says nothing"
    found = judge(own_run, drawn, as_adapted, 0)
    assert (found["better"], "the adapted classifier is better" in verdict(found)) == ("adapted", True)
    found = judge(own_run, drawn, as_source, 0)
    assert (found["better"], "--which source" in verdict(found)) == ("source", True)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((-0.015, 0.012), "source and adapted are equally good, within 1.5 points"),
        ((-0.015, 0.03), "do not tell whether source or adapted is better: they differ by -1.5 .. +3.0 points"),
    ],
)
def test_two_that_hardly_differ_are_equally_good(interval: tuple[float, float], said: str, own_run: Run) -> None:
    drawn = draw(own_run, 96, 0)
    found = judge(own_run, drawn, dict.fromkeys(drawn.names, NONE), 0)
    assert said in verdict(found | {"difference": {"interval": interval}})


def agreed(drawn: Drawn, rows: range) -> dict[str, str]:
    return {drawn.names[row]: drawn.predicted[row] for row in rows}


def test_an_image_without_an_answer_before_the_last_one_counts_as_one_that_cannot_be_told(own_run: Run) -> None:
    drawn = draw(own_run, 30, 0)
    answers = agreed(drawn, range(12)) | agreed(drawn, range(14, 25))
    said = answers | {drawn.names[row]: UNSURE for row in (12, 13)}
    assert told(drawn, answers) == told(drawn, said) == [said[name] for name in drawn.names[:25]]
    left, right = judge(own_run, drawn, answers, 0), judge(own_run, drawn, said, 0)
    assert (left["labels"], left["unsure"], left["blank"]) == (23, 2, 2)
    assert left["interval"] == right["interval"]
    assert (right["blank"], right["blank_because"]) == (0, "")


def test_of_an_image_that_is_listed_twice_the_first_is_the_one_that_was_asked_for(own_run: Run) -> None:
    drawn = draw(own_run, 12, 0)
    drawn = replace(drawn, names=(*drawn.names[:11], drawn.names[0]))
    assert told(drawn, agreed(drawn, range(1, 6)) | {drawn.names[0]: drawn.predicted[0]}) == drawn.predicted[:6]


def test_what_is_blank_is_said_with_what_to_fill_in(own_run: Run) -> None:
    drawn = draw(own_run, 30, 0)
    said = judge(own_run, drawn, agreed(drawn, range(12)) | agreed(drawn, range(13, 30)), 0)["blank_because"]
    assert "without an answer before the last one: 1, taken for 'cannot tell'" in said
    assert f"fill in image 13, {drawn.names[12]}," in said


def test_too_few_answers_are_refused(own_run: Run) -> None:
    drawn = draw(own_run, 30, 0)
    with pytest.raises(UserError, match="too few answers: 4, and an interval takes 5; answer some more images"):
        judge(own_run, drawn, agreed(drawn, range(4)), 0)


def test_intervals_reach_from_all_that_cannot_be_told_wrong_to_all_right(own_run: Run) -> None:
    drawn = draw(own_run, 40, 0)
    told = agreed(drawn, range(30))
    found = judge(own_run, drawn, told | dict.fromkeys(drawn.names[30:], UNSURE), 0)
    worst = judge(own_run, drawn, told | dict.fromkeys(drawn.names[30:], NONE), 0)
    best = judge(own_run, drawn, agreed(drawn, range(40)), 0)
    assert (found["labels"], found["unsure"]) == (30, 10)
    assert found["interval"]["adapted"] == (worst["interval"]["adapted"][0], best["interval"]["adapted"][1])
    assert found["accuracy"]["adapted"] == pytest.approx((worst["accuracy"]["adapted"] + best["accuracy"]["adapted"]) / 2)


def test_a_difference_reaches_as_far_as_what_cannot_be_told_may_be_right(own_run: Run) -> None:
    drawn = draw(own_run, 40, 0)
    as_source = {name: drawn.classes[number] for name, number in zip(drawn.names, drawn.before.tolist(), strict=True)}
    low, high = judge(own_run, drawn, dict.fromkeys(drawn.names, UNSURE), 0)["difference"]["interval"]
    assert low == judge(own_run, drawn, as_source, 0)["difference"]["interval"][0]
    assert high == judge(own_run, drawn, agreed(drawn, range(40)), 0)["difference"]["interval"][1]


def test_both_estimates_without_labels_stand_beside_what_was_checked(own_run: Run) -> None:
    drawn = draw(own_run, 30, 0)
    table = check_table(judge(own_run, drawn, agreed(drawn, range(30)), 0))
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    estimated = own_run.result["estimated"]
    spans = ["{:.2f} .. {:.2f}".format(*estimated[name]) for name in ("source_only_interval", "interval")]
    assert [row[0] for row in cells] == ["source", "adapted"]
    assert [row[3:] for row in cells] == [
        (f"{estimated['source_only']:.2f}", spans[0]),
        (f"{estimated['accuracy']:.2f}", spans[1]),
    ]


@pytest.mark.parametrize("labels", [-1, 0, 3, 4])
def test_fewer_labels_than_an_interval_takes_are_refused_before_anybody_looks(labels: int, own_run: Run) -> None:
    with pytest.raises(UserError, match=f"--labels {labels} is too few for an interval, which takes 5"):
        draw(own_run, labels, 0)


def test_a_question_mark_says_that_an_image_cannot_be_told(own_run: Run, tmp_path: Path) -> None:
    drawn = draw(own_run, 5, 0)
    write_table(drawn, dict.fromkeys(drawn.names, "?"), tmp_path / "t.csv")
    assert set(read_table(drawn, tmp_path / "t.csv").values()) == {UNSURE}
    drawn = replace(drawn, classes=("?", *drawn.classes[1:]))
    assert set(read_table(drawn, tmp_path / "t.csv").values()) == {"?"}, "here it is a class"


def test_a_table_comes_back_as_it_was_filled_in(own_run: Run, tmp_path: Path) -> None:
    drawn, path = draw(own_run, 12, 0), tmp_path / "table.csv"
    write_table(drawn, {}, path)
    rows = list(csv.DictReader(path.open()))
    assert [(row["path"], row["predicted"], row["label"]) for row in rows] == [
        (name, predicted, "") for name, predicted in zip(drawn.names, drawn.predicted, strict=True)
    ]
    assert read_table(drawn, path) == {}
    answers = {drawn.names[3]: "7", drawn.names[5]: NONE, drawn.names[6]: UNSURE}
    write_table(drawn, answers, path)
    assert read_table(drawn, path) == answers


def test_more_labels_go_on_from_fewer(own_run: Run, tmp_path: Path) -> None:
    few, many = draw(own_run, 10, 0), draw(own_run, 20, 0)
    answers = dict(zip(few.names, few.predicted, strict=True))
    write_table(few, answers, tmp_path / TABLE)
    assert read_table(many, tmp_path / TABLE) == answers
    assert length(tmp_path / TABLE) == 10
    with pytest.raises(UserError, match="give the --seed that the table was made with") as refused:
        read_table(draw(own_run, 10, 1), tmp_path / TABLE)
    assert "delete" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,predicted\na.png,1\n", "has the columns path, predicted; give it path, predicted, label"),
        ("", "has no columns; give it path, predicted, label"),
        ("path,predicted,label\nnowhere.png,1,1\n", "nowhere.png is not among the first 1 images of this draw"),
        ("path,predicted,label\n{name},1,seven\n", "unknown class 'seven'"),
    ],
)
def test_a_wrong_table_is_refused(text: str, said: str, own_run: Run, tmp_path: Path) -> None:
    drawn = draw(own_run, 10, 0)
    (tmp_path / "t.csv").write_text(text.format(name=drawn.names[0]))
    with pytest.raises(UserError, match=said):
        read_table(drawn, tmp_path / "t.csv")


def test_a_table_of_another_draw_is_refused(own_run: Run, tmp_path: Path) -> None:
    """Its images are among the others', but not as the design draws them."""
    few, all_ = draw(own_run, 5, 1), draw(own_run, 96, 0)
    write_table(few, dict.fromkeys(few.names, few.classes[0]), tmp_path / "t.csv")
    assert len(read_table(few, tmp_path / "t.csv")) == 5
    with pytest.raises(UserError, match=r"give the --seed .* and leave all of its rows in"):
        read_table(all_, tmp_path / "t.csv")


def test_an_image_with_two_answers_is_refused(own_run: Run, tmp_path: Path) -> None:
    drawn = draw(own_run, 5, 0)
    write_table(drawn, dict.fromkeys(drawn.names, drawn.classes[0]), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open("a") as file:
        file.write(f"{drawn.names[0]},{drawn.classes[0]},{drawn.classes[1]}\n")
    with pytest.raises(UserError, match=f"says two things of {drawn.names[0]}"):
        read_table(drawn, tmp_path / "t.csv")


def test_outputs_of_different_images_are_not_drawn_from(own_run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(own_run.path, copy)
    file = copy / "outputs" / "source_only.safetensors"
    save_file({name: value[:5] for name, value in load_file(file).items()}, file)
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({key: value for key, value in result.items() if key != "files"}))
    with pytest.raises(UserError, match="are of 5 and of 96 images"):
        draw(Run(copy), 10, 0)


def test_names_that_are_formulas_or_no_text_come_back(own_run: Run, tmp_path: Path) -> None:
    names = ("=x.png", "\udcff.png", "a\nb.png", "'=x.png", "-1")
    drawn = replace(draw(own_run, 5, 0), names=names, classes=("=1+1", *own_run.classes[1:]))
    answers = dict(zip(names, ("=1+1", NONE, "7", "3", "2"), strict=True))
    write_table(drawn, answers, tmp_path / "t.csv")
    assert read_table(drawn, tmp_path / "t.csv") == answers
    cells = [cell for row in csv.reader((tmp_path / "t.csv").open(errors="surrogateescape", newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]
    assert b"\xff.png" in (tmp_path / "t.csv").read_bytes()


def test_answers_that_have_no_end_are_refused(own_run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(UserError, match="it is a pipe"):
        read_table(draw(own_run, 10, 0), tmp_path / "t.csv")


def test_the_figures_are_kept_unless_those_of_more_labels_are(own_run: Run) -> None:
    drawn = draw(own_run, 20, 0)
    answers = agreed(drawn, range(20)), agreed(drawn, range(8)) | agreed(drawn, range(19, 20))
    result, fewer = (judge(own_run, drawn, given, 0) for given in answers)
    path = own_run.path / "check.json"
    assert keep(own_run, result)
    assert not keep(own_run, fewer)
    kept = json.loads(path.read_text())
    path.write_text("{")
    assert keep(own_run, fewer), "a damaged one is replaced"
    path.unlink()
    assert kept["accuracy"] == result["accuracy"]
    assert kept["interval"] == {name: list(span) for name, span in result["interval"].items()}
    assert kept["accuracy"]["adapted"] == 1


@pytest.mark.parametrize("header", ["Path;Predicted;Label", "PATH,predicted, label "])
def test_what_a_spreadsheet_makes_of_the_table_is_read(header: str, own_run: Run, tmp_path: Path) -> None:
    drawn = draw(own_run, 5, 0)
    between = header[4]
    lines = [between.join((name, told, told)) for name, told in zip(drawn.names, drawn.predicted, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]))
    assert read_table(drawn, tmp_path / "t.csv") == dict(zip(drawn.names, drawn.predicted, strict=True))


def test_other_columns_and_no_file_are_said(own_run: Run, tmp_path: Path) -> None:
    drawn = draw(own_run, 5, 0)
    (tmp_path / "t.csv").write_text("image,class\na.png,3\n")
    with pytest.raises(UserError, match="has the columns image, class; give it path, predicted, label"):
        read_table(drawn, tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"there is no .*u\.csv; give the table that --csv wrote"):
        read_table(drawn, tmp_path / "u.csv")


def test_an_image_that_the_target_lists_twice_may_be_drawn_twice(own_run: Run, tmp_path: Path) -> None:
    drawn = draw(own_run, 5, 0)
    drawn = replace(drawn, names=(drawn.names[0], *drawn.names[:4]))
    answers = dict.fromkeys(drawn.names, drawn.classes[0])
    write_table(drawn, answers, tmp_path / "t.csv")
    assert read_table(drawn, tmp_path / "t.csv") == answers
