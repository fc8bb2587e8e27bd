"""The plainest figures of logits and labels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uda.evaluation.outputs import Outputs, accuracy, confusion, per_class_accuracy


def test_confusion_has_true_classes_in_rows() -> None:
    logits = torch.eye(3)[[1, 1, 0]]
    assert confusion(logits, torch.tensor([0, 0, 1])).tolist() == [[0, 2, 0], [1, 0, 0], [0, 0, 0]]


def test_per_class_accuracy_is_none_for_a_class_without_images() -> None:
    assert per_class_accuracy(torch.tensor([[3, 1], [0, 0]])) == [0.75, None]


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 100))
def test_a_confusion_matrix_holds_every_image_and_its_diagonal_the_right_ones(count: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, labels = torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)
    matrix = confusion(logits, labels)
    assert int(matrix.sum()) == count
    assert torch.equal(matrix.sum(1), labels.bincount(minlength=classes))
    assert accuracy(logits, labels) == pytest.approx(int(matrix.diagonal().sum()) / count)


WHOLE = {
    "target_features": torch.ones(2, 3), "target_logits": torch.ones(2, 4), "source_features": torch.ones(2, 3),
    "source_logits": torch.ones(2, 4), "source_labels": torch.tensor([0, 3]),
}  # fmt: skip


def test_outputs_of_a_classifier_are_good() -> None:
    Outputs(**WHOLE).check()


@pytest.mark.parametrize(
    "wrong",
    [
        {"target_features": torch.tensor([[1, 2, float("nan")]] * 2)},
        {"target_logits": torch.full((2, 4), float("inf"))},
        {"target_logits": torch.ones(2, 4, dtype=torch.int64)},
        {"target_features": torch.ones(0, 3), "target_logits": torch.ones(0, 4)},
        {"source_features": torch.ones(2, 5)},
        {"source_labels": torch.tensor([0, 4])},
        {"source_labels": torch.tensor([-1, 0])},
        {"source_labels": torch.tensor([0.0, 1.0])},
        {"unknown_logits": torch.full((1, 4), float("nan"))},
    ],
)
def test_outputs_that_no_classifier_gives_are_refused(wrong: dict[str, torch.Tensor]) -> None:
    outputs = Outputs(**(WHOLE | wrong))
    with pytest.raises(ValueError, match="|".join(wrong)):
        outputs.check()


def test_features_beyond_half_precision_are_kept_finite() -> None:
    outputs = Outputs(torch.tensor([[1e6, -1e6]]), torch.ones(1, 4)).kept()
    outputs.check()
    assert outputs.target_features.tolist() == [[65504.0, -65504.0]]


def test_what_is_kept_has_features_in_half_precision_and_logits_in_full() -> None:
    outputs = Outputs(torch.ones(2, 3), torch.ones(2, 4), test_logits=torch.eye(4)[:2], test_labels=torch.tensor([0, 3]))
    kept = outputs.kept()
    assert {name: value.dtype for name, value in vars(kept).items() if value is not None} == {
        "target_features": torch.float16, "target_logits": torch.float32, "test_logits": torch.float32, "test_labels": torch.int64
    }  # fmt: skip
    assert kept.test_accuracy == outputs.test_accuracy == 0.5
