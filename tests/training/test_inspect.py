"""Two domains before anything is trained."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.conftest import NETS, domain, write_folder
from tests.models.nets import SmallResNet
from uda.console import Display
from uda.data.domain import Pair
from uda.errors import UserError
from uda.evaluation.shares import Shares
from uda.report.page import write_inspection
from uda.training.inspect import advise, figures, inspect

QUIET = Display(quiet=True)
UNEVEN = Shares(torch.tensor([0.5] + [0.5 / 9] * 9, dtype=torch.float64), 0.05, 250)


def test_what_there_is(folders: Path, small_pair: Pair) -> None:
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)
    counts = small_pair.source.labels.bincount(minlength=10).tolist()
    assert seen["source"].classes == {name: n for name, n in zip("0123456789", counts, strict=True) if n}
    assert (seen["source"].count, seen["target"].count) == (96, 96)
    assert seen["source"].sizes == [(16, 16)]
    assert not seen["source"].grey
    assert seen["duplicates"] == []
    assert seen["shares"] is None


def test_labels_go_with_their_images(folders: Path) -> None:
    side = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)["source"]
    classes = list(side.classes)
    assert [classes[label] for label in side.labels] == [Path(name).parts[0] for name in side.names]


def test_a_domain_is_told_apart_from_a_darker_one_and_not_from_more_of_it(tmp_path: Path) -> None:
    more = domain("b", 100, 2)
    write_folder(domain("a", 100, 1), tmp_path / "a", True)
    write_folder(more, tmp_path / "b", False)
    write_folder(replace(more, images=more.images // 4), tmp_path / "dark", False)  # type: ignore[operator]
    assert 0.3 < inspect(str(tmp_path / "a"), str(tmp_path / "b"), (), QUIET)["auc"] < 0.7
    assert inspect(str(tmp_path / "a"), str(tmp_path / "dark"), (), QUIET)["auc"] > 0.95


def test_images_in_both_and_unreadable_ones_are_named(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "target", tmp_path / "target")
    original = sorted((folders / "source").glob("*/*.png"))[0]
    shutil.copy(original, tmp_path / "target" / "copied.png")
    (tmp_path / "target" / "broken.png").write_bytes(b"no image")
    seen = inspect(str(folders / "source"), str(tmp_path / "target"), (), QUIET)
    assert seen["duplicates"] == [(str(original.relative_to(folders / "source")), "copied.png")]
    (line,) = seen["target"].unreadable
    assert line.startswith("broken.png (")


def test_no_target_label_is_read(folders: Path) -> None:
    seen = inspect(str(folders / "source"), "digits", (), QUIET)
    assert seen["target"].labels is None
    assert seen["target"].classes == {}


def test_a_network_estimates_the_targets_classes(folders: Path) -> None:
    network = {"classifier.backbone": f"{NETS}:SmallResNet", "classifier.weights": str(folders / "net.pt")}
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET, {**network, "data.channels": 1}, "cpu")
    assert sum(seen["shares"].estimated) == pytest.approx(1)
    assert seen["shares"].images == 96
    assert "SmallResNet" in seen["by"]


def test_a_network_with_trained_weights_is_tested_on_source_images(folders: Path) -> None:
    network = {"classifier.backbone": f"{NETS}:SmallResNet", "data.channels": 1}
    where = str(folders / "source"), str(folders / "target"), (), QUIET
    assert inspect(*where, network, "cpu")["accuracy"] is None
    seen = inspect(*where, {**network, "classifier.weights": str(folders / "net.pt")}, "cpu")
    own = SmallResNet().eval()
    own.load_state_dict(torch.load(folders / "net.pt", weights_only=True))
    with torch.no_grad():
        expected = (own(seen["source"].images / 255).argmax(1) == seen["source"].labels).float().mean()
    assert seen["accuracy"] == pytest.approx(float(expected))
    assert f"the network's accuracy on 96 source images, which may have taught it: {expected:.4f}" in figures(seen)


def test_classes_come_in_the_order_of_the_networks_outputs_where_that_is_given(folders: Path) -> None:
    backwards = [str(digit) for digit in range(9, -1, -1)]
    where = str(folders / "source"), str(folders / "target"), (), QUIET
    side = inspect(*where, {"data.classes": backwards})["source"]
    assert list(side.classes) == backwards
    assert [backwards[label] for label in side.labels] == [Path(name).parts[0] for name in side.names]
    with pytest.raises(UserError, match="7, 8, 9"):
        inspect(*where, {"data.classes": backwards[3:]})


def test_a_network_of_other_outputs_is_answered_with_the_classes_found(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "source", tmp_path / "source")
    shutil.rmtree(tmp_path / "source" / "3")
    network = {"classifier.backbone": f"{NETS}:SmallResNet", "classifier.weights": str(folders / "net.pt"), "data.channels": 1}
    with pytest.raises(UserError, match="the classes found are 0, 1, 2, 4"):
        inspect(str(tmp_path / "source"), str(folders / "target"), (), QUIET, network, "cpu")


@pytest.mark.parametrize(("accuracy", "remarked"), [(0.12, True), (0.9, False), (None, False)])
def test_a_network_that_cannot_read_its_source_is_remarked(folders: Path, accuracy: float | None, remarked: bool) -> None:
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)
    assert ("the order of its classes" in advise(seen | {"accuracy": accuracy})) == remarked


def test_few_target_images_have_no_distance(folders: Path, tmp_path: Path) -> None:
    write_folder(domain("few", 3, 4), tmp_path / "few", False)
    seen = inspect(str(folders / "source"), str(tmp_path / "few"), (), QUIET)
    assert seen["auc"] is None
    assert "too few images" in seen["advice"]
    assert write_inspection(seen, tmp_path / "page.html").exists()


def test_nothing_readable_is_refused(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the images"):
        inspect(str(folders / "source"), str(tmp_path), (), QUIET)


def test_advice_follows_what_was_seen(folders: Path) -> None:
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)
    for change, said in (
        ({"auc": 0.55}, "hardly differ"),
        ({"auc": 0.8}, "what adaptation is made for"),
        ({"auc": 0.95}, "almost without a mistake"),
        ({"duplicates": [("a", "b")]}, "1 images lie in both"),
        ({"shares": UNEVEN}, "look uneven"),
        ({"shares": UNEVEN}, "--set training.target_shares=estimated"),
        ({"shares": replace(UNEVEN, doubt=0.5)}, "cannot be told"),
        ({"source": replace(seen["source"], grey=True)}, "One domain is grey"),
    ):
        assert said in advise(seen | change)
    assert "look uneven" not in advise(seen | {"shares": replace(UNEVEN, doubt=0.5)})
    assert "dann" not in advise(seen | {"shares": UNEVEN}), "which aligns even classes with uneven ones"


def test_figures_are_what_was_counted_and_measured(folders: Path) -> None:
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)
    lines = figures(seen | {"auc": 0.876, "shares": UNEVEN, "duplicates": [("a", "b")]})
    sizes = seen["source"].classes.values()
    assert lines[0] == f"source: 96 labelled images, {len(sizes)} classes, {min(sizes)} to {max(sizes)} images each"
    assert lines[1] == "target: 96 images"
    assert "AUC 0.88" in lines[2]
    assert lines[3].startswith("the target's classes, estimated: 40% of the images would have to change")
    assert lines[4] == "in both domains: 1 of the 96 and 96 images looked at"
    assert len(lines) == 5
    assert len(figures(seen | {"auc": None, "shares": None, "duplicates": []})) == 2


def test_the_page_says_what_the_network_reads_right(folders: Path, tmp_path: Path) -> None:
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)
    text = write_inspection(seen | {"accuracy": 0.875}, tmp_path / "page.html").read_text()
    assert "87.5&nbsp;%" in text
    assert "read right" not in write_inspection(seen, tmp_path / "page.html").read_text()


@pytest.mark.parametrize("flag", ["weights", "backbone_weights"])
def test_weights_without_their_network_are_refused(folders: Path, flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag.replace('_', '-')} is of a network; give that, too: --model"):
        inspect(str(folders / "source"), str(folders / "target"), (), QUIET, {f"classifier.{flag}": str(folders / "net.pt")})


def test_a_missing_file_of_weights_is_named_before_any_image_is_read(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uda.training.inspect._look", lambda *_: pytest.fail("an image was read"))
    network = {"classifier.backbone": f"{NETS}:SmallResNet", "classifier.weights": "nowhere.pt"}
    with pytest.raises(UserError, match="no weights at"):
        inspect(str(folders / "source"), str(folders / "target"), (), QUIET, network, "cpu")


def test_the_page_is_one_file_and_class_names_are_text(folders: Path, tmp_path: Path) -> None:
    seen = inspect(str(folders / "source"), str(folders / "target"), (), QUIET)
    side = replace(seen["source"], classes={"<b>bold</b>": 96})
    text = write_inspection(
        seen | {"source": side, "shares": replace(UNEVEN, estimated=torch.ones(1))}, tmp_path / "page.html"
    ).read_text()
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold" in text
    assert "http" not in text
    assert text.count("<img") == 48
