"""A frozen body first, which gives a result at once; then deeper into it, stage by stage, as long as that seems to pay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from uda.console import Display
from uda.models.stages import stages_of
from uda.recipe.schema import Recipe
from uda.runs.build import build_whole
from uda.runs.run import Run


def go_deeper(run: Run, begin: Callable[[Recipe, Path], Run], display: Display, model: nn.Module | None = None) -> Run:
    """Trains the last stage of the frozen body as well, then the last two, in runs of their own: ``RUN/deeper-1``, ...

    It ends after `classifier.deeper` of them, or with the first that is not estimated, without labels, to be more accurate than
    the one before.

    Args:
        run: a finished one, whose body is frozen.
        begin: fits a recipe into a folder, or goes on with it there.
        display: where to say how it goes.
        model: the network, where the run was given one in Python.

    Returns:
        The run that is estimated best.
    """
    wanted, (channels, size, _) = run.recipe.classifier, run.recipe.data.shape
    with torch.random.fork_rng(devices=[]):  # weights do not matter here
        whole = build_whole(run.recipe, len(run.classes), model)
    assert whole is not None  # a body that is ours is never frozen in part, which is checked before a run
    best = run
    for number, stage in enumerate(reversed(stages_of(whole[0], channels, size, len(run.classes))[-wanted.deeper :]), 1):
        out = run.path / f"deeper-{number}"
        display.say(f"{best.path} holds a result; the same from {stage} on is next, and can be stopped at any time")
        classifier = wanted.model_copy(update={"trainable": f"from {stage}", "deeper": 0})
        deeper = begin(run.recipe.model_copy(update={"classifier": classifier}), out)
        before, after = (each.result["estimated"]["accuracy"] for each in (best, deeper))
        pays = after > before
        display.say(
            f"from {stage} on: {after:.2f} estimated without labels, after {before:.2f}; "
            + (f"use {out}" if pays else f"that does not pay: use {best.path}")
        )
        if not pays:
            break
        best = deeper
    return best
