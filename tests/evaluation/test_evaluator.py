"""What a classifier says of both domains, on which images, and without a trace."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.conftest import small_classifier
from uda.data.domain import Pair
from uda.evaluation.evaluator import Evaluator, on_labelled, predict
from uda.evaluation.outputs import accuracy, confusion
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


@pytest.fixture
def unlabelled(small_pair: Pair) -> Pair:
    """What a user has: a target without labels, and none to test on."""
    return replace(small_pair, target=small_pair.target.without_labels(), target_test=None)


def test_accuracy_and_confusion_of_a_known_classifier(small_pair: Pair, fp32: Runtime) -> None:
    oracle = Oracle(small_pair)
    assert Evaluator(small_pair, fp32).target_accuracy(oracle) == 1.0
    matrix = confusion(*on_labelled(oracle, small_pair.target_test, fp32))
    assert torch.equal(matrix, torch.diag(small_pair.target_test.labels.bincount(minlength=10)))


def test_outputs_are_of_the_samples_that_the_domains_give(small_pair: Pair, fp32: Runtime) -> None:
    classifier = small_classifier()
    outputs = Evaluator(small_pair, fp32).outputs(classifier)
    assert torch.equal(outputs.target_logits, predict(classifier, small_pair.target.sample(), fp32))
    logits, labels = outputs.source
    assert torch.equal(logits, predict(classifier, small_pair.source_test.sample(), fp32))
    assert torch.equal(labels, small_pair.source_test.sample_labels())
    assert torch.allclose(classifier.head(outputs.target_features), outputs.target_logits)


def test_the_two_accuracies_are_those_of_all_test_images(small_pair: Pair, fp32: Runtime) -> None:
    classifier, evaluator = small_classifier(), Evaluator(small_pair, fp32)
    for found, domain in (
        (evaluator.source_accuracy(classifier), small_pair.source_test),
        (evaluator.target_accuracy(classifier), small_pair.target_test),
    ):
        assert found == accuracy(predict(classifier, domain.images, fp32), domain.labels)
    assert evaluator.outputs(classifier).test_accuracy == evaluator.target_accuracy(classifier)


def test_what_is_not_to_be_read_is_not_there(small_pair: Pair, fp32: Runtime) -> None:
    outputs = Evaluator(small_pair, fp32).outputs(small_classifier(), source=False, test=False)
    assert {name for name, value in vars(outputs).items() if value is not None} == {"target_features", "target_logits"}
    assert (outputs.test, outputs.test_accuracy) == (None, None)


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


def test_without_target_labels_there_is_no_accuracy(unlabelled: Pair, fp32: Runtime) -> None:
    evaluator = Evaluator(unlabelled, fp32)
    assert evaluator.target_accuracy(small_classifier()) is None
    assert evaluator.outputs(small_classifier()).test is None


def test_examples_are_the_most_confident_mistakes(small_pair: Pair, fp32: Runtime) -> None:
    evaluator = Evaluator(small_pair, fp32)
    outputs = evaluator.outputs(small_classifier())
    images, labels, predicted, confidence = evaluator.examples(outputs, count=5)
    assert (predicted != labels).all()
    assert confidence.tolist() == sorted(confidence.tolist(), reverse=True)
    logits, truth = outputs.test
    wrong = logits.argmax(1) != truth
    assert confidence[0] == logits.softmax(1).amax(1)[wrong].max()
    *_, cooler = evaluator.examples(outputs, count=5, temperature=2.0)
    assert cooler[0] == (logits / 2).softmax(1).amax(1)[wrong].max()
    assert torch.equal(predict(small_classifier(), images, fp32).argmax(1), predicted)


def test_a_classifier_without_mistakes_has_no_examples(small_pair: Pair, fp32: Runtime) -> None:
    evaluator, labels = Evaluator(small_pair, fp32), small_pair.target_test.labels
    outputs = evaluator.outputs(small_classifier())
    right = replace(outputs, test_logits=nn.functional.one_hot(labels, 10).float(), test_labels=labels)
    assert [len(part) for part in evaluator.examples(right)] == [0, 0, 0, 0]


def test_examples_without_labels_are_the_least_certain(unlabelled: Pair, fp32: Runtime) -> None:
    evaluator = Evaluator(unlabelled, fp32)
    outputs = evaluator.outputs(small_classifier())
    images, labels, _, confidence = evaluator.examples(outputs, count=5)
    assert (labels == -1).all()
    assert torch.equal(confidence, outputs.target_logits.softmax(1).amax(1).sort().values[:5])
    *_, cooler = evaluator.examples(outputs, count=5, temperature=2.0)
    assert torch.equal(cooler, (outputs.target_logits / 2).softmax(1).amax(1).sort().values[:5])
    assert torch.allclose(predict(small_classifier(), images, fp32).softmax(1).amax(1), confidence, atol=1e-6)
