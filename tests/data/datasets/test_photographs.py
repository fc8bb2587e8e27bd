"""Photographs by name: the layouts and spellings that are found, and what is said where they are not."""

from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.data.test_folders import image
from uda import UserError
from uda.data.datasets.photographs import VISDA_CLASSES, Place, describe, locate, require
from uda.data.folders import Found

PHOTOS = CHECKOUT.parent / "shared" / "data" / "photos"


def write(folder: Path, *classes: str) -> Path:
    """CLASS/1.png and CLASS/2.png of each class."""
    for name in classes:
        for number in (1, 2):
            image(folder / name / f"{number}.png")
    return folder


def found(name: str, *roots: Path) -> Found:
    return require(name, roots).find("train")


def labels(part: Found) -> dict[str, str]:
    assert part.labels is not None
    return {part.name(position): str(label) for position, label in enumerate(part.labels)}


@pytest.mark.parametrize(
    ("name", "folder", "spelled"),
    [
        ("office31/amazon", "office31/amazon", "office31/amazon"),
        ("office31/amazon", "office31/amazon/images", "office31/amazon"),
        ("office31/amazon", "domain_adaptation_images/amazon/images", "office31/amazon"),
        ("office31/amazon", "Office-31/Amazon", "office31/amazon"),
        ("pacs/art_painting", "PACS/kfold/art_painting", "pacs/art_painting"),
        ("office-home/Real World", "OfficeHomeDataset_10072016/Real World", "office-home/Real World"),
        ("office_home/real_world", "office-home/OfficeHomeDataset_10072016/RealWorld", "office-home/Real World"),
        ("visda-2017/validation", "visda-2017/validation", "visda-2017/validation"),
        ("domainnet/clipart", "DomainNet/clipart", "domainnet/clipart"),
        ("theirs/a", "theirs/a", "theirs/a"),
    ],
)
def test_usual_layouts_and_spellings_are_found(tmp_path: Path, name: str, folder: str, spelled: str) -> None:
    write(tmp_path / folder, "cat", "dog")
    assert require(name, (tmp_path,)).name == spelled
    assert labels(found(name, tmp_path)) == {"cat/1.png": "cat", "cat/2.png": "cat", "dog/1.png": "dog", "dog/2.png": "dog"}


def test_the_very_name_comes_before_another_spelling(tmp_path: Path) -> None:
    for folder in ("Office31", "office31"):
        write(tmp_path / folder / "dslr", "cat")
    assert require("office31/dslr", (tmp_path,)).folder.parent.name == "office31"


def test_a_folder_of_images_beside_others_is_no_class(tmp_path: Path) -> None:
    write(tmp_path / "office31/amazon/images", "cat", "dog")
    write(tmp_path / "office31/amazon/interest_points", "cat")
    assert set(labels(found("office31/amazon", tmp_path)).values()) == {"cat", "dog"}


def test_the_first_root_that_holds_a_domain_wins(tmp_path: Path) -> None:
    (tmp_path / "1/office31/amazon").mkdir(parents=True)
    for root in ("2", "3"):
        write(tmp_path / root / "office31/amazon", "cat")
    roots = [tmp_path / number for number in "123"]
    assert require("office31/amazon", roots).folder == tmp_path / "2/office31/amazon"


def test_a_note_names_paper_and_domain_and_says_where_classes_are_missing(tmp_path: Path) -> None:
    write(tmp_path / "pacs/photo", *"abcdefg")
    write(tmp_path / "pacs/sketch", *"abc")
    assert found("pacs/photo", tmp_path).note == "PACS (Li et al., ICCV 2017), photo, 7 classes"
    assert found("pacs/sketch", tmp_path).note == "PACS (Li et al., ICCV 2017), sketch, 3 of its 7 classes"


