"""Networks built from a recipe, and the check before a run begins."""

from __future__ import annotations

from pathlib import Path

import torch

from uda.recipe.load import load_recipe
from uda.runs.build import build_checked
from uda.runtime import Runtime

SPOILS = """
import torch
from uda.methods.base import OneNetwork


class Spoils(OneNetwork):
    def __init__(self, settings, classifier, shape, steps, runtime):
        super().__init__(settings, classifier, shape, steps, runtime)
        torch.rand(5)
        for parameter in classifier.parameters():
            parameter.data.zero_()
"""


def test_the_check_of_a_method_leaves_the_classifier_and_the_random_state_alone(fp32: Runtime, tmp_path: Path) -> None:
    """A run goes on with the classifier that was checked, and from the random state that built it."""
    (tmp_path / "own.py").write_text(SPOILS)
    built = []
    for method in ("dann", f"{tmp_path / 'own.py'}:Spoils"):
        torch.manual_seed(0)
        recipe = load_recipe("synth2digits", {"method.name": method, "classifier.width": 8}).with_image_size(3, 32)
        built.append((build_checked(recipe, 10, fp32), torch.get_rng_state()))
    (first, state), (second, other) = built
    assert first is not None
    assert second is not None
    assert torch.equal(state, other)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
