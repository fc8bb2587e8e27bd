"""The study of estimates: its shifts, and what is kept of its runs."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from tests.conftest import CHECKOUT
from uda.evaluation.study import LIKELY, TABLE, read_rows
from uda.evaluation.witnesses import COLUMNS, OF_RUN

BENCH = CHECKOUT / "benchmarks" / "trust.py"
spec = importlib.util.spec_from_file_location("trust", BENCH)  # benches are no package, and some have names of other modules
assert spec is not None
assert spec.loader is not None
trust = sys.modules["trust"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trust)


def test_trees_as_tensors_say_what_scikit_learn_says() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) + (x[:, 1] * x[:, 2] > 0.3)
    boosted = HistGradientBoostingClassifier(max_iter=7, max_leaf_nodes=5, early_stopping=False, random_state=0).fit(x, y)
    told = trust.as_trees(boosted)(torch.from_numpy(x))
    assert np.allclose(told.numpy(), boosted.predict_proba(x), atol=1e-5)


def test_evidence_comes_back_within_a_step_of_its_column(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    runs = [
        trust.Evidence(
            {"run": name, "pair": "a b"} | dict.fromkeys(OF_RUN, 0.5),
            random.normal(size=(count, len(COLUMNS))).astype(np.float32),
            random.integers(3, size=count).astype(np.uint8),
        )
        for name, count in (("first", 5), ("second", 3))
    ]
    trust.keep_evidence(runs, tmp_path / "evidence.npz")
    back = trust.read_evidence(tmp_path / "evidence.npz")
    step = np.ptp(np.concatenate([run.images for run in runs]), axis=0) / 255
    for run in runs:
        assert back[run.row["run"]].row == run.row
        assert (abs(back[run.row["run"]].images - run.images) <= step / 2 + 1e-5).all()
        assert (back[run.row["run"]].outcomes == run.outcomes).all()


def test_the_shipped_table_is_of_the_runs_whose_evidence_is_kept() -> None:
    kept = trust.read_evidence(BENCH.with_name("evidence.npz"))
    rows = read_rows(TABLE)
    assert [row["run"] for row in rows] == list(kept)
    for row, run in zip(rows, kept.values(), strict=True):
        assert {name: value for name, value in row.items() if name not in LIKELY} == {k: str(v) for k, v in run.row.items()}


def test_ninety_of_a_hundred_shipped_intervals_cover_on_targets_that_are_left_out() -> None:
    rows = read_rows(TABLE)
    verdicts = trust.judged(rows, trust.KIN[trust.TARGETS])
    truth = trust.column(rows, "true_after")
    covered = [low <= true <= high for true, (low, high) in zip(truth, (verdict.interval for verdict in verdicts), strict=True)]
    assert 0.88 <= np.mean(covered) <= 0.96


def test_shifts_have_names_of_their_own_and_three_methods_each() -> None:
    shifts = trust.all_shifts()
    assert len({shift.name for shift in shifts}) == len(shifts)
    assert all(len(set(trust.methods_of(shift))) == trust.EACH for shift in shifts)


@pytest.mark.parametrize("change", sorted(trust.CORRUPTIONS))
def test_a_corruption_changes_images_of_any_side_and_not_their_form(change: str) -> None:
    for side in (32, 256):
        images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        before = images.clone()
        corrupted = trust.CORRUPTIONS[change](images)
        assert (corrupted.shape, corrupted.dtype) == (images.shape, images.dtype)
        assert not torch.equal(corrupted, images)
        assert torch.equal(images, before)


def test_a_target_lacks_three_tenths_of_its_classes_or_has_them_in_shares_from_36_to_1() -> None:
    labels = torch.arange(10).repeat(1000)
    generator = torch.Generator().manual_seed(0)
    lacking = torch.bincount(labels[trust.chosen(labels, "lacks", generator, 10)], minlength=10)
    assert (lacking > 0).sum() == 7
    uneven = torch.bincount(labels[trust.chosen(labels, "uneven", generator, 10)], minlength=10)
    assert uneven.max() / uneven.min() == pytest.approx(36, rel=0.05)
    assert len(trust.chosen(labels, 50, generator, 10)) == 50
