"""Images of no known class: which look like it, and how well that is told."""

import pytest
import torch

from uda.evaluation.unknown import FEWEST, doubt, looks_unknown, named, open_set

SURE, TORN, LOST = [9.0, 0, 0, 0], [9.0, 9.0, 0, 0], [0.0, 0, 0, 0]


def test_doubt_is_a_share_of_the_highest_entropy():
    assert doubt(torch.tensor([SURE, TORN, LOST])).tolist() == pytest.approx([0, 0.5, 1], abs=0.01)


def test_what_is_lost_between_more_than_half_of_the_classes_looks_unknown():
    assert looks_unknown(torch.tensor([SURE, [9.0, 8.0, 0, 0], [9.0, 9.0, 9.0, 0], LOST])).tolist() == [False, False, True, True]


def test_all_images_count_as_named_where_too_few_are():
    logits = torch.tensor([SURE] * FEWEST + [LOST])
    assert named(logits).tolist() == [True] * FEWEST + [False]
    assert named(logits[1:]).all()


def test_figures_by_hand():
    """Of four known images two are right, one is wrong, one is right and left out; of three unknown ones one is found."""
    known, labels = torch.tensor([SURE, SURE, SURE, [0.1, 0, 0, 0]]), torch.tensor([0, 0, 1, 0])
    told = open_set(known, labels, torch.tensor([SURE, SURE, LOST]))
    assert told == {"known": 0.5, "unknown": pytest.approx(1 / 3), "harmonic_mean": pytest.approx(0.4), "images": 3}


def test_where_nothing_is_told_the_mean_is_nothing():
    told = open_set(torch.tensor([SURE]), torch.tensor([1]), torch.tensor([SURE]))
    assert told["harmonic_mean"] == 0
