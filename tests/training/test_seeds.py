"""Several seeds: one folder each, stopped and continued without a trace."""

import json
from pathlib import Path

import pytest

from tests.conftest import StopAfter
from uda import UserError
from uda.recipe.load import load_recipe
from uda.training.loop import Interrupted
from uda.training.seeds import fit_seeds, resume_seeds

FEW = {"training.steps": 3, "training.batch": 8, "classifier.steps": 3, "method.name": "dann", "training.log_every": 1}
WHERE = {"device": "cpu", "precision": "fp32"}


def accuracies(path: Path) -> list[dict]:
    return [json.loads((path / f"seed-{seed}" / "result.json").read_text())["accuracy"] for seed in (0, 1)]


def test_a_stopped_seed_goes_on_and_all_end_as_they_would_have(tiny: Path, tmp_path: Path) -> None:
    group = fit_seeds(str(tiny), 2, out=tmp_path / "whole", overrides=FEW, **WHERE)
    assert [run.result["seed"] for run in group.runs] == [0, 1]
    in_the_second = [StopAfter(8)]  # a seed takes six steps
    with pytest.raises(Interrupted, match="seed 1") as stopped:
        fit_seeds(str(tiny), 2, out=tmp_path / "stopped", overrides=FEW, observers=in_the_second, **WHERE)
    assert stopped.value.path == tmp_path / "stopped"
    resume_seeds(stopped.value.path)
    assert accuracies(tmp_path / "stopped") == accuracies(tmp_path / "whole")


def test_a_resolved_recipe_is_what_all_seeds_share(tiny: Path, tmp_path: Path) -> None:
    fit_seeds(str(tiny), 1, out=tmp_path / "one", overrides={**FEW, "seed": 5}, **WHERE)
    recipe = load_recipe(str(tmp_path / "one" / "seeds.toml"))
    assert (recipe.name, recipe.seed, recipe.training.steps) == ("tiny", 5, 3)
    assert (tmp_path / "one" / "seed-5" / "result.json").exists()


def test_a_folder_that_is_there_is_not_written_over(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UserError, match="exists already"):
        fit_seeds(str(tiny), 2, out=tmp_path / "mine", overrides=FEW, **WHERE)


@pytest.mark.parametrize("seeds", [0, 1001, 2**70])
def test_a_slip_of_the_hand_is_no_number_of_seeds(seeds: int, tiny: Path) -> None:
    with pytest.raises(UserError, match="1 to 1,000"):
        fit_seeds(str(tiny), seeds)


@pytest.mark.parametrize(
    "wrong", [{"data.size": 5, "method.name": "unit"}, {"classifier.weights": "nowhere.pt"}, {"seed": 2**63 - 2}]
)
def test_wrong_input_leaves_no_folder(wrong: dict, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        fit_seeds(str(tiny), 2, out=tmp_path / "run", overrides=FEW | wrong, **WHERE)
    assert not (tmp_path / "run").exists()
