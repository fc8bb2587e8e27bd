"""Translating images by a finished run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uda import UserError
from uda.cli import main
from uda.console import Display
from uda.inference.translate import _Shown, grid_path, write_translations
from uda.runs.run import Run

QUIET = Display(quiet=True)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_image_has_a_translation_of_its_name_and_size(own_run: Run, folders: Path, tmp_path: Path) -> None:
    count = write_translations(own_run, folders / "source", tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == names(folders / "source")
    assert count == len(names(tmp_path / "out"))
    picture = Image.open(next((tmp_path / "out").rglob("*.png")))
    assert (picture.size, picture.mode) == ((16, 16), "L")
    assert grid_path(tmp_path / "out").exists()


def test_the_grid_lies_beside_the_present_folder_where_translations_go_into_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert grid_path(Path()) == tmp_path.with_name(f"{tmp_path.name}-grid.png")


def test_the_grid_shows_images_from_the_whole_folder() -> None:
    """A folder's first ones are of one class."""
    shown = _Shown(120)
    for start in (0, 60):
        positions = range(start, start + 60)
        images = torch.tensor(positions, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
        shown.add("source", positions, images)
    (column,) = shown.columns.values()
    assert [int(image[0, 0, 0]) for image in column] == [0, 10, 21, 32, 43, 54, 64, 75, 86, 97, 108, 119]


def test_both_directions_differ(own_run: Run, folders: Path, tmp_path: Path) -> None:
    one = next((folders / "target").iterdir())
    for to in ("source", "target"):
        write_translations(own_run, one, tmp_path / to, QUIET, to)
    a, b = ((tmp_path / to / one.name).read_bytes() for to in ("source", "target"))
    assert a != b


def test_samples_are_numbered_and_differ_and_a_reference_decides(styled_run: Run, folders: Path, tmp_path: Path) -> None:
    one, other = sorted((folders / "target").iterdir())[:2]
    write_translations(styled_run, one, tmp_path / "a", QUIET, "source", samples=3)
    assert names(tmp_path / "a") == [f"{one.stem}-{n}.png" for n in (1, 2, 3)]
    assert len({(tmp_path / "a" / name).read_bytes() for name in names(tmp_path / "a")}) > 1
    for place in ("b", "c"):
        write_translations(styled_run, one, tmp_path / place, QUIET, "source", reference=other)
    assert (tmp_path / "b" / one.name).read_bytes() == (tmp_path / "c" / one.name).read_bytes()


def test_latent_mapping_draws_several_images_of_one_and_takes_no_reference(
    mapped_run: Run, folders: Path, tmp_path: Path
) -> None:
    one, other = sorted((folders / "source").rglob("*.png"))[:2]
    write_translations(mapped_run, one, tmp_path / "a", QUIET, samples=3)
    assert names(tmp_path / "a") == [f"{one.stem}-{n}.png" for n in (1, 2, 3)]
    assert len({(tmp_path / "a" / name).read_bytes() for name in names(tmp_path / "a")}) > 1
    with pytest.raises(UserError, match="reads no styles off images"):
        write_translations(mapped_run, one, tmp_path / "b", QUIET, reference=other)


def test_whole_images_keep_their_shape(styled_run: Run, folders: Path, tmp_path: Path) -> None:
    """A square is translated as without; of others the short side is that of the run's images, the long one a multiple of 4."""
    one = next((folders / "target").iterdir())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "square.png").write_bytes(one.read_bytes())
    for name, shape in (("wide", (50, 20)), ("long", (20, 33)), ("ribbon", (20, 181))):
        Image.open(one).resize(shape).save(tmp_path / "in" / f"{name}.png")
    for place, whole in (("whole", True), ("square", False)):
        write_translations(styled_run, tmp_path / "in", tmp_path / place, QUIET, "source", reference=one, whole=whole)
    sizes = {name: Image.open(tmp_path / "whole" / name).size for name in names(tmp_path / "whole")}
    assert sizes == {"square.png": (16, 16), "wide.png": (40, 16), "long.png": (16, 28)}
    pixels = [np.asarray(Image.open(tmp_path / place / "square.png")).astype(int) for place in ("whole", "square")]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert Image.open(tmp_path / "square" / "wide.png").size == (16, 16)


def test_whole_images_are_files(styled_run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 16, 16), dtype=np.uint8))
    with pytest.raises(UserError, match="image files"):
        write_translations(styled_run, tmp_path / "images.npz", tmp_path / "out", QUIET, whole=True)


