"""What a dry run finds wrong before anything is trained."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import NETS
from uda import UserError
from uda.console import Display
from uda.data.settings import DataSettings
from uda.recipe.load import load_recipe
from uda.training.check import check, few_images, same_images
from uda.training.fit import fit


def run(folders: Path, **overrides: object) -> list[str]:
    images = {"data.source": str(folders / "source"), "data.target": str(folders / "target"), "data.channels": 1}
    recipe = load_recipe("folders", images | {key.replace("__", "."): value for key, value in overrides.items()})
    return list(check(recipe, None, "cpu", "fp32"))


def test_everything_is_named_that_was_checked(folders: Path) -> None:
    lines = run(folders, data__target_test=str(folders / "test"), classifier__backbone=f"{NETS}:SmallResNet")
    expected = ("cpu", "source: 96", "target: 96", "target_test: 96", "10 wherever", "SmallResNet")
    for said, line in zip(expected, lines, strict=True):
        assert said in line


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"classifier__weights": "nowhere.pt"}, "no weights"),
        ({"classifier__backbone": "nowhere.py:Net"}, "no file"),
        ({"classifier__split": "nowhere", "classifier__backbone": f"{NETS}:SmallResNet"}, "nowhere"),
        ({"method__name": "adabn"}, "no batch norm"),
        ({"method__name": "target_only"}, "target labels"),
        ({"method__name": "unit_translation", "classifier__weights": "net.pt"}, "has no classifier"),
        ({"data__classes": ["a", "b"]}, "other classes than data.classes names"),
        ({"classifier__backbone": str(NETS)}, f"is a file; .*--model {NETS}:NAME"),
        ({"data__target_test": "mnits"}, "did you mean 'mnist'"),
        ({"data__target_test": "fashion-mnist"}, "fashion-mnist has the classes T-shirt/top, .*, not 0, 1, 2"),
    ],
)
def test_what_is_wrong_is_said(folders: Path, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(folders, **wrong)


def test_a_network_of_more_classes_than_there_are_is_told_which_were_found(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "source", tmp_path / "source")
    first = sorted((tmp_path / "source").iterdir())[0]
    for image in first.iterdir():
        image.unlink()
    told = f"the source has 9 classes: .*a class may be missing.*the classes found are .*without images in {first.name}"
    with pytest.raises(UserError, match=told):
        run(folders, data__source=str(tmp_path / "source"), classifier__backbone=f"{NETS}:SmallResNet")


def test_weights_of_another_network_are_found_out(folders: Path) -> None:
    with pytest.raises(UserError, match=r"another network: .*; give weights that were saved from the network"):
        run(folders, classifier__weights=str(folders / "net.pt"), classifier__backbone="lenet")


def test_photographs_by_name_have_labels_that_the_upper_bound_may_read(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "office").mkdir()
    for domain, folder in (("photo", "source"), ("scan", "test")):
        (tmp_path / "office" / domain).symlink_to(folders / folder)
    monkeypatch.setenv("UDA_DATA", f"{tmp_path / 'office'}{os.pathsep}{tmp_path}")
    named = {"data__source": "office/photo", "data__target": "office/scan", "method__name": "target_only"}
    _, source, target, *_ = run(folders, **named)
    assert source == "source: 96 images, office/photo, 10 classes"
    assert target == "target: 96 images, office/scan, 10 classes"


@pytest.mark.parametrize(("count", "said"), [(1, "has 1 image alone"), (19, "has 19 images alone"), (20, "")])
def test_a_target_of_few_images_is_warned_of(count: int, said: str) -> None:
    assert said in few_images(count)
    assert bool(said) == bool(few_images(count))


def test_one_set_as_both_domains_is_remarked(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folders / "source")
    for source, target, same in (
        ("digits", "digits", True),
        ("digits", "mnist", False),
        (str(folders / "source"), f"{folders}/target/../source", True),
        (str(folders / "source"), str(tmp_path / "link"), True),
        (str(folders / "source"), str(folders / "target"), False),
        ("shards/{0..9}.tar", "shards/{0..9}.tar", True),
    ):
        assert bool(same_images(DataSettings(source=source, target=target))) == same, (source, target)
    assert not same_images(DataSettings(source="digits", target="digits", target_inverted_copies=True))


def test_a_dry_run_and_a_run_remark_one_set_as_both_domains(folders: Path, tiny: Path, tmp_path: Path) -> None:
    both = {"data.source": str(folders / "source"), "data.target": str(folders / "source")}
    assert any("the same images" in line for line in run(folders, **both))
    said: list[str] = []
    display = Display(quiet=True)
    display.say = said.append  # type: ignore[method-assign, assignment]
    few = {
        "training.steps": 1,
        "classifier.steps": 1,
        "data.source_test": str(folders / "test"),
        "data.target_test": str(folders / "test"),
    }
    fit(tiny, overrides=both | few, out=tmp_path / "run", display=display, report=False)
    assert any("note: source and target are the same images" in line for line in said)
