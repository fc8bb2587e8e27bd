"""What a study of runs says of another run."""

import csv

import numpy as np
import pytest

from uda.evaluation.study import LIKELY, TABLE, Spread, Study, Verdict, read_rows, shipped

RUNS, PAIRS, TARGETS = 200, 20, 10
HARM = {"likely_before": 0.7, "likely_after": 0.6, "agreement": 0.6, "all_agree": 0.7, "log_images": 12.0}
"""what is told of a run that loses"""


def drawn(seed: int, count: int) -> list[dict[str, float | str]]:
    """Runs whose accuracies are what is likely, but for noise and what their target adds to it."""
    random = np.random.default_rng(seed)
    targets = random.normal(0, 0.05, TARGETS)
    rows: list[dict[str, float | str]] = []
    for number in range(count):
        pair = number % PAIRS
        likely, moved = random.uniform(0.3, 0.9), random.uniform(-0.2, 0.2)
        before = float(np.clip(likely + targets[pair % TARGETS] + random.normal(0, 0.02), 0.01, 0.99))
        after = float(np.clip(before + moved + random.normal(0, 0.01), 0.01, 0.99))
        rows.append(
            {"run": f"{number}", "pair": f"s{pair} t{pair % TARGETS}", "aside": 1, "true_before": before, "true_after": after}
            | {"likely_before": likely, "likely_after": likely + moved, "agreement": 0.6, "all_agree": likely, "log_images": 12.0}
        )
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path = tmp_path_factory.mktemp("study") / "study.csv"
    rows = drawn(0, RUNS)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return Study(read_rows(path))


def test_new_runs_are_told_as_well_as_the_noise_allows_and_their_intervals_cover(study: Study) -> None:
    rows = drawn(1, RUNS)
    verdicts = [study.judge({k: float(v) for k, v in row.items() if k in (*study.names, *LIKELY)}) for row in rows]
    before, after = (np.array([row[name] for row in rows], dtype=float) for name in ("true_before", "true_after"))
    assert np.mean([abs(v.source_only - truth) for v, truth in zip(verdicts, before, strict=True)]) < 0.06
    for truth, intervals in ((before, [v.source_only_interval for v in verdicts]), (after, [v.interval for v in verdicts])):
        covered = np.mean([low <= t <= high for t, (low, high) in zip(truth, intervals, strict=True)])
        assert 0.8 <= covered <= 0.99
    assert np.mean([(v.recommended == "adapted") == (a >= b) for v, a, b in zip(verdicts, after, before, strict=True)]) > 0.9
    assert not any(v.unlike for v in verdicts)
    gains = [v.gain_interval for v in verdicts]
    assert 0.8 <= np.mean([low <= gain <= high for gain, (low, high) in zip(after - before, gains, strict=True)]) <= 0.99


def test_the_gain_is_the_difference_of_the_estimates_and_its_reason_says_how_far_it_may_be_off(study: Study) -> None:
    verdict = study.judge(HARM)
    assert (verdict.accuracy, verdict.source_only) == (HARM["likely_after"], HARM["likely_before"])
    assert verdict.gain == verdict.accuracy - verdict.source_only < 0
    low, high = verdict.gain_interval
    assert low < verdict.gain < high
    assert verdict.recommended == "source"
    gain, least, best = (round(100 * share) for share in (verdict.gain, low, high))
    assert verdict.reason.endswith(f"{gain:+d} points of accuracy ({least:+d} .. {best:+d})")


def test_how_far_a_run_may_be_off_is_told_by_runs_on_other_targets() -> None:
    targets = np.array(["a"] * 50 + ["b"] * 50)
    truth, predicted = np.full(100, 0.5), np.where(targets == "a", 0.9, 0.51)
    spread = Spread(predicted, truth, np.linspace(0, 1, 100), np.full(100, 1e6), targets)
    assert spread.deviations[targets == "a"].max() < 0.1 < spread.deviations[targets == "b"].min()