def test_lists_give_the_images_and_classes_of_each_split(tmp_path: Path) -> None:
    write(tmp_path / "domainnet/real", "cat", "dog")
    (tmp_path / "domainnet/real_train.txt").write_text("real/cat/1.png 0\nreal/dog/1.png 1\n")
    (tmp_path / "domainnet/real_test.txt").write_text("real/dog/2.png 1\n\n")
    place = require("domainnet/real", (tmp_path,))
    train, test = place.find("train"), place.find("test")
    assert labels(train) == {"real/cat/1.png": "cat", "real/dog/1.png": "dog"}
    assert labels(test) == {"real/dog/2.png": "dog"}
    assert all((part.root / part.name(0)).exists() for part in (train, test))


def test_visda_numbers_the_classes_of_its_test_images(tmp_path: Path) -> None:
    write(tmp_path / "visda-2017/test", "trunk00")
    (tmp_path / "visda-2017/test/image_list.txt").write_text("trunk00/1.png 11\ntrunk00/2.png 0\n")
    part = found("visda-2017/test", tmp_path)
    assert labels(part) == {"trunk00/1.png": "truck", "trunk00/2.png": "aeroplane"}
    assert (part.root / part.name(0)).exists()
    assert len(VISDA_CLASSES) == 12


@pytest.mark.parametrize("line", ["1.png 0", "trunk00/1.png", "trunk00/1.png 12", "trunk00/1.png cat"])
def test_a_damaged_list_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    write(tmp_path / "visda-2017/test", "trunk00")
    (tmp_path / "visda-2017/test/image_list.txt").write_text(f"trunk00/2.png 1\n{line}\n")
    with pytest.raises(UserError, match=r"image_list\.txt, line 2") as caught:
        found("visda-2017/test", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("office31/amazon", ("{root}, {root}/b", "Office-31", "https://")),
        ("pacs/photos", ("domain of pacs", "did you mean 'photo'")),
        ("theirs/a", ("neither a folder here nor theirs/a/CLASS/IMAGE under {root}, {root}/b", "office31, pacs")),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, name: str, said: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        require(name, (tmp_path, tmp_path / "b"))
    text = str(caught.value)
    assert "\n" not in text
    assert all(part.format(root=tmp_path) in text for part in said), text


def test_all_domains_are_listed_and_where_the_others_are_to_be_had(tmp_path: Path) -> None:
    write(tmp_path / "office31/amazon", "cat", "dog")
    write(tmp_path / "theirs/a", "cat", "dog")
    write(tmp_path / "theirs/no_classes")
    (tmp_path / "theirs/no_classes/deep/er").mkdir(parents=True)
    write(tmp_path / "domainnet/real", "cat")
    for split in ("train", "test"):
        (tmp_path / f"domainnet/real_{split}.txt").write_text("real/cat/1.png 0\n")
    rows = {(name, split): (state, what) for name, split, state, what in describe((tmp_path,))}
    amazon = "Office-31 (Saenko et al., ECCV 2010), amazon, 2 of its 31 classes, 4 images"
    assert rows["office31/amazon", "all"] == (f"here: {tmp_path}/office31/amazon", amazon)
    assert rows["theirs/a", "all"][1] == "theirs/a, 2 classes, 4 images"
    assert "https://" in rows["office31/", ""][0]
    assert rows["office31/", ""][1].endswith(": dslr, webcam")
    assert rows["domainnet/real", "test"][1].endswith("1 images")
    there = {name for name, _ in rows if not name.endswith("/")}
    assert there == {"office31/amazon", "theirs/a", "domainnet/real"}


@pytest.mark.parametrize(("domain", "count"), [("amazon", 2817), ("webcam", 795), ("dslr", 498)])
def test_the_real_office31_is_complete(domain: str, count: int) -> None:
    place: Place | None = locate(f"office31/{domain}", (PHOTOS,))
    if place is None:
        pytest.skip(f"Office-31 is not at {PHOTOS}")
    part = place.find("train")
    assert len(part) == count
    assert len(set(labels(part).values())) == 31
