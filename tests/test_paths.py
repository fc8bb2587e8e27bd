"""Where commands may write."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from uda import Run, UserError
from uda.cli import main
from uda.data.names import data_roots
from uda.errors import NoHome
from uda.paths import cache_home, distinct, filling, new_file, new_folder, not_a_run, outside
from uda.plugins import require_trust, trust
from uda.report.compare import compare, open_group
from uda.report.grids import write_grid
from uda.report.page import write_comparison
from uda.runs.cache import user_cache


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["a.png", "b.jpg"], ["a", "b"]),
        (["a.png", "a.jpg", "b.png"], ["a.png", "a.jpg", "b"]),
        (["a.png", "a.png"], ["a.png", "a.png-2"]),
        (["A.png", "a.jpg"], ["A.png", "a.jpg"]),
        (["x/a.png", "y/a.png"], ["x/a", "y/a"]),
        (["a.png", "a.jpg", "a.png.png"], ["a.png", "a.jpg", "a.png-2"]),
    ],
)
def test_places_are_told_apart(names: list[str], places: list[str]) -> None:
    assert distinct(map(Path, names)) == [Path(place) for place in places]


def test_an_earlier_output_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    earlier = tmp_path / "p.csv"
    earlier.write_text("path,class,probability\n")
    assert new_file(earlier, ".csv", tmp_path / "images") == earlier
    with pytest.raises(UserError, match=r"no \.json file"):
        new_file(earlier, ".json")
    with pytest.raises(UserError, match="read by this command"):
        new_file(earlier, ".csv", tmp_path)
    (tmp_path / "recipe.toml").touch()
    for inside in (earlier, tmp_path / "new.csv"):
        with pytest.raises(UserError, match="would lie in a run"):
            new_file(inside, ".csv")


def test_a_grid_of_ours_is_replaced_and_another_picture_is_not(tmp_path: Path) -> None:
    write_grid([("a", torch.zeros(2, 1, 8, 8, dtype=torch.uint8))], tmp_path / "grid.png")
    assert new_file(tmp_path / "grid.png", ".png") == tmp_path / "grid.png"
    Image.open(tmp_path / "grid.png").save(tmp_path / "other.png")
    with pytest.raises(UserError, match="delete it, or give another -o"):
        new_file(tmp_path / "other.png", ".png")


def test_outputs_do_not_lie_among_images(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert outside(tmp_path / "run", tmp_path / "images", tmp_path / "missing") == tmp_path / "run"
    for inside in (tmp_path / "images", tmp_path / "images" / "run", tmp_path / "link" / "run"):
        with pytest.raises(UserError, match="would be read as images"):
            outside(inside, tmp_path / "images")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "path,label\n"),
        ("page.html", "<!doctype html>"),
        ("mine.json", "{}"),
        ("horse.png", ""),
        ("net.pt2", ""),
        ("net.onnx", ""),
    ],
)
def test_a_file_that_is_no_output_of_ours_is_not_replaced(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="delete it, or give another -o"):
        new_file(tmp_path / name, Path(name).suffix)


def test_pages_and_figures_are_known_again(own_run: Run, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, figures = write_comparison(compare([open_group(own_run.path)]), tmp_path / "page.html"), tmp_path / "figures.json"
    assert new_file(page, ".html") == page
    command = ["uda", "evaluate", str(own_run.path), "--data", str(folders / "test"), "-o", str(figures)]
    monkeypatch.setattr(sys, "argv", command)
    for _ in range(2):  # the second time onto the first one's figures
        with pytest.raises(SystemExit, match="0"):
            main()


def test_outputs_are_not_added_to_a_run(tmp_path: Path) -> None:
    assert not_a_run(tmp_path) == tmp_path
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(UserError, match="is a run"):
        not_a_run(tmp_path)


def test_a_folder_is_new_or_empty(tmp_path: Path) -> None:
    assert new_folder(tmp_path / "new") == tmp_path / "new"
    (tmp_path / "full").mkdir()
    assert new_folder(tmp_path / "full") == tmp_path / "full"
    (tmp_path / "full" / "a").touch()
    for place in (tmp_path / "full", tmp_path / "full" / "a"):
        with pytest.raises(UserError, match="new or empty"):
            new_folder(place)


def test_without_a_home_nothing_is_kept_and_data_lies_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_home() == tmp_path
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "UDA_DATA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NoHome, match=r"set \$HOME, or \$XDG_CACHE_HOME"):
        cache_home()
    assert user_cache().root is None
    trust(["net.py:Net"])
    with pytest.raises(UserError, match="--trust"):
        require_trust(["net.py:Net"], "a recipe")
    assert data_roots(None) == (Path("data").absolute(),)


def test_a_folder_is_filled_by_one_command_alone(tmp_path: Path) -> None:
    with filling(tmp_path / "out"):
        with pytest.raises(UserError, match="another process writes to"), filling(tmp_path / "out"):
            pass
        (tmp_path / "out" / "a.png").write_text("")
    with pytest.raises(UserError, match="exists already"), filling(tmp_path / "out"):
        pass


def test_a_folder_that_was_made_in_vain_is_taken_away(tmp_path: Path) -> None:
    with pytest.raises(UserError), filling(tmp_path / "out"):
        raise UserError("no")
    assert not (tmp_path / "out").exists()


def test_outputs_are_not_put_into_a_run_either(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    not_a_run(tmp_path / "run" / "shards")  # beside somebody's own recipe
    (tmp_path / "run" / "environment.json").touch()
    with pytest.raises(UserError, match="lies in a run"):
        not_a_run(tmp_path / "run" / "weights")
    not_a_run(tmp_path / "run" / ".." / "shards")
