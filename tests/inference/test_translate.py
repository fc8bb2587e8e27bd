"""Translating images by a finished run."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHORT
from uda import UserError
from uda.cli import main
from uda.console import Display
from uda.inference.translate import grid_path, write_strip, write_translations
from uda.runs.run import Run
from uda.training.fit import fit

QUIET = Display(quiet=True)


def finished(folders: Path, out: Path, method: str) -> Run:
    data = {"data.source": str(folders / "source"), "data.target": str(folders / "target"), "method.name": method}
    small = {key: value for key, value in SHORT.items() if key != "classifier.refine_steps"}
    return fit("folders", out=out, device="cpu", precision="fp32", overrides=small | data | {"classifier.steps": 3})


@pytest.fixture(scope="session")
def styled_run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of DRIT."""
    return finished(folders, tmp_path_factory.mktemp("runs") / "drit", "drit")


@pytest.fixture(scope="session")
def mapped_run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of latent mapping."""
    return finished(folders, tmp_path_factory.mktemp("runs") / "latent_mapping", "latent_mapping")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_image_has_a_translation_of_its_name_and_size(own_run: Run, folders: Path, tmp_path: Path) -> None:
    count = write_translations(own_run, folders / "source", tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == names(folders / "source")
    assert count == len(names(tmp_path / "out"))
    picture = Image.open(next((tmp_path / "out").rglob("*.png")))
    assert (picture.size, picture.mode) == ((16, 16), "L")
    assert grid_path(tmp_path / "out").exists()


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


def test_a_strip_between_an_image_and_itself_does_not_jump(mapped_run: Run, folders: Path, tmp_path: Path) -> None:
    """All pictures of its lower row are drawn with one noise."""
    one = sorted((folders / "source").rglob("*.png"))[0]
    write_strip(mapped_run, one, one, tmp_path / "strip.png", stops=3)
    row = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))[67:, -3 * 67 :].reshape(64, 3, 67)[:, :, :64].astype(int)
    for number in (1, 2):
        assert np.abs(row[:, number] - row[:, 0]).max() <= 1


@pytest.mark.parametrize("which", ["own_run", "styled_run", "mapped_run"])
def test_a_strip_has_a_row_for_each_domain(which: str, folders: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    one, other = sorted((folders / "target").iterdir())[:2]
    write_strip(request.getfixturevalue(which), one, other, tmp_path / "strip.png", "source", stops=4)
    strip = Image.open(tmp_path / "strip.png")
    assert strip.height == 2 * 64 + 3
    assert strip.width > 4 * 64


def test_names_that_lead_out_of_the_folder_stay_inside(own_run: Run, folders: Path, tmp_path: Path) -> None:
    one = next((folders / "target").iterdir())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.csv").write_text(f"{one}\n../x.png\n")
    (tmp_path / "x.png").write_bytes(one.read_bytes())
    write_translations(own_run, tmp_path / "in" / "list.csv", tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == sorted([one.name, "x.png"])


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
    with pytest.raises(UserError, match="not one image"):
        write_translations(styled_run, one, tmp_path / "out", QUIET, reference=folders)
    with pytest.raises(UserError, match="target"):
        write_translations(own_run, one, tmp_path / "out", QUIET, to="targt")
    assert not (tmp_path / "out").exists()


def test_the_command_translates_and_interpolates(
    own_run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = sorted((folders / "target").iterdir())[:2]
    for words in (["-o", str(tmp_path / "out"), "--to", "source"], ["-o", str(tmp_path / "strips"), "--interpolate", str(other)]):
        monkeypatch.setattr(sys, "argv", ["uda", "translate", str(own_run.path), str(one), *words, "--device", "cpu"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
    assert names(tmp_path / "out") == [one.name]
    assert names(tmp_path / "strips") == ["strip.png"]
    assert "out-grid.png" in capsys.readouterr().out


def test_images_of_one_name_and_several_endings_have_a_translation_each(own_run: Run, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for ending, path in zip(("bmp", "jpg", "png"), sorted((folders / "target").iterdir()), strict=False):
        Image.open(path).save(tmp_path / "in" / f"a.{ending}")
    write_translations(own_run, tmp_path / "in", tmp_path / "out", QUIET)
    assert names(tmp_path / "out") == ["a.bmp.png", "a.jpg.png", "a.png.png"]