def test_names_that_lead_out_of_the_folder_stay_inside(own_run: Run, folders: Path, tmp_path: Path) -> None:
    one = next((folders / "target").iterdir())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.csv").write_text(f"{one}\n../x.png\n")
    (tmp_path / "x.png").write_bytes(one.read_bytes())
    write_translations(own_run, tmp_path / "in" / "list.csv", tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == sorted([one.name, "x.png"])


@pytest.mark.parametrize(
    ("images", "said"),
    [(("a.jpg", "a.png/b.jpg"), "would be named as the folder a.png"), ((f"{'n' * 251}.jpg",), "leaves no room for")],
)
def test_a_name_that_no_translation_can_have_is_known_before_any_is_made(
    images: tuple[str, ...], said: str, styled_run: Run, tmp_path: Path
) -> None:
    for name in images:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16)).save(tmp_path / "in" / name)
    with pytest.raises(UserError, match=said):
        write_translations(styled_run, tmp_path / "in", tmp_path / "out", QUIET, samples=1 if said.startswith("leaves") else 0)
    assert not (tmp_path / "out").exists()


def test_unreadable_images_are_named_and_left_out(
    own_run: Run, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    (tmp_path / "in" / "b.png").write_bytes(next((folders / "target").iterdir()).read_bytes())
    assert write_translations(own_run, tmp_path / "in", tmp_path / "out", Display()) == 1
    assert names(tmp_path / "out") == ["b.png"]
    assert "a.png" in capsys.readouterr().out


def test_what_a_method_cannot_do_is_said(own_run: Run, styled_run: Run, folders: Path, tmp_path: Path) -> None:
    one = next((folders / "target").iterdir())
    with pytest.raises(UserError, match="one translation of an image"):
        write_translations(own_run, one, tmp_path / "out", QUIET, samples=2)
    with pytest.raises(UserError, match="--samples or --reference"):
        write_translations(styled_run, one, tmp_path / "out", QUIET, samples=2, reference=one)
    with pytest.raises(UserError, match="squares of one size"):
        write_translations(own_run, one, tmp_path / "out", QUIET, whole=True)
    with pytest.raises(UserError, match="not one image"):
        write_translations(styled_run, one, tmp_path / "out", QUIET, reference=folders)
    with pytest.raises(UserError, match=r"no image at .*nowhere\.png; give an image file"):
        write_translations(styled_run, one, tmp_path / "out", QUIET, reference=tmp_path / "nowhere.png")
    with pytest.raises(UserError, match="target"):
        write_translations(own_run, one, tmp_path / "out", QUIET, to="targt")
    assert not (tmp_path / "out").exists()


def test_the_command_translates_and_interpolates(
    own_run: Run,
    styled_run: Run,
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other = sorted((folders / "target").iterdir())[:2]
    commands = (
        (own_run, ["-o", str(tmp_path / "out"), "--to", "source"]),
        (own_run, ["-o", str(tmp_path / "strips"), "--interpolate", str(other)]),
        (styled_run, ["-o", str(tmp_path / "styles"), "--interpolate-style", str(one), str(other)]),
    )
    for run, words in commands:
        monkeypatch.setattr(sys, "argv", ["uda", "translate", str(run.path), str(one), *words, "--device", "cpu"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
    assert names(tmp_path / "out") == [one.name]
    assert names(tmp_path / "strips") == names(tmp_path / "styles") == ["strip.png"]
    assert "out-grid.png" in capsys.readouterr().out


def test_translating_twice_names_the_folder_and_not_the_grid(
    own_run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, *_ = sorted((folders / "target").iterdir())
    monkeypatch.setattr(sys, "argv", ["uda", "translate", str(own_run.path), str(one), "-o", str(tmp_path / "out")])
    for code in (0, 2):
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == code
    assert f"{tmp_path / 'out'} exists already" in capsys.readouterr().err


def test_images_of_one_name_and_several_endings_have_a_translation_each(own_run: Run, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for ending, path in zip(("bmp", "jpg", "png"), sorted((folders / "target").iterdir()), strict=False):
        Image.open(path).save(tmp_path / "in" / f"a.{ending}")
    write_translations(own_run, tmp_path / "in", tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == ["a.bmp.png", "a.jpg.png", "a.png.png"]
