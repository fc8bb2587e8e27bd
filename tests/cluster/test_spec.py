"""Specs: what they stand for, and what is wrong with those that stand for nothing."""

from pathlib import Path

import pytest

from uda import UserError
from uda.cluster.spec import SweepSpec, combinations, read_spec


def spec(folder: Path, text: str) -> Path:
    (folder / "spec.toml").write_text(text)
    return folder / "spec.toml"


GRID = """
recipes = ["mnist2usps", "usps2mnist"]
methods = ["dann", "shot"]
seeds = [0, 1]
[settings]
training.steps = [10, 20]
"""


def test_a_grid_is_the_product_of_its_lists(tmp_path: Path) -> None:
    found = combinations(read_spec(spec(tmp_path, GRID)))
    assert len(found) == 8
    first = found[0]
    assert first.name == "mnist2usps-dann-steps=10"
    assert (first.recipe.method.name, first.recipe.training.steps) == ("dann", 10)
    assert first.values == {"training.steps": 10}


def test_a_random_search_draws_the_same_combinations_each_time(tmp_path: Path) -> None:
    path = spec(tmp_path, 'search = "random"\ntrials = 3\n' + GRID)
    drawn = [[one.name for one in combinations(read_spec(path))] for _ in range(2)]
    assert len(drawn[0]) == len(set(drawn[0])) == 3
    assert drawn[0] == drawn[1]


def test_without_methods_each_recipe_has_its_own(tmp_path: Path) -> None:
    (one,) = combinations(read_spec(spec(tmp_path, 'recipes = ["mnist2usps-cdan"]')))
    assert (one.name, one.recipe.method.name) == ("mnist2usps-cdan", "cdan")


def test_places_hold_on_every_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    text = 'recipes = ["folders"]\n[settings]\ndata.source = ["here/"]\ndata.target = ["mnist"]\n'
    (one,) = combinations(read_spec(spec(tmp_path, text)))
    assert (one.recipe.data.source, one.recipe.data.target) == (str(tmp_path / "here"), "mnist")


def test_code_is_looked_for_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from uda.methods.dann import DANN as Own\n")
    text = 'recipes = ["folders"]\nmethods = ["own.py:Own"]\n[settings]\ndata.source = ["mnist"]\ndata.target = ["usps"]\n'
    (one,) = combinations(read_spec(spec(tmp_path, text + 'classifier.backbone = ["nets.py:Net"]\n')))
    assert one.recipe.method.name == f"{tmp_path / 'own.py'}:Own"
    assert one.recipe.classifier.backbone == f"{tmp_path / 'nets.py'}:Net"


HALVING = 'search = "halving"\nrecipes = ["mnist2usps"]\n[settings]\n'
WRONG = {
    'recipes = ["mnist2usps"]\nmethod = ["dann"]': "did you mean 'methods'",
    'recipes = ["nowhere"]': "unknown recipe 'nowhere'",
    'recipes = ["mnist2usps"]\n[settings]\ntraining.steps = 5': r"give a list of values: \[5\]",
    'recipes = ["mnist2usps"]\n[settings]\ntraining.stepz = [5]': "did you mean 'training.steps'",
    'recipes = ["mnist2usps"]\n[settings]\nseed = [5]': "write it under seeds",
    'recipes = ["mnist2usps"]\nseeds = [1, 1]': "seeds names a value twice",
    'recipes = ["mnist2usps"]\n[settings]\ntraining.steps = [4, 4.0]': "training.steps names a value twice",
    'recipes = ["mnist2usps"]\nsearch = "random"': "trials = N goes with",
    'recipes = ["mnist2usps"]\nmethods = ["unit_translation"]': "no accuracy to compare",
    "recipes = []": "recipes",
    HALVING + "training.evaluate_every = [50]\ntraining.steps = [90, 91, 92]": "training.evaluate_every to 30 or less",
    HALVING + 'selection.score = ["entropy", "diversity"]': "same selection.score",
}


@pytest.mark.parametrize(("text", "line"), WRONG.items())
def test_what_is_wrong_is_said_in_one_line(text: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as error:
        combinations(read_spec(spec(tmp_path, text)))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no spec"):
        read_spec(tmp_path / "spec.toml")


def test_more_combinations_than_can_be_listed_are_refused() -> None:
    settings = {f"method.a{number}": list(range(100)) for number in range(6)}
    with pytest.raises(UserError, match="1,000,000,000,000 combinations"):
        combinations(SweepSpec(recipes=("synth2digits",), seeds=(0,), settings=settings))
