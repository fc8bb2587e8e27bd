"""Which images a recipe's names stand for, and which of them are trained and tested on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.test_folders import QUIET, image
from uda import UserError
from uda.data.domain import LabelledDomain, Pair
from uda.data.load import describe, load_pair
from uda.data.settings import DataSettings


def classes(root: Path, *names: str, count: int = 20) -> Path:
    """ROOT/CLASS/IMAGE: `count` grey images of 8 x 8 pixels in each class."""
    for row, name in enumerate(names):
        for number in range(count):
            image(root / name / f"{number:02d}.png", 50 * row + number)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """office/photo and office/scan, 20 images of cat and of dog each; office/few has cats alone, office/more a horse, too."""
    classes(tmp_path / "office/photo", "cat", "dog")
    classes(tmp_path / "office/scan", "cat", "dog")
    classes(tmp_path / "office/few", "cat")
    classes(tmp_path / "office/more", "cat", "dog", "horse")
    return tmp_path


def pair_of(root: Path, **settings: object) -> Pair:
    return load_pair(DataSettings(**{"source": "office/photo", "target": "office/scan"} | settings), (root,), QUIET)


def test_a_domain_as_target_is_adapted_to_and_tested_whole_and_says_so(root: Path) -> None:
    pair = pair_of(root)
    assert isinstance(pair.target, LabelledDomain)
    assert isinstance(pair.target_test, LabelledDomain)
    assert len(pair.target) == len(pair.target_test) == 40
    assert torch.equal(pair.target.images, pair.target_test.images)
    assert pair.target_test.labels.tolist() == [0] * 20 + [1] * 20
    assert "transductive" in pair.target.note
    assert not hasattr(pair.target.without_labels(), "labels")


def test_a_domain_that_is_tested_elsewhere_is_not_called_transductive(root: Path) -> None:
    pair = pair_of(root, target_test="office/photo")
    assert pair.target_test is not None
    assert pair.target_test.name == "office/photo"
    assert "transductive" not in pair.target.note + pair.target_test.note


def test_domains_are_called_by_set_and_domain_and_a_folder_by_its_own_name(root: Path) -> None:
    pair = pair_of(root, source=str(root / "office/photo"))
    assert (pair.source.name, pair.target.name) == ("photo", "office/scan")


def test_a_tenth_of_the_source_is_held_out_unless_all_of_it_is_asked_for(root: Path) -> None:
    held, whole = pair_of(root), pair_of(root, held_out=False)
    assert (len(held.source), len(held.source_test)) == (36, 4)
    assert (len(whole.source), len(whole.source_test)) == (40, 40)
    assert "tested on what it was trained on" in whole.source.note
    assert "tested on what" not in held.source.note


def test_source_test_images_of_ones_own_leave_the_source_whole_and_its_note_alone(root: Path) -> None:
    pair = pair_of(root, held_out=False, source_test="office/scan")
    assert (len(pair.source), pair.source_test.name) == (40, "office/scan")
    assert "tested on what" not in pair.source.note


@pytest.mark.parametrize("settings", [{"target": "office/few"}, {"target_test": "office/few"}, {"target_test": "path"}])
def test_a_target_test_set_may_lack_classes_and_says_which(root: Path, settings: dict[str, str]) -> None:
    pair = pair_of(root, **{key: str(root / "office/few") if name == "path" else name for key, name in settings.items()})
    assert pair.target_test is not None
    assert pair.target_test.labels.tolist() == [0] * 20
    assert "without images of 1 of 2 classes: dog" in pair.target_test.note


def test_a_complete_target_test_set_says_nothing_of_classes(root: Path) -> None:
    test = pair_of(root).target_test
    assert test is not None
    assert "without images" not in test.note


@pytest.mark.parametrize("settings", [{"target": "office/more"}, {"target_test": "office/more"}, {"source_test": "office/more"}])
def test_classes_that_the_source_has_not_are_an_error(root: Path, settings: dict[str, str]) -> None:
    with pytest.raises(UserError, match="unknown: horse"):
        pair_of(root, **settings)


@pytest.mark.parametrize("settings", [{"target": "office/more"}, {"target_test": "office/more"}])
def test_classes_that_the_source_has_not_may_be_taken_for_unknown(root: Path, settings: dict[str, str]) -> None:
    """They are adapted to without a label, and apart from the other test images."""
    pair = pair_of(root, unknown="class", **settings)
    assert pair.target_test is not None
    assert pair.target_unknown is not None
    whole = len(list((root / "office" / "more").rglob("*.png")))
    further = len(list((root / "office" / "more" / "horse").rglob("*.png")))
    assert (len(pair.target_test), len(pair.target_unknown)) == (whole - further, further)
    assert set(pair.target_test.labels.tolist()) <= {0, 1}
    if "target" in settings:
        assert len(pair.target) == whole
        assert not isinstance(pair.target, LabelledDomain)


def test_without_further_classes_nothing_is_unknown(root: Path) -> None:
    pair = pair_of(root, unknown="class")
    assert pair.target_unknown is None
    assert isinstance(pair.target, LabelledDomain)


def test_a_source_test_set_may_lack_none(root: Path) -> None:
    with pytest.raises(UserError, match="missing: dog"):
        pair_of(root, source_test="office/few")


def test_where_nobody_classifies_domains_have_one_class(root: Path) -> None:
    wanted = DataSettings(source="office/photo", target="office/more")
    pair = load_pair(wanted, (root,), QUIET, classifies=False)
    assert isinstance(pair.target, LabelledDomain)
    assert pair.target.classes == ("image",)
    assert set(pair.target.labels.tolist()) == {0}


def test_lists_of_a_set_give_training_and_test_images_of_both_domains(root: Path) -> None:
    for domain, tested in (("photo", 4), ("scan", 8)):
        lines = [f"{place.relative_to(root / 'office')} 0\n" for place in sorted((root / "office" / domain).rglob("*.png"))]
        (root / f"office/{domain}_train.txt").write_text("".join(lines[tested:-tested]))
        (root / f"office/{domain}_test.txt").write_text("".join(lines[:tested] + lines[-tested:]))
    pair = pair_of(root)
    assert pair.target_test is not None
    assert [len(part) for part in (pair.source, pair.source_test, pair.target, pair.target_test)] == [32, 8, 24, 16]
    assert "training list" in pair.target.note
    assert "test list" in pair.target_test.note
    assert "transductive" not in pair.target.note
    assert pair.target_test.labels.tolist() == [0] * 8 + [1] * 8


def test_the_first_root_that_holds_a_data_set_wins_in_the_list_too(tmp_path: Path) -> None:
    for number, name in ((1, "mnist"), (2, "mnist"), (2, "usps")):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        arrays = {"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([0, 1]), "note": f"of root {number}"}
        np.savez(tmp_path / str(number) / f"{name}_test.npz", **arrays)
    notes = {(name, split): (state, note) for name, split, state, note in describe((tmp_path / "1", tmp_path / "2"))}
    assert notes["mnist", "test"] == (f"here: {tmp_path / '1' / 'mnist_test.npz'}", "of root 1")
    assert notes["usps", "test"][1] == "of root 2"
    assert notes["svhn", "test"][0] == f"not here; would be downloaded to {tmp_path / '1'}"


def test_a_damaged_set_is_told_of_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "usps_train.npz").write_bytes(b"no archive")
    rows = {(name, split): (state, note) for name, split, state, note in describe((tmp_path,))}
    state, note = rows["usps", "train"]
    assert state == f"damaged: {tmp_path / 'usps_train.npz'}"
    assert "it is no .npz file" in note
    assert rows["usps", "test"][0].startswith("not here")
