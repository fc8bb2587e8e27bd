"""Label-free scores: values by hand, ranges, directions, and what each cannot see."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from uda.evaluation import selection
from uda.evaluation.outputs import Outputs
from uda.evaluation.selection import OF_SHARES, OF_SOURCE, OF_TARGET, SCORES, best, label_free, mean_ranks

K = 4


def outputs_of(sure: float = 6.0, seed: int = 0, features_follow: bool = True) -> Outputs:
    """Logits of 120 + 120 images of four even classes; features are noisy copies of the logits, or noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(120) % K
    logits = F.one_hot(labels, K).float() * sure + torch.randn(120, K, generator=generator)
    features = logits + 0.1 * torch.randn(120, K, generator=generator)
    if not features_follow:
        features = torch.randn(120, K, generator=generator)
    return Outputs(features, logits, features.flip(0), logits.flip(0), labels.flip(0))


@pytest.fixture
def collapsed() -> Outputs:
    """All images sure of class 0."""
    good = outputs_of()
    logits = torch.zeros(120, K) + torch.tensor([9.0, 0, 0, 0])
    return Outputs(good.target_features, logits, good.source_features, logits, good.source_labels)


@pytest.mark.parametrize("name", SCORES)
def test_every_score_prefers_a_good_classifier_to_an_unsure_one(name):
    assert SCORES[name](outputs_of(6.0)) > SCORES[name](outputs_of(1.0, features_follow=False))


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"entropy", "soft_neighbourhood_density", "neighbour_precision"}))
def test_a_collapse_onto_one_class_is_told(name, collapsed):
    assert SCORES[name](outputs_of()) > SCORES[name](collapsed)


@pytest.mark.parametrize("name", ["entropy", "soft_neighbourhood_density", "neighbour_precision"])
def test_scores_that_a_collapse_deceives(name, collapsed):
    """Known faults of these scores, which their docstrings name."""
    assert SCORES[name](collapsed) >= SCORES[name](outputs_of()) - 1e-6


def test_target_scores_do_not_read_the_source():
    outputs = outputs_of()
    blind = Outputs(outputs.target_features, outputs.target_logits)
    for name, score in OF_TARGET.items():
        assert score(blind) == score(outputs), name


@given(st.floats(0.1, 20), st.integers(0, 50))
def test_ranges(sure, seed):
    outputs = outputs_of(sure, seed)
    logits = outputs.target_logits
    assert 0 <= selection.entropy(logits) <= math.log(K) + 1e-5
    assert 0 <= selection.diversity(logits) <= math.log(K) + 1e-5
    assert -1e-5 <= selection.information_maximization(logits) <= math.log(K) + 1e-5
    assert 0 <= selection.batch_nuclear_norm(logits) <= 1 + 1e-5
    assert 0 <= selection.soft_neighbourhood_density(logits) <= math.log(119) + 1e-5
    assert 0 <= selection.neighbour_precision(outputs.target_features, logits) <= 1
    assert 0 <= selection.source_accuracy(outputs.source_logits, outputs.source_labels) <= 1


def test_sure_and_even_predictions_reach_the_bounds():
    logits = F.one_hot(torch.arange(120) % K, K).float() * 200
    assert selection.entropy(logits) == pytest.approx(0, abs=1e-6)
    assert selection.information_maximization(logits) == pytest.approx(math.log(K))
    assert selection.batch_nuclear_norm(logits) == pytest.approx(1)
    assert selection.soft_neighbourhood_density(logits) == pytest.approx(math.log(29), abs=1e-3)  # 29 others of its class
    assert selection.class_cluster_agreement(logits, logits) == pytest.approx(1)
    assert selection.neighbour_precision(logits, logits) == pytest.approx(1)


def test_density_ratio_finds_the_images_that_look_like_the_target():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(400, 3, generator=generator)
    target = torch.randn(400, 3, generator=generator) + torch.tensor([1.5, 0, 0])
    ratio = selection.density_ratio(source, target)
    true = torch.exp(1.5 * source[:, 0] - 1.5**2 / 2).double()  # of two normal densities
    assert ratio.mean() == pytest.approx(1, abs=0.35)
    assert torch.stack([ratio.log(), true.log()]).corrcoef()[0, 1] > 0.95


def test_weights_of_one_leave_the_source_risk():
    loss, one = torch.rand(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
    assert selection.importance_weighted_validation(loss, one) == pytest.approx(float(loss.mean()))
    assert selection.deep_embedded_validation(loss, one) == pytest.approx(float(loss.mean()))


def test_the_control_variate_lowers_the_variance():
    generator = torch.Generator().manual_seed(0)
    plain, corrected = [], []
    for _ in range(300):
        weight = torch.rand(60, generator=generator, dtype=torch.float64) * 2
        loss = 0.5 + 0.1 * torch.rand(60, generator=generator, dtype=torch.float64)
        plain.append(selection.importance_weighted_validation(loss, weight))
        corrected.append(selection.deep_embedded_validation(loss, weight))
    assert torch.tensor(corrected).var() < torch.tensor(plain).var() / 4
    assert float(torch.tensor(corrected).mean()) == pytest.approx(float(torch.tensor(plain).mean()), abs=0.02)


def test_rank_average():
    scores = [{"a": 1.0, "b": 5.0}, {"a": 3.0, "b": 4.0}, {"a": 2.0, "b": 4.0}]
    assert mean_ranks(scores) == [1.0, 1.25, 0.75]
    assert best(scores) == 1


def test_one_score_chooses_its_highest_value_and_the_first_of_equals():
    assert best([{"a": 1.0}, {"a": 2.0}, {"a": 2.0}]) == 1


def test_evaluations_with_other_scores_are_refused():
    with pytest.raises(ValueError, match="different scores"):
        mean_ranks([{"a": 1.0}, {"b": 1.0}])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12))
def test_ranks_are_a_permutation_up_to_ties(values):
    ranks = mean_ranks([{"a": float(value)} for value in values])
    assert sum(ranks) == pytest.approx(len(values) * (len(values) - 1) / 2)
    assert all((ranks[i] < ranks[j]) == (values[i] < values[j]) for i in range(len(values)) for j in range(len(values)))


def test_every_score_is_in_one_group():
    assert not OF_TARGET.keys() & OF_SOURCE.keys()


@pytest.mark.parametrize("name", OF_SHARES)
def test_where_shares_are_expected_predictions_that_have_them_score_higher_than_even_ones(name: str) -> None:
    shares = torch.tensor([0.7, 0.2, 0.1])
    uneven, even = (
        Outputs(torch.zeros(100, 1), 9 * torch.eye(3)[torch.repeat_interleave(torch.arange(3), torch.tensor(counts))])
        for counts in ([70, 20, 10], [34, 33, 33])
    )
    assert label_free([name], uneven, shares)[name] > label_free([name], even, shares)[name]
    assert label_free([name], uneven)[name] < label_free([name], even)[name]


def test_other_scores_are_as_without_shares() -> None:
    outputs = outputs_of()
    assert label_free(["entropy", "source_accuracy"], outputs, torch.full((K,), 1 / K)) == {
        name: SCORES[name](outputs) for name in ("entropy", "source_accuracy")
    }