def width(study: Study, found: dict[str, float]) -> float:
    low, high = study.judge(found).interval
    return high - low


def test_few_images_widen_the_interval_and_a_run_unlike_all_others_is_said_to_be(study: Study) -> None:
    usual, few, odd = HARM, HARM | {"log_images": np.log(20)}, HARM | {"agreement": 0.99}
    assert width(study, usual) < width(study, few)
    gains = [study.judge(found).gain_interval for found in (usual, few)]
    assert gains[0][1] - gains[0][0] < gains[1][1] - gains[1][0]
    assert not study.judge(usual).unlike
    assert study.judge(odd).unlike


def test_the_shipped_study_has_many_runs_of_many_pairs_and_names_each_once() -> None:
    rows = read_rows(TABLE)
    assert len(rows) >= 200
    assert len({row["pair"] for row in rows}) >= 30
    assert len({row["run"] for row in rows}) == len(rows)
    assert shipped() is shipped()


def test_where_heads_agree_on_more_images_an_interval_is_narrower() -> None:
    random = np.random.default_rng(0)
    agreed, pairs = random.uniform(0.1, 0.9, 200), np.array([f"{number % 20}" for number in range(200)])
    predicted = np.full(200, 0.5)
    truth = predicted + 0.3 * (1 - agreed) * random.choice([-1, 1], 200)
    spread = Spread(predicted, truth, agreed, np.full(200, 1e6), pairs)
    few, many = spread.widen * spread.deviation(predicted[:2], np.array([0.2, 0.8]), np.full(2, 1e6))
    assert few == pytest.approx(0.24, rel=0.35)
    assert many == pytest.approx(0.06, rel=0.35)
    assert spread.deviation(predicted[:1], np.array([0.8]), np.array([20.0])) > np.sqrt(0.25 / 20)


def test_no_more_can_be_gained_or_lost_than_adaptation_changed() -> None:
    verdict = Verdict(0.48, (0.1, 0.6), 0.5, (0.4, 0.7), (-0.4, 0.1), False)
    assert verdict.where_few_changed(0.5, 10_000) == verdict, "room enough"
    few = verdict.where_few_changed(0.05, 10**8)
    assert few.interval == pytest.approx((0.35, 0.6), abs=1e-3), "no farther from where the source classifier's may be"
    assert few.source_only_interval == pytest.approx((0.4, 0.65), abs=1e-3), "nor the other way round"
    assert few.gain_interval == pytest.approx((-0.05, 0.05), abs=1e-3)
    assert verdict.where_few_changed(0.05, 100).gain_interval[0] < -0.06, "of a hundred images so many may have changed by chance"


def test_an_interval_holds_its_estimate_though_more_was_gained_than_changed() -> None:
    odd = Verdict(0.6, (0.4, 0.7), 0.9, (0.85, 0.95), (-0.4, -0.2), False).where_few_changed(0.01, 2000)
    assert odd.interval[0] <= 0.6 <= odd.interval[1]
    assert odd.source_only_interval[0] <= 0.9 <= odd.source_only_interval[1]
    assert odd.gain_interval[0] <= odd.gain <= odd.gain_interval[1]


def test_a_gain_of_less_than_half_a_point_shows_which_classifier_it_favours() -> None:
    verdict = Verdict(0.597, (0.4, 0.7), 0.6, (0.5, 0.7), (-0.003, -0.0003), False)
    assert verdict.recommended == "source"
    assert verdict.reason.endswith("-0.3 points of accuracy (-0.3 .. +0.0)")


def test_where_nothing_changed_both_are_as_good(study: Study) -> None:
    verdict = study.judge(HARM | {"likely_after": HARM["likely_before"]}).where_few_changed(0.0, 500)
    assert (verdict.accuracy, verdict.interval) == (verdict.source_only, verdict.source_only_interval)
    assert verdict.gain_interval == (0, 0)
    assert verdict.recommended == "adapted"
    assert "is as good" in verdict.reason
