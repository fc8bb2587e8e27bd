"""`uda.Adapter` among scikit-learn's estimators."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.conftest import NETS, SHORT
from tests.models.nets import SmallResNet
from uda import Adapter
from uda.data.domain import Pair
from uda.evaluation.study import Verdict
from uda.runs.run import Run

FAST = SHORT | {"classifier.steps": 3, "classifier.width": 8, "data.channels": 1}


def adapter(**settings: Any) -> Adapter:
    return Adapter(**{"settings": FAST, "device": "cpu", "precision": "fp32"} | settings)


def arrays(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert isinstance(pair.source.images, torch.Tensor)
    assert isinstance(pair.target.images, torch.Tensor)
    return pair.source.images.numpy(), pair.source.labels.numpy(), pair.target.images.numpy()


# These checks fit a table of numbers, (N, features). Here X holds images, (N, H, W) or with channels, and all of them stop at
# "X has shape (30, 3)". What they are about (labels, pickling, random state, wrong input) is tested below with images. These are
# the 29 tests that pytest reports as xfailed, some checks in several forms: no test of our own is marked so.
TABLES_ONLY = (
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_empty_data_messages",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_supervised_y_2d",
)


@parametrize_with_checks(
    [Adapter()], expected_failed_checks=lambda _: dict.fromkeys(TABLES_ONLY, "X must hold images, not a table")
)
def test_scikit_learns_own_checks(estimator: Adapter, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", [str, bool, float])
def test_labels_come_back_as_they_were_given(small_pair: Pair, kind: type) -> None:
    source, labels, target = arrays(small_pair)
    names = np.array([f"digit {label}" for label in labels]) if kind is str else (labels % 2).astype(kind)
    fitted = adapter().fit(source, names, target)
    assert fitted.classes_.tolist() == sorted(set(names.tolist()))
    predicted = fitted.predict(target[:5])
    assert predicted.dtype == names.dtype
    assert set(predicted.tolist()) <= set(names.tolist())
    assert fitted.score(source[:20], names[:20]) == np.mean(fitted.predict(source[:20]) == names[:20])


def test_probabilities_are_those_of_the_classifier(small_pair: Pair) -> None:
    source, labels, target = arrays(small_pair)
    fitted = adapter(settings=FAST | {"data.channels": 3}).fit(source, labels, target)
    probabilities = fitted.predict_proba(target)
    assert probabilities.shape == (96, 10)
    assert np.allclose(probabilities.sum(1), 1)
    logits = fitted.classifier_(torch.from_numpy(target).float() / 127.5 - 1)
    expected = (logits / fitted.temperature_).softmax(1).detach().numpy()
    assert np.allclose(probabilities, expected, atol=1e-4)


def test_layouts_and_value_ranges_mean_the_same_images(small_pair: Pair) -> None:
    source, labels, target = arrays(small_pair)
    fitted = adapter(settings=FAST | {"data.channels": 3}).fit(source.transpose(0, 2, 3, 1), labels, target / 255)
    assert np.allclose(fitted.predict_proba(target), fitted.predict_proba(target.transpose(0, 2, 3, 1) / 255), atol=1e-6)
    assert np.allclose(fitted.predict_proba(target), fitted.predict_proba(torch.from_numpy(target)), atol=1e-6)


def test_folders_in_place_of_arrays(folders: Path) -> None:
    fitted = adapter(backbone=f"{NETS}:SmallResNet", settings=SHORT | {"classifier.steps": 2, "data.channels": 1})
    fitted.fit(folders / "source", X_target=folders / "target")
    assert fitted.classes_.tolist() == list("0123456789")
    assert len(fitted.predict(folders / "target")) == 96
    assert 0 <= fitted.score(folders / "test", [path.parent.name for path in sorted((folders / "test").glob("*/*.png"))]) <= 1


def test_a_pickled_adapter_predicts_the_same(small_pair: Pair) -> None:
    source, labels, target = arrays(small_pair)
    fitted = adapter().fit(source, labels, target)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(target), fitted.predict_proba(target))


def test_clone_forgets_what_was_fitted(small_pair: Pair) -> None:
    source, labels, target = arrays(small_pair)
    fitted = adapter(random_state=3).fit(source, labels, target)
    other = clone(fitted)
    assert other.get_params() == fitted.get_params()
    assert not hasattr(other, "classes_")


def test_a_module_that_comes_trained_is_left_as_it_is(small_pair: Pair, tmp_path: Path) -> None:
    source, labels, target = arrays(small_pair)
    network = SmallResNet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    settings = {name: value for name, value in FAST.items() if name not in ("classifier.width", "classifier.steps")}
    fitted = adapter(backbone=network, trained=True, settings=settings, out=str(tmp_path / "run")).fit(source, labels, target)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (tmp_path / "run" / "result.json").exists()
    assert (tmp_path / "run" / "weights" / "refined.safetensors").exists()
    assert fitted.predict(target).shape == (96,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y, t: (s, y, None), "no target images"),
        (lambda s, y, t: (s, None, t), "requires y"),
        (lambda s, y, t: (s, y[:-1], t), "96 images but 95 labels"),
        (lambda s, y, t: (s, np.zeros_like(y), t), "holds one class"),
        (lambda s, y, t: (s.reshape(96, -1), y, t), r"X has shape \(96, 768\)"),
        (lambda s, y, t: (s, y, t.astype(float)), r"float images must lie in 0\.\.1"),
        (lambda s, y, t: (s, y, t.astype(np.int64)), "it must be uint8"),
    ],
)
def test_wrong_input_is_a_value_error(small_pair: Pair, change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter().fit(*change(*arrays(small_pair)))


def test_scikit_learns_random_states_are_taken(small_pair: Pair) -> None:
    seeds = [adapter(random_state=state)._seed() for state in (7, np.random.RandomState(0), np.random.RandomState(0))]
    assert (seeds[0], seeds[1] == seeds[2]) == (7, True)
    with pytest.raises(ValueError, match="seed"):
        adapter(random_state=1.7)._seed()


def test_a_fit_that_fails_leaves_what_was_fitted(small_pair: Pair) -> None:
    source, labels, target = arrays(small_pair)
    fitted = adapter().fit(source, labels, target)
    before = fitted.predict(target)
    with pytest.raises(ValueError, match="no target images"):
        fitted.fit(source, labels.astype(str), None)
    with pytest.raises(ValueError, match=r"data\.classes is for images on disk"):
        adapter(settings={"data.classes": ["a", "b"]}).fit(source, labels, target)
    assert np.array_equal(fitted.predict(target), before)


def test_settings_that_are_no_dict_are_a_value_error(small_pair: Pair) -> None:
    with pytest.raises(ValueError, match="settings is list; give a dict"):
        Adapter("dann", settings=["a"]).fit(*arrays(small_pair))  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["last", "selected", "source"])
def test_the_classifier_that_is_asked_for_predicts(small_pair: Pair, tmp_path: Path, which: str) -> None:
    source, labels, target = arrays(small_pair)
    fitted = adapter(which=which, out=str(tmp_path / "run")).fit(source, labels, target)
    run = Run(tmp_path / "run", device="cpu")
    images = torch.from_numpy(target).float().mean(1, keepdim=True) / 127.5 - 1
    with torch.no_grad():
        assert torch.allclose(fitted.classifier_(images), run.load_classifier(which)(images), atol=1e-5)
    assert fitted.temperature_ == run.temperature(which)


@pytest.mark.parametrize(("recommended", "taken"), [("source", "source"), ("adapted", "last")])
def test_the_recommended_classifier_is_the_default(
    small_pair: Pair, recommended: str, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Verdict, "recommended", property(lambda _: recommended))
    assert adapter().fit(*arrays(small_pair)).which_ == taken


def test_a_classifier_that_there_is_not_is_said_before_anything_is_trained(small_pair: Pair) -> None:
    with pytest.raises(ValueError, match="unknown classifier 'adapt'"):
        adapter(which="adapt").fit(*arrays(small_pair))
