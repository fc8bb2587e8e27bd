"""A finished run, read back."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uda.console import Display
from uda.data.domain import Domain
from uda.data.files import ImageFiles
from uda.data.load import load_pair
from uda.data.names import split_roots
from uda.errors import UserError
from uda.evaluation.evaluator import Examples
from uda.evaluation.outputs import Outputs
from uda.evaluation.results import Checked, Result, Row, evaluations
from uda.methods import find_method
from uda.methods.base import Method
from uda.models.custom import whole_state_dict
from uda.models.layers import Normalize
from uda.recipe.schema import Recipe
from uda.runs.build import Networks, build_method, build_networks, build_whole
from uda.runs.folder import RunFolder
from uda.runtime import Runtime, choose_runtime
from uda.text import printable

CLASSIFIERS = {
    "last": "the adapted classifier",
    "selected": "the adapted classifier after the selected step",
    "source": "the source classifier",
}
"""what a run has of them, in a reader's words; ``"recommended"`` is the first or the third"""
OF_TARGET = "target_test_accuracy", "target_mean_entropy"
"""what an evaluation says beside its scores; the first one where there are labelled test images"""


class Run:
    """A finished run: its figures, and its networks loaded back.

    Args:
        path: the run folder.
        model: the network, where the run was given one in Python.
        device: ``"auto"`` or a torch device.
        precision: ``"bf16"`` or ``"fp32"``; left out, as the run was computed.
        trust: whether you agree to the code that its recipe names, where you have not named it yourself.

    Attributes:
        path: the run folder.
        recipe: the contents of ``recipe.toml``.
        result: the contents of ``result.json``.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module | None = None,
        device: str = "auto",
        precision: str | None = None,
        trust: bool = False,
    ) -> None:
        self._folder = RunFolder.open(Path(path), trust=trust)
        self.path, self._model, self._device, self._precision = self._folder.path, model, device, precision
        self.recipe: Recipe = self._folder.recipe
        self.result: Result = self._folder.read_result(self.recipe)

    @property
    def accuracy(self) -> dict[str, float | None]:
        """``source``, ``source_only``, ``last``, ``selected``, ``oracle``: shares 0..1 of test images.

        All but the first are None where there were no labelled target test images.
        """
        self._asked_to_classify()
        return self.result["accuracy"]

    @property
    def target_accuracy(self) -> float | None:
        """Accuracy of `classifier` on the target test images, where there were some."""
        return self.accuracy["last"]

    @cached_property
    def runtime(self) -> Runtime:
        return choose_runtime(self._device, self._precision or self.result["precision"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.result["classes"])

    def outputs(self, which: str = "last") -> Outputs:
        """What the ``"last"`` classifier says, or the ``"source_only"`` one: features, logits, and those of test images."""
        self._asked_to_classify()
        outputs = self._folder.read_outputs(which)
        if (count := outputs.target_logits.shape[-1]) != len(self.classes):
            raise UserError(f"outputs/{which}.safetensors of {self.path} is another run's: it is of {count} classes; fit again")
        lacking = outputs.source_labels is None or (outputs.test is None) != (self.accuracy["last"] is None)
        if which in ("source_only", "last") and lacking:
            raise UserError(f"outputs/{which}.safetensors of {self.path} is of other images than its result; fit again")
        return outputs

    @property
    def examples(self) -> Examples:
        """Target images that tell most about the last classifier."""
        examples, count = self._folder.read_examples(), len(self.classes)
        _, labels, predicted, _ = examples
        if not ((labels >= -1) & (labels < count) & (predicted >= 0) & (predicted < count)).all():
            raise UserError(f"outputs/examples.safetensors of {self.path} is another run's, of other classes; fit again")
        return examples

    @property
    def translations(self) -> bytes | None:
        """``translations.png``; None where the method makes no images."""
        return self._folder.read_picture("translations.png")

    @property
    def metrics(self) -> list[Row]:
        """The rows of ``metrics.jsonl``: losses and evaluations over the steps.

        Raises:
            UserError: where the last step's is not among them, or evaluations are not alike.
        """
        rows = self._folder.read_metrics()
        adapted = [row for row in rows if row["stage"] == "adaptation"]
        if not any(row["step"] == self.result["steps"] for row in adapted):
            raise UserError(f"{self.path / 'metrics.jsonl'} is missing or cut short; fit again")
        held = [(row["scores"].keys(), *(name in row for name in OF_TARGET)) for row in evaluations(adapted)]
        if self.recipe.classifies and not (held and held[0][-1] and held.count(held[0]) == len(held)):
            raise UserError(f"{self.path / 'metrics.jsonl'} is damaged (its evaluations do not hold the same figures); fit again")
        return rows

    @property
    def checked(self) -> Checked | None:
        """What labels of a few target images say of both classifiers; None where there was no `uda check`."""
        return self._folder.read_check()

    @property
    def environment(self) -> dict[str, Any]:
        """The contents of ``environment.json``: versions, machine, device."""
        return self._folder.read_environment().model_dump()

    def temperature(self, which: str = "last") -> float:
        """What a classifier's logits are divided by, so that it is no surer than it is right, by the estimate."""
        found = self.result["calibration"]
        return found.get("source_only_temperature", 1.0) if self.chosen(which) == "source" else found["temperature"]

    def chosen(self, which: str) -> str:
        """``"last"`` or ``"source"`` for ``"recommended"``, whichever the run's result recommends; else `which` as it is."""
        if which in CLASSIFIERS:
            return which
        if which != "recommended":
            raise UserError.unknown("classifier", which, [*CLASSIFIERS, "recommended"])
        self._asked_to_classify()
        return "source" if self.result.get("recommended") == "source" else "last"

    def by(self, which: str) -> str:
        """Which classifier that is, in a reader's words; where ``"recommended"`` means the source classifier, why it does."""
        as_it_is = not find_method(self.recipe.method.name).adapts
        return self.note_on(which) or f"by {CLASSIFIERS['source' if as_it_is else self.chosen(which)]}"

    def note_on(self, which: str) -> str:
        """What is to be said where ``"recommended"`` means the source classifier, and why it does; else nothing."""
        if which == self.chosen(which) or self.chosen(which) != "source":
            return ""
        return f"by the source classifier: {self.result['recommended_because']} (--which last takes the adapted one)"

    def target(self) -> tuple[Domain, Tensor]:
        """The target's training images, without labels, and which of them `outputs` are of, in order, int64 (n,).

        Images in files stay there until they are asked for.

        Raises:
            UserError: where the images are no longer there, or have changed in number.
        """
        self._folder.ask_for_moved_images()
        roots = split_roots(self.environment["data_root"])
        target = load_pair(
            self.recipe.data, roots, Display(quiet=True), self.recipe.classifies, look=False
        ).target.without_labels()
        images, unreadable = target.images, self._folder.read_unreadable()
        if unreadable and isinstance(images, ImageFiles):
            lost = tuple(printable(f"{images.path(number)}: ") for number in range(len(images)))
            kept = [number for number, start in enumerate(lost) if not any(line.startswith(start) for line in unreadable)]
            target = target.only(torch.tensor(kept))
        if len(target) != self.result["target"]["train"]:
            raise UserError(f"{target.name} has {len(target):,} images now and had {self.result['target']['train']:,}; fit anew")
        sampled = target.shuffled()[: (count := len(self.outputs().target_logits))]
        if len(sampled) < count:
            raise UserError(f"outputs/last.safetensors of {self.path} is of {count:,} images, more than there are; fit again")
        return target, sampled

    def sample(self) -> Tensor:
        """Some of the target images that were adapted to, uint8 (n, C, S, S), n at most 64."""
        return self._folder.read_sample()

    def locked(self) -> AbstractContextManager[None]:
        """While it is open, no other process writes into the run folder (see `uda.runs.folder.RunFolder.locked`)."""
        return self._folder.locked()

    def _asked_to_classify(self) -> None:
        if not self.recipe.classifies:
            raise UserError(f"{self.path} translates images and has no classifier; use uda translate, or fit another --method")

    def _networks(self) -> Networks:
        """The source classifier as it is built, and the body with its weights, which the run has kept."""
        self._asked_to_classify()
        networks = build_networks(self.recipe, len(self.classes), self.runtime, self._model)
        if networks.body is not None:
            self._folder.read_weights("body", networks.body)
        if networks.target_body is None:
            return networks
        if not self._folder.has_weights("target_body"):  # the run decided against it
            return networks._replace(target_body=None)
        self._folder.read_weights("target_body", networks.target_body)
        return networks

    def method(self) -> Method:
        """The trained method; one that makes images translates them with ``.translate(images, origin, destination)``."""
        method = build_method(self.recipe, self._networks() if self.recipe.classifies else None, self.runtime)
        self._folder.read_weights("method", method)
        return method

    def load_classifier(self, which: str = "last") -> nn.Module:
        """The adapted classifier after the ``"last"`` step or the ``"selected"`` one, or the ``"source"`` classifier.

        Or, of the first and the third, the ``"recommended"`` one. It is in evaluation mode, takes float images (N, C, H, W) in
        -1..1 (see `uda.data.augment.to_float`) and returns logits (N, K).
        """
        networks = self._networks()
        return networks.whole(self._load(networks, which), self.chosen(which) != "source").eval()

    def _load(self, networks: Networks, which: str) -> nn.Module:
        which = self.chosen(which)
        source = which == "source"
        classifier = networks.classifier if source else build_method(self.recipe, networks, self.runtime).classifier()
        self._folder.read_weights(which, classifier)
        return classifier.eval()

    @cached_property
    def classifier(self) -> nn.Module:
        """The adapted classifier after the last step."""
        return self.load_classifier()

    def load_network(self, which: str = "last") -> tuple[nn.Module, Normalize]:
        """The user's own (or timm) network, as its author wrote it, with adapted weights; and the preprocessing that it expects.

        Raises:
            UserError: where the network was one of ours, or the method has changed its layers.
        """
        networks = self._networks()
        state = whole_state_dict(self._load(networks, which), networks.classifier)
        if state is None:
            raise UserError(
                f"the adapted classifier does not fit {self.recipe.classifier.backbone} as it was written: use Run.classifier"
            )
        foreign = build_whole(self.recipe, len(self.classes), self._model)
        assert foreign is not None
        network, normalize = foreign
        network.load_state_dict(state)
        return network.eval(), normalize
