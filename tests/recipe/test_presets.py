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


def test_variants_are_the_same_pair_with_another_method() -> None:
    assert presets.variants("svhn2mnist") == ["svhn2mnist-drit"]
    assert presets.variants("mnist2usps-dann") == []
    assert presets.variants("mnist2mnistm") == ["mnist2mnistm-unit"], "its -paper recipe has the same method"
    assert presets.variant(presets.find("mnist2usps"), "dann") == presets.find("mnist2usps-dann")
    assert presets.variant(presets.find("mnist2usps"), "unit") == presets.find("mnist2usps")


def test_a_users_own_file_has_no_variant(tmp_path: Path) -> None:
    mine = tmp_path / "mnist2usps.toml"
    mine.touch()
    assert presets.variant(mine, "dann") == mine


def test_a_recipe_is_read_after_what_it_extends(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "base.toml").write_text("seed = 1")
    (tmp_path / "below" / "a.toml").write_text("extends = '../base.toml'\nseed = 2")
    tables = [tables for _, tables in presets.read_all(tmp_path / "below" / "a.toml")]
    assert tables == [{"seed": 1}, {"seed": 2}]


@pytest.mark.parametrize("name", presets.names())
def test_on_top_of_a_shipped_recipe_stand_its_command_and_what_to_expect(name: str) -> None:
    first, second, *_ = presets.find(name).read_text().splitlines()
    own = {"folders": "# uda fit --model", "photos": "# uda fit --source"}
    assert first.startswith(own.get(name, f"# uda fit --recipe {name}"))
    assert second.startswith("# Expect")
    assert "TODO" not in presets.find(name).read_text()


def test_the_variant_of_an_extended_recipe_stands_behind_it() -> None:
    read = [path.stem for path, _ in presets.read_all(presets.find("office31"), "unit")]
    assert read == ["photos", "photos-unit", "office31"]
    assert [path.stem for path, _ in presets.read_all(presets.find("office31"), "shot")] == ["photos", "office31"]


def test_a_shipped_recipe_leaves_out_what_it_says_of_another_method() -> None:
    (_, photos), (variant, _), (_, pacs) = presets.read_all(presets.find("pacs"), "unit")
    assert (variant.stem, photos["method"]["name"], "method" in pacs) == ("photos-unit", "mcc", False)
    *_, (_, as_it_is) = presets.read_all(presets.find("pacs"))
    assert as_it_is["method"]["name"] == "shot"


def test_but_not_where_what_extends_it_has_a_method_or_training_of_its_own(tmp_path: Path) -> None:
    for text in ('[method]\nname = "shot"\n', "[training]\nsteps = 50\n"):
        (tmp_path / "mine.toml").write_text(f'extends = "photos"\n{text}')
        assert [path.stem for path, _ in presets.read_all(tmp_path / "mine.toml", "unit")] == ["photos", "mine"]
    assert [path.stem for path, _ in presets.read_all(presets.find("mnist2usps-dann"), "cogan")] == [
        "mnist2usps",
        "mnist2usps-dann",
    ]
