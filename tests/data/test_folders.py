"""A user's own images: folders, CSV, arrays; their classes, their frame, and the ways they can be wrong."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uda import UserError
from uda.console import Display
from uda.data.domain import LabelledDomain
from uda.data.folders import (
    Found,
    check_classes,
    class_names,
    find,
    hold_out,
    load_labelled,
    load_unlabelled,
    own_size,
    split_classes,
)
from uda.data.frame import Frame
from uda.data.load import load_pair, resolve_frame
from uda.data.settings import DataSettings

QUIET = Display(quiet=True)
FRAME = Frame(8, 1), 1 << 20, QUIET


def image(path: Path, value: int = 0, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """cat/ holds 20 and 21 (the second one deeper), dog/ 40; a hidden file, a text and a stray image mean nothing."""
    image(tmp_path / "photos/cat/a.png", 20)
    image(tmp_path / "photos/cat/2024/b.PNG", 21)
    image(tmp_path / "photos/dog/c.png", 40)
    image(tmp_path / "photos/.thumbs/x.png")
    image(tmp_path / "photos/stray.png", 90)
    (tmp_path / "photos/dog/notes.txt").write_text("no image")
    return tmp_path / "photos"


def values(domain: LabelledDomain) -> dict[int, str]:
    assert isinstance(domain.images, torch.Tensor)
    return {int(pixels[0, 0, 0]): domain.classes[label] for pixels, label in zip(domain.images, domain.labels, strict=True)}


def test_class_folders_give_labels_at_any_depth(folder: Path) -> None:
    found = find(folder, labelled=True)
    assert class_names(found) == ("cat", "dog")
    assert values(load_labelled(found, ("cat", "dog"), *FRAME)) == {20: "cat", 21: "cat", 40: "dog"}


def test_without_labels_every_image_counts_and_has_none(folder: Path) -> None:
    domain = load_unlabelled(find(folder, labelled=False), ("cat", "dog"), *FRAME)
    assert len(domain) == 4
    assert not hasattr(domain, "labels")


@pytest.mark.parametrize("header", ["", "path,label\n", "filepath,label\n"])
def test_a_csv_names_files_beside_it(folder: Path, header: str) -> None:
    (folder / "list.csv").write_text(header + "cat/a.png,10\ndog/c.png,9\n")
    found = find(folder / "list.csv", labelled=True)
    assert class_names(found) == ("9", "10"), "whole numbers sort by value"
    assert values(load_labelled(found, ("9", "10"), *FRAME)) == {20: "10", 40: "9"}
    assert len(find(folder / "list.csv", labelled=False)) == 2
    assert found.note == "the list list.csv" + (f" below its header {header.strip()}" if header else "")


def test_an_image_with_two_labels_is_refused_and_one_that_is_named_twice_counts_once(folder: Path) -> None:
    (folder / "list.csv").write_text("cat/a.png,cat\ncat/a.png,cat\ndog/c.png,dog\n")
    found = find(folder / "list.csv", labelled=True)
    assert found.note == "the list list.csv, 1 rows left out that say the same again"
    assert found.labels is not None
    assert (len(found), found.labels.tolist()) == (2, ["cat", "dog"])
    assert len(find(folder / "list.csv", labelled=False)) == 3
    (folder / "list.csv").write_text("cat/a.png,cat\ndog/c.png,dog\n./dog/../cat/a.png,dog\n")
    with pytest.raises(UserError, match=r"says two things of cat/a\.png, line 3: cat and dog"):
        find(folder / "list.csv", labelled=True)


def test_arrays_of_any_layout_and_label_type(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    loaded = []
    for name, images in (("first", pixels), ("last", pixels.transpose(0, 2, 3, 1))):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.array(["dog", "cat"]))
        loaded.append(load_labelled(find(tmp_path / f"{name}.npz", labelled=True), ("cat", "dog"), Frame(8, 3), 0, QUIET))
    assert torch.equal(loaded[0].images, torch.from_numpy(pixels))
    assert torch.equal(loaded[0].images, loaded[1].images)
    assert loaded[0].labels.tolist() == [1, 0]


def test_other_classes_in_the_target_test_are_listed_before_anything_is_decoded(folder: Path, tmp_path: Path) -> None:
    image(tmp_path / "test/dog/a.png")
    image(tmp_path / "test/horse/b.png")
    (folder / "cat/a.png").write_bytes(b"broken: decoding would complain first")
    wanted = DataSettings(source=str(folder), target=str(folder), target_test=str(tmp_path / "test"))
    with pytest.raises(UserError, match=r"unknown: horse \(the source has cat, dog\)"):
        load_pair(wanted, (tmp_path,), QUIET)


def test_the_order_of_classes_can_be_given(folder: Path, tmp_path: Path) -> None:
    pair = load_pair(DataSettings(source=str(folder), target=str(folder), classes=("dog", "cat")), (tmp_path,), QUIET)
    assert pair.source.classes == ("dog", "cat")
    assert values(pair.source) | values(pair.source_test) == {20: "cat", 21: "cat", 40: "dog"}


def test_a_tenth_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 30 + [1] * 11 + [2])
    domain = LabelledDomain("d", torch.arange(42, dtype=torch.uint8).view(-1, 1, 1, 1), tuple("abc"), "n", labels)
    rest, held = hold_out(domain)
    assert held.labels.tolist() == [0, 0, 0, 1]
    assert sorted([*rest.images.flatten().tolist(), *held.images.flatten().tolist()]) == list(range(42))


def test_unreadable_images_keep_labels_in_step(folder: Path) -> None:
    (folder / "cat/2024/b.PNG").write_bytes(b"broken")
    domain = load_labelled(find(folder, labelled=True), ("cat", "dog"), *FRAME)
    assert values(domain) == {20: "cat", 40: "dog"}
    assert len(domain.unreadable) == 1
    assert "1 unreadable" in domain.note


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 3, 28),
        ([(300, 200)] * 3, 192),
        ([(500, 400), (640, 480)], 224),
        ([(20, 18), (24, 20)], 32),
        ([(48, 48), (16, 16)], 32),
    ],
)
def test_the_side_follows_the_source(tmp_path: Path, sizes: list[tuple[int, int]], expected: int) -> None:
    for number, size in enumerate(sizes):
        image(tmp_path / f"{number}.png", size=size)
    assert own_size(find(tmp_path, labelled=False)) == expected


def test_colour_in_either_domain_makes_three_channels(tmp_path: Path) -> None:
    image(tmp_path / "grey/a/x.png")
    image(tmp_path / "colour/x.png", mode="RGB")
    grey, colour = find(tmp_path / "grey", True), find(tmp_path / "colour", False)
    assert resolve_frame(DataSettings(source="own", target="usps"), grey, None) == Frame(8, 1)
    assert resolve_frame(DataSettings(source="own", target="own"), grey, colour) == Frame(8, 3)
    assert resolve_frame(DataSettings(source="mnist", target="svhn"), None, None) == Frame(32, 3)
    assert resolve_frame(DataSettings(source="own", target="own", size=16, channels=1), grey, colour) == Frame(16, 1)


def test_a_network_for_grey_images_makes_one_channel_of_colour(tmp_path: Path) -> None:
    image(tmp_path / "grey/a/x.png")
    image(tmp_path / "colour/x.png", mode="RGB")
    grey, colour = find(tmp_path / "grey", True), find(tmp_path / "colour", False)
    assert resolve_frame(DataSettings(source="own", target="own"), grey, colour, channels=1) == Frame(8, 1)


@pytest.mark.parametrize(
    ("make", "labelled", "message"),
    [
        (lambda root: None, False, "holds no images"),
        (lambda root: image(root / "a.png"), True, "has no class folders"),
        (lambda root: [(root / f"{name}.HEIC").touch() for name in "ab"], False, "holds 2 .heic files, which are not read"),
        (lambda root: (root / "x.csv").write_text("a.png\n"), True, "line 1: the image has no label"),
        (lambda root: np.savez(root / "x.npz", images=np.zeros((2, 8, 8))), False, "must be uint8"),
        (lambda root: np.savez(root / "x.npz", images=np.zeros((2, 8, 8), np.uint8)), True, "no array"),
        (lambda root: np.savez(root / "x.npz", images=np.zeros((2, 8, 8), np.uint8), labels=[1]), True, "one label per image"),
        (lambda root: (root / "x.npz").write_bytes(b"no"), False, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, make: object, labelled: bool, message: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    place = next((path for path in tmp_path.iterdir() if path.suffix in (".csv", ".npz")), tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        find(place, labelled)
    assert "\n" not in str(caught.value)


def test_files_of_kinds_that_are_not_read_are_counted(folder: Path) -> None:
    for name in ("cat/x.heic", "dog/y.HEIC", "dog/z.avif", "dog/readme.txt"):
        (folder / name).touch()
    found = find(folder, labelled=True)
    assert found.note.endswith("without its 1 .avif, 2 .heic files, which are not read")


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    plain = len(find(folder, labelled=False))
    (folder / "cat" / "all").symlink_to(folder)
    (folder / "dog" / "cats").symlink_to(folder / "cat")
    names = [os.fsdecode(bytes(name)) for name in find(folder, labelled=False).names]
    assert sorted(names)[-3:] == ["dog/cats/2024/b.PNG", "dog/cats/a.png", "stray.png"]
    assert len(names) == plain + 2


def test_a_misspelled_image_is_no_header(folder: Path) -> None:
    (folder / "list.csv").write_text("cat/a.pgn\ncat/a.png\n")
    with pytest.raises(UserError, match=r"line 1: 'cat/a\.pgn' is no image file"):
        find(folder / "list.csv", labelled=False)


@pytest.mark.parametrize("label", ["--5", "9" * 5000])
def test_what_only_looks_like_a_number_is_a_name(label: str, folder: Path) -> None:
    (folder / "list.csv").write_text(f"cat/a.png,{label}\ndog/c.png,3\n")
    assert set(class_names(find(folder / "list.csv", labelled=True))) == {label, "3"}


def test_the_order_of_classes_of_pixels_hangs_on_no_folder_of_that_name(tmp_path: Path) -> None:
    labels = np.array([str(number) for number in range(12)])
    pixels = torch.zeros(12, 1, 4, 4, dtype=torch.uint8)
    assert class_names(Found(tmp_path, np.array([]), tmp_path, pixels, labels, "")) == tuple(map(str, range(12)))


def test_images_of_further_classes_alone_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"has no image of the source's classes \(fox\)"):
        split_classes(find(folder, labelled=True), ["fox"])


def test_a_class_that_differs_by_a_space_is_shown_with_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.zeros((1, 8, 8), np.uint8), labels=["cat "])
    with pytest.raises(UserError, match="unknown: 'cat '"):
        check_classes(find(tmp_path / "x.npz", labelled=True), ["cat", "dog"])


def test_a_misspelt_path_is_answered_with_what_lies_beside_it(folder: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*photoz; did you mean '.*/photos'\?"):
        find(folder.with_name("photoz"), labelled=True)
