"""Intervals and the paired test, on made-up answers; groups and what cannot be compared."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from uda import Run, UserError
from uda.report.compare import Group, bootstrap, compare, open_group, paired
from uda.report.tables import comparison_table, recommended


def answers(runs: int, count: int, share: float, seed: int = 0) -> torch.Tensor:
    return torch.rand(runs, count, generator=torch.Generator().manual_seed(seed)) < share


def test_the_interval_of_one_run_is_the_binomials() -> None:
    low, high = bootstrap(answers(1, 2000, 0.9))
    expected = binomtest(int(answers(1, 2000, 0.9).sum()), 2000).proportion_ci(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = torch.cat([answers(1, 3000, 0.9, seed) for seed in range(3)])
    apart = torch.cat([answers(1, 3000, share, 0) for share in (0.8, 0.9, 0.97)])
    width = [high - low for low, high in (bootstrap(alike), bootstrap(apart))]
    assert width[1] > 3 * width[0]


def test_the_paired_test_agrees_with_mcnemars() -> None:
    first = answers(1, 1000, 0.9)
    second = first.clone()
    second[0, first[0].nonzero()[:12, 0]] = False
    second[0, (~first[0]).nonzero()[:30, 0]] = True
    found = paired(first, second)
    assert found.mean == pytest.approx(18 / 1000)
    assert found.p == pytest.approx(binomtest(12, 42).pvalue, abs=0.01)
    assert found.interval[0] < found.mean < found.interval[1]
    assert found.interval[0] > 0


def test_what_does_not_differ_is_not_significant() -> None:
    same = answers(2, 500, 0.8)
    assert paired(same, same) == paired(same, same.flip(0))
    assert (paired(same, same).mean, paired(same, same).p) == (0.0, 1.0)


@given(st.floats(0.5, 0.99), st.floats(0.5, 0.99), st.integers(1, 3))
@settings(max_examples=6)
def test_swapping_the_two_turns_the_sign(a: float, b: float, runs: int) -> None:
    first, second = answers(runs, 200, a, 1), answers(runs, 200, b, 2)
    there, back = paired(first, second), paired(second, first)
    assert there.mean == pytest.approx(-back.mean, abs=1e-6)
    assert there.p == pytest.approx(back.p, abs=0.05)
    assert 0 < there.p <= 1


def test_a_run_is_a_group_of_one(own_run: Run) -> None:
    group = open_group(own_run.path)
    (found,) = compare([group])
    assert found["last"] == dict.fromkeys(("mean", "lowest", "highest"), own_run.accuracy["last"])
    low, high = found["interval"]
    assert low <= own_run.accuracy["last"] <= high


def test_runs_without_labels_show_estimates_recommendations_and_checks(own_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(own_run.path, tmp_path / "run"))
    (found,) = compare([open_group(run.path)])
    assert found["estimated_interval"] == tuple(run.result["estimated"]["interval"])
    assert "checked" not in found
    figures = {
        "accuracy": {"adapted": 0.5, "source": 0.25},
        "interval": {"adapted": [0.25, 0.75], "source": [0, 0.5]},
        "labels": 9,
    }
    (run.path / "check.json").write_text(json.dumps(figures))
    (found,) = compare([open_group(run.path)])
    assert (found["checked"], found["checked_interval"]) == (0.5, (0.25, 0.75))
    unlabelled = {key: value for key, value in found.items() if key not in ("source_only", "last", "interval")}
    names = [column.header for column in comparison_table([unlabelled]).columns]
    assert names == ["runs", "estimated", "use", "checked"]


@pytest.mark.parametrize(("adapted", "said"), [(3, "adapted"), (0, "source"), (2, "adapted in 2 of 3")])
def test_what_seeds_recommend(adapted: int, said: str) -> None:
    assert recommended({"adapted": adapted, "seeds": [0, 1, 2]}) == said


def test_runs_that_were_tested_on_other_images_have_no_paired_test(own_run: Run, tmp_path: Path) -> None:
    other = Run(shutil.copytree(own_run.path, tmp_path / "run"))
    assert "difference" in compare([open_group(own_run.path), open_group(other.path)])[1]
    environment = json.loads((other.path / "environment.json").read_text())
    environment["data"]["target_test images"] = "others"
    (other.path / "environment.json").write_text(json.dumps(environment))
    recipe = other.path / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('target_test = "', 'target_test = "/elsewhere'))
    assert "difference" not in compare([open_group(own_run.path), open_group(other.path)])[1]


def test_a_run_of_another_recipe_is_no_seed(own_run: Run, tmp_path: Path) -> None:
    group, recipe = tmp_path / "group", own_run.recipe
    shutil.copytree(own_run.path, group / f"seed-{recipe.seed}")
    (group / "seeds.json").write_text(
        json.dumps({"format": 2, "seeds": [recipe.seed], "data_root": "", "device": "cpu", "precision": "fp32"})
    )
    (group / "seeds.toml").write_text(recipe.to_toml())
    assert len(open_group(group).runs) == 1
    training = recipe.training.model_copy(update={"steps": recipe.training.steps + 1})
    (group / "seeds.toml").write_text(recipe.model_copy(update={"training": training}).to_toml())
    with pytest.raises(UserError, match=r"is not the run that .* has begun there"):
        open_group(group)


def test_runs_of_other_classes_are_not_compared(own_run: Run) -> None:
    other = Run(own_run.path)
    other.result = own_run.result | {"classes": ["cat", "dog"]}
    with pytest.raises(UserError, match="different classes"):
        compare([Group(own_run.path, (own_run,)), Group(Path("other"), (other,))])
