"""README's commands name things that exist; the two set-up commands themselves are run by .ci/run."""

import re
import shlex

import pytest
from typer.testing import CliRunner

from tests.conftest import CHECKOUT
from uda.cli import app
from uda.recipe import presets
from uda.recipe.load import load_recipe, parse_override

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
FITS = re.findall(r"uda fit --recipe (\S+)((?: --set \S+)*)", README)


def test_the_set_up_commands_are_on_the_first_screen() -> None:
    top = README.splitlines()[:25]
    assert "pip install . && uda fit --recipe synth2digits" in top
    assert 'pip install ".[dev]" && pytest -n 2' in top


@pytest.mark.parametrize(("recipe", "settings"), FITS)
def test_every_recipe_and_setting_named_is_accepted(recipe: str, settings: str) -> None:
    recipe = recipe.strip("`.,")
    if recipe != "mine.toml":
        assert recipe in presets.names() or recipe == "NAME"
        if recipe in presets.names():
            own = {"data.source": "mnist", "data.target": "usps"} if recipe == "translate" else {}  # given by flags
            load_recipe(recipe, own | dict(parse_override(text) for text in shlex.split(settings.replace("--set", ""))))


@pytest.mark.parametrize("option", sorted(set(re.findall(r"uda fit[^`\n]*?(--[a-z-]+)", README))))
def test_every_option_named_exists(option: str) -> None:
    assert option in CliRunner().invoke(app, ["fit", "--help"]).output


def test_every_file_named_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (CHECKOUT / link).exists(), link
