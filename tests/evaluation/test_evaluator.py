from dataclasses import replace

import pytest
import torch
from torch import nn

from uda.data.domain import Pair
from uda.evaluation.evaluator import Evaluator, confusion, per_class_accuracy, predict
from uda.evaluation.selection import information_maximization
from uda.models import build_classifier
from uda.runtime import Runtime, evaluating


class Oracle(nn.Module):
    """Knows the right answer of each test image; `Dropout` shows whether evaluation mode was on."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self.images, self.labels = pair.target_test.images, pair.target_test.labels
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = ((images + 1) * 127.5).round().byte()
        found = [(self.images == image).flatten(1).all(1).nonzero()[0, 0] for image in pixels]
        return self.dropout(nn.functional.one_hot(self.labels[torch.stack(found)], 10).float())


def test_accuracy_and_confusion_of_a_known_classifier(small_pair: Pair, fp32: Runtime) -> None:
    evaluator, oracle = Evaluator(small_pair, fp32), Oracle(small_pair)
    answers = evaluator.on_target(oracle)
    assert answers is not None
    assert answers.accuracy == 1.0
    assert torch.equal(answers.confusion, torch.diag(small_pair.target_test.labels.bincount(minlength=10)))


def test_confusion_has_true_classes_in_rows() -> None:
    matrix = confusion(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 1]), 3)
    assert matrix.tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_per_class_accuracy_is_none_for_a_class_without_images() -> None:
    assert per_class_accuracy(torch.tensor([[3, 1], [0, 0]])) == [0.75, None]


def test_evaluation_restores_each_mode_and_draws_nothing(small_pair: Pair, fp32: Runtime) -> None:
    network = build_classifier("unit", 3, 16, 10, width=4).train()
    network.backbone.trunk.eval()  # a user may have frozen a part
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    images = small_pair.target.images
    first = predict(network, images, fp32)
    second = torch.cat([predict(network, part, fp32) for part in images.split(7)])
    assert torch.allclose(first, second, atol=1e-5)
    assert modes == [module.training for module in network.modules()]
    assert torch.equal(state, torch.get_rng_state())


def test_modes_are_restored_after_an_error() -> None:
    module = nn.Dropout().train()
    with pytest.raises(ZeroDivisionError), evaluating(module):
        1 / 0  # noqa: B018
    assert module.training


def test_without_target_labels_there_is_no_accuracy(small_pair: Pair, fp32: Runtime) -> None:
    evaluator = Evaluator(replace(small_pair, target=small_pair.target.without_labels(), target_test=None), fp32)
    assert evaluator.on_target(Oracle(small_pair)) is None


def test_information_maximization_prefers_sure_and_even_predictions() -> None:
    sure_and_even = torch.eye(10) * 50
    assert information_maximization(sure_and_even) == pytest.approx(torch.tensor(10.0).log().item(), abs=1e-3)
    assert information_maximization(sure_and_even[:1].expand(10, 10)) == pytest.approx(0, abs=1e-3)
    assert information_maximization(torch.zeros(10, 10)) == pytest.approx(0, abs=1e-3)
