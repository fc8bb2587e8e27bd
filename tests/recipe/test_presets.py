from pathlib import Path

import pytest

from uda import UserError
from uda.recipe import presets


def test_recipes_are_found_wherever_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert presets.find("svhn2mnist").is_file()


def test_a_path_needs_its_ending_to_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("description = 'mine'")
    assert presets.read(presets.find(str(tmp_path / "mine.toml"))) == {"description": "mine"}
    with pytest.raises(UserError):
        presets.find(str(tmp_path / "mine"))
