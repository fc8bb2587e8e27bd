"""What is compared when a run goes on."""

from pathlib import Path

import pytest
import torch

from tests.conftest import domain
from uda import UserError
from uda.data.domain import LabelledDomain, Pair
from uda.recipe.load import load_recipe
from uda.runs.environment import Environment, compare, data_digests, describe_environment, files_digests
from uda.runtime import Runtime


@pytest.fixture
def began(small_pair: Pair, fp32: Runtime) -> Environment:
    return Environment(format=2, **describe_environment(load_recipe("svhn2mnist"), small_pair, fp32, "", True))


def test_the_same_again_says_nothing(began: Environment) -> None:
    assert compare(Path("run"), began, began.model_copy()) == []


def test_all_that_may_round_differently_is_said(began: Environment) -> None:
    other = {"versions": began.versions | {"torch": "0.1"}, "threads": 77, "readers": 78, "machine": "abacus"}
    said = compare(Path("run"), began, began.model_copy(update=other))
    assert [line.partition(":")[0] for line in said] == ["torch", "machine", "threads", "processes that read images"]
    assert said[0].endswith(f"{began.versions['torch']} when the run began, 0.1 now")


def test_classes_of_other_names_are_other_labels() -> None:
    first = domain("d", 8, 0)
    second = LabelledDomain(first.name, first.images, first.classes[::-1], first.note, first.labels)
    here, there = (data_digests(Pair(one, one, one, None)) for one in (first, second))
    assert here["source images"] == there["source images"]
    assert here["source labels"] != there["source labels"]


@pytest.mark.parametrize("what", ["source images", "source_test labels", "target images", "target_test images"])
def test_other_data_is_refused(what: str, began: Environment) -> None:
    other = began.model_copy(update={"data": began.data | {what: "other"}})
    with pytest.raises(UserError, match=f"its {what.replace('_', ' ')} have changed"):
        compare(Path("run"), began, other)


def test_data_that_no_digest_is_left_of_and_data_that_came_in_addition_are_others(began: Environment) -> None:
    for before, now in (({}, began.data), (began.data, began.data | {"target_unknown images": "new"})):
        with pytest.raises(UserError, match="have changed; put the old data back, or delete run and fit anew"):
            compare(Path("run"), began.model_copy(update={"data": before}), began.model_copy(update={"data": now}))


def test_own_code_that_has_changed_is_said(began: Environment, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("a = 1")
    recipe = load_recipe("svhn2mnist")
    recipe = recipe.model_copy(
        update={"classifier": recipe.classifier.model_copy(update={"backbone": f"{tmp_path}/nets.py:Net"})}
    )
    before = files_digests(recipe)
    (tmp_path / "nets.py").write_text("a = 2")
    (line,) = compare(
        Path("run"), began.model_copy(update={"files": before}), began.model_copy(update={"files": files_digests(recipe)})
    )
    assert line == "the file of classifier.backbone is another than when the run began"


def test_code_that_is_gone_is_left_to_what_needs_it(began: Environment) -> None:
    assert compare(Path("run"), began.model_copy(update={"files": {"classifier.backbone": "a digest"}}), began) == []


def test_pixels_count(small_pair: Pair) -> None:
    assert isinstance(small_pair.target.images, torch.Tensor)
    painted = LabelledDomain("d", small_pair.target.images.clone(), small_pair.target.classes, "", domain("d", 96, 2).labels)
    before = data_digests(Pair(painted, painted, painted, None))
    painted.images[5, 0, 0, 0] ^= 1
    assert data_digests(Pair(painted, painted, painted, None))["target images"] != before["target images"]
