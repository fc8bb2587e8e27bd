"""Adaptation with scikit-learn's manners, on arrays or on paths."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d
from torch import nn

from uda.console import Display
from uda.data.arrays import as_pixels
from uda.data.domain import Pair
from uda.data.folders import Found, class_names, find, hold_out, in_frame, load_labelled, load_unlabelled
from uda.data.load import resolve_frame
from uda.errors import UserError
from uda.evaluation.evaluator import predict
from uda.models import GIVEN_IN_PYTHON
from uda.recipe.load import resolve
from uda.runs.build import build_method, build_networks, channels_taken, published_frame
from uda.runs.run import CLASSIFIERS
from uda.runtime import choose_runtime
from uda.training.fit import start

UNUSED = {
    f"data.{name}" for name in ("source", "target", "source_test", "target_test", "classes", "held_out", "unknown", "looked_at")
}
ArrayOrPath = Any
"""images as an array or tensor, uint8 or floats in 0..1, (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W); or a path"""


class Adapter(ClassifierMixin, BaseEstimator):
    """A classifier for target images, from labelled source images and unlabelled target images.

    Args:
        method: a method's name, such as ``"unit"``.
        backbone: ``"strided"``, ``"lenet"``, ``"unit"``, ``"timm:NAME"``, ``"torchvision:NAME"``, ``"FILE.py:FACTORY"``, or a
            torch.nn.Module, which is copied and left as it is.
        trained: whether that module is trained on the source already.
        which: the classifier to predict with, as ``--which`` of the commands: ``"recommended"`` (the adapted one or the source
            classifier, as ``recommended`` in ``result.json`` says), ``"last"`` (the adapted one), ``"selected"`` or ``"source"``.
        recipe: the recipe that all other settings come from, by name or path.
        settings: dotted keys to override in it, such as ``{"training.steps": 300}``.
        random_state: the seed, or what scikit-learn takes for one.
        device, precision: as in `uda.fit`.
        out: a run folder to keep; left out, nothing is kept on disk.
        verbose: whether to say what is going on.

    Attributes:
        classes_: the labels, as they were given, sorted.
        result_: what ``result.json`` holds.
        recipe_: the resolved recipe.
        which_: which classifier was taken: ``"last"``, ``"selected"`` or ``"source"``.
        state_: its weights.
        temperature_: what its logits are divided by.
    """

    def __init__(
        self,
        method: str = "unit",
        backbone: str | nn.Module = "strided",
        *,
        trained: bool = False,
        which: str = "recommended",
        recipe: str = "folders",
        settings: dict[str, Any] | None = None,
        random_state: Any = 0,
        device: str = "auto",
        precision: str = "auto",
        out: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.method, self.backbone, self.trained, self.recipe = method, backbone, trained, recipe
        self.which, self.settings, self.random_state = which, settings, random_state
        self.device, self.precision, self.out, self.verbose = device, precision, out, verbose

    def fit(self, X_source: ArrayOrPath, y_source: Any = None, X_target: ArrayOrPath = None) -> Adapter:
        """Trains the source classifier and adapts it to the target.

        Args:
            X_source: images, or a path to labelled ones (class folders, .csv or .npz).
            y_source: their labels, of any type that sorts; none where `X_source` is a path.
            X_target: images or a path; labels there, if any, are not read.

        Raises:
            ValueError: for wrong input, in one line that says what to do.
        """
        if self.which not in ("recommended", *CLASSIFIERS):
            raise UserError.unknown("classifier", str(self.which), ("recommended", *CLASSIFIERS))
        if not isinstance(self.settings, Mapping | None):
            raise ValueError(f"settings is {type(self.settings).__name__}; give a dict of dotted keys and values")
        source, labels = self._labelled(X_source, y_source)
        if unused := sorted(UNUSED & (self.settings or {}).keys()):
            raise ValueError(f"settings: {unused[0]} is for images on disk that uda.fit reads; leave it out")
        if X_target is None:
            raise ValueError("no target images; call fit(X_source, y_source, X_target)")
        target = _found(X_target)
        display = Display(quiet=not self.verbose)
        resolved = resolve(
            self.recipe,
            {
                "data.source": source.path.name,
                "data.target": target.path.name,
                "method.name": self.method,
                "classifier.backbone": GIVEN_IN_PYTHON if isinstance(self.backbone, nn.Module) else self.backbone,
                "seed": self._seed(),
                **({"classifier.steps": 0} if self.trained else {}),
                **(self.settings or {}),
            },
        )
        for note in resolved.notes:
            display.say(note)
        runtime = choose_runtime(self.device, self.precision)
        published, taken = published_frame(resolved.recipe.classifier), channels_taken(resolved.recipe, self._module)
        frame = resolve_frame(resolved.recipe.data, source, target, published, taken)
        wanted = resolved.recipe.with_frame(frame)
        classes, memory = class_names(source), None if wanted.classifier.freezes else int(wanted.data.memory * 2**30)
        with runtime.computing(), tempfile.TemporaryDirectory() as folder:
            pair = Pair(
                *hold_out(load_labelled(source, classes, frame, memory, display)),
                load_unlabelled(target, classes, frame, memory, display),
                None,
            )
            out = self.out or os.path.join(folder, "run")
            run = start(wanted, pair, runtime, display, out=out, model=self._module, report=self.out is not None)
            if note := run.note_on(self.which):
                display.say(note)
            state = run.load_classifier(self.which).state_dict()
            self.recipe_, self.result_ = run.recipe, run.result
            self.which_, self.temperature_ = run.chosen(self.which), run.temperature(self.which)
            self.state_ = {name: value.cpu() for name, value in state.items()}
        self.classes_ = labels
        return self

    def _seed(self) -> int:
        """The seed of the run, of whatever scikit-learn takes as a random state."""
        if isinstance(self.random_state, int):
            return self.random_state
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def predict_proba(self, X: ArrayOrPath) -> np.ndarray:
        """Calibrated probabilities of the classes, in the order of `classes_`: (N, K)."""
        check_is_fitted(self)
        runtime = choose_runtime(self.device, self.precision)
        data = self.recipe_.data
        _, images, unreadable = in_frame(_found(X), data.frame, int(data.memory * 2**30), Display(quiet=True))
        if unreadable:
            raise ValueError(f"{len(unreadable)} images cannot be read, for example {unreadable[0]}; remove them")
        classifier = self.classifier_
        runtime.place(classifier)
        logits = predict(classifier, images.to(runtime.device), runtime)
        probabilities: np.ndarray = (logits.double() / self.temperature_).softmax(1).cpu().numpy()
        return probabilities

    def predict(self, X: ArrayOrPath) -> np.ndarray:
        """The class of each image, among `classes_`: (N,)."""
        check_is_fitted(self)
        classes: np.ndarray = self.classes_[self.predict_proba(X).argmax(1)]
        return classes

    @property
    def classifier_(self) -> nn.Module:
        """The classifier that `which` asked for: images (N, C, S, S) in -1..1 to logits (N, K)."""
        check_is_fitted(self)
        runtime = choose_runtime("cpu", "fp32")
        networks = build_networks(self.recipe_, len(self.classes_), runtime, self._module)
        source = self.which_ == "source"
        built = networks.classifier if source else build_method(self.recipe_, networks, runtime).classifier()
        classifier = networks.whole(built, any(name.startswith("body.adapted.") for name in self.state_))
        classifier.load_state_dict(self.state_)
        return classifier.eval()

    @property
    def _module(self) -> nn.Module | None:
        return self.backbone if isinstance(self.backbone, nn.Module) else None

    def _labelled(self, X: ArrayOrPath, y: Any) -> tuple[Found, np.ndarray]:
        """The source, and its classes; labels become numbers where they were given as an array."""
        if isinstance(X, str | os.PathLike):
            if y is not None:
                raise ValueError("the labels of images at a path are read there; leave y_source out")
            found = find(Path(X), labelled=True)
            return found, np.array(class_names(found))
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None: give y_source, a label for each image")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y_source holds one class, {classes[0]!r}; a classifier needs two")
        found = _found(X)
        if len(labels) != len(found):
            raise ValueError(f"{len(found)} images but {len(labels)} labels; give one label for each image")
        return Found(found.path, found.names, found.root, found.pixels, numbers.astype(str), found.note), classes


def _found(X: ArrayOrPath) -> Found:
    if isinstance(X, str | os.PathLike):
        return find(Path(X), labelled=False)
    images = check_array(X, dtype=None, ensure_2d=False, allow_nd=True)  # refuses NaN, complex numbers, sparse matrices
    if images.ndim not in (3, 4):
        raise ValueError(f"X has shape {images.shape}; images are (N, H, W), (N, H, W, 3) or (N, 3, H, W)")
    if images.dtype.kind == "f":
        if images.min() < 0 or images.max() > 1:
            raise ValueError("float images must lie in 0..1; scale them, or give uint8 in 0..255")
        images = np.round(images * 255).astype(np.uint8)
    return Found(
        Path("array"), np.array([], dtype=np.bytes_), Path(), as_pixels(images, "X"), None, f"an array of {len(images):,} images"
    )
