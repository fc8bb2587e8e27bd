"""The page of a run and of a comparison: complete, self-contained, readable without a script."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from tests.conftest import drawn
from uda import Run, UserError
from uda.report import page
from uda.report.compare import Group, compare
from uda.report.page import Material, material_of, write_comparison, write_report


class Outline(HTMLParser):
    """Headings, links and their targets, pictures and their words, and whether every element is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if found.get("id"):
            self.ids.add(str(found["id"]))
        if tag == "a":
            self.links.append(str(found.get("href")))
        if tag in ("img", "svg"):
            self.images.append(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(path: Path) -> tuple[str, Outline]:
    text = path.read_text(encoding="utf-8")
    return text, Outline(text)


def test_a_run_leaves_a_page_that_needs_nothing_else(own_run: Run) -> None:
    text, page = read(own_run.path / "report.html")
    assert not page.open
    assert "script" not in page.tags
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert {link.removeprefix("#") for link in page.links} <= page.ids
    assert len(page.images) > 8
    assert all(image.get("alt") or image.get("aria-label") for image in page.images)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_page_holds_the_runs_figures_and_notes(own_run: Run) -> None:
    text, page = read(own_run.path / "report.html")
    for name in ("source_only", "last", "selected", "oracle"):
        assert f"{100 * own_run.accuracy[name]:.2f}&nbsp;%" in text
    for part in (own_run.result["source"]["note"], own_run.result["target"]["note"], "Most confident mistakes", "Translations"):
        assert part in text
    assert {"data", "figures", "next", "evaluations", "classes", "calibration", "features", "losses", "settings"} <= page.ids


@pytest.fixture
def material(own_run: Run) -> Material:
    return material_of(own_run)


def test_what_is_read_back_makes_the_page_that_the_run_left(own_run: Run, material: Material, tmp_path: Path) -> None:
    again = write_report(material, tmp_path / "report.html")
    assert again.read_text() == (own_run.path / "report.html").read_text()


def test_weights_and_data_are_not_needed(own_run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(own_run.path, moved, ignore=shutil.ignore_patterns("weights", "sample.safetensors", "adapted.pt"))
    assert write_report(material_of(Run(moved)), tmp_path / "report.html").stat().st_size > 0


def test_a_missing_part_is_named(own_run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(own_run.path, moved)
    (moved / "outputs" / "last.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"last\.safetensors is not the file that the run wrote"):
        material_of(Run(moved))


def test_warnings_and_their_advice_are_shown(material: Material, tmp_path: Path) -> None:
    warning = {"name": "lost", "what": "nothing is <left>", "meaning": "it is gone", "advice": "look for it"}
    warned = replace(material, result=material.result | {"warnings": [warning]})
    text = write_report(warned, tmp_path / "report.html").read_text()
    assert "Nothing is &lt;left&gt;.</strong> It can mean: it is gone. Try: look for it." in text
    assert "<li>Look for it.</li>" in text


def test_what_labels_say_is_shown_first(material: Material, tmp_path: Path) -> None:
    checked = {
        "accuracy": {"adapted": 0.875, "source": 0.5},
        "interval": {"adapted": (0.75, 1), "source": (0.25, 0.75)},
        "labels": 8,
    }
    text = write_report(replace(material, checked=checked), tmp_path / "report.html").read_text()
    assert "<b>87.50&nbsp;%</b><span>by 8 labels that somebody gave (75.00&nbsp;% .. 100.00&nbsp;%)" in text
    assert "source_only, by the labels of 8 target images (0.250 .. 0.750)" in text


def test_one_evaluation_is_no_curve(material: Material, tmp_path: Path) -> None:
    last = max(row["step"] for row in material.rows)
    rows = [row if row["step"] == last else {k: v for k, v in row.items() if k != "scores"} for row in material.rows]
    _, page = read(write_report(replace(material, rows=rows), tmp_path / "report.html"))
    assert "evaluations" not in page.ids
    assert "#evaluations" not in page.links


def test_without_target_labels_the_page_claims_no_accuracy(material: Material, tmp_path: Path) -> None:
    hidden = {k: v for k, v in material.result.items() if k not in ("confusion", "per_class", "calibration_error")}
    hidden["accuracy"] = {name: value if name == "source" else None for name, value in material.result["accuracy"].items()}
    rows = [{key: value for key, value in row.items() if key != "target_test_accuracy"} for row in material.rows]
    text, page = read(write_report(replace(material, result=hidden, rows=rows), tmp_path / "report.html"))
    assert not page.open
    assert "the target has no labels to test on" in text
    assert not {"classes", "calibration"} & page.ids
    assert "uda check RUN" in text


def test_a_comparison_page(own_run: Run, tmp_path: Path) -> None:
    group = Group(own_run.path, (own_run,))
    text, page = read(write_comparison(compare([group, group]), tmp_path / "pages" / "both.html"))
    assert not page.open
    assert "2 ways compared" in text
    assert f"{own_run.accuracy['last']:.4f}" in text
    assert "+0.0000" in text
    assert all(image.get("aria-label") for image in page.images)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium to open the page")
@pytest.mark.parametrize("width", [380, 1000])
def test_a_browser_shows_it(own_run: Run, tmp_path: Path, width: int) -> None:
    import matplotlib.image

    picture = tmp_path / "page.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2500", f"--screenshot={picture}"]
    subprocess.run([*command, (own_run.path / "report.html").as_uri()], check=True, capture_output=True, timeout=120)
    pixels = matplotlib.image.imread(picture)[..., :3]
    ink = (pixels - pixels[0, 0]).__abs__().max(2) > 0.05
    # Something is drawn along the whole page, and the margins stay empty: nothing sticks out.
    assert ink.reshape(25, -1).mean(1).min() > 0.001
    assert not ink[:, :3].any()
    assert not ink[:, -3:].any()


def test_features_that_are_all_alike_have_no_map(material: Material) -> None:
    """t-SNE ends the process where there is no spread."""
    outputs = material.outputs["last"]
    assert outputs.source_features is not None
    dead = {name: torch.zeros_like(getattr(outputs, name)) for name in ("source_features", "target_features")}
    with drawn():
        assert page.placed(replace(outputs, **dead)) is None
        assert page.placed(outputs) is not None
