"""Predictions for many shards: in this process, or each as a task on Ray."""

from __future__ import annotations

from pathlib import Path

from uda.cluster.engine import check_engine
from uda.cluster.shards import UNREADABLE, over_shards
from uda.console import Display
from uda.data.names import absolute
from uda.data.shards import Done, expand
from uda.errors import UserError
from uda.inference.predict import adapted_to, unlike
from uda.inference.shards import Asked, found_done, outputs_of, predict_shard, some_logits
from uda.runs.run import Run


def predict_shards(asked: Asked, pattern: str, out: Path, display: Display, engine: str, address: str | None = None) -> int:
    """Classifies the images of all shards that have no predictions in `out`, or were written anew since; returns how many.

    Images that cannot be read have rows that say so, and lines in ``OUT/unreadable.txt``. It is said where the images of all
    these shards are unlike the target that was adapted to.

    Args:
        asked: whose predictions.
        pattern: of the shards (`uda.data.shards.expand`).
        out: a folder; on a cluster, one that all nodes share, as the run's.
        display: shows how it goes on.
        engine: ``"here"`` or ``"ray"``.
        address: of a Ray cluster; left out, this machine is one.

    Raises:
        UserError: for wrong input; for a shard that cannot be read, after all others are done.
    """
    check_engine(engine, address)
    run = Run(asked.run, trust=asked.trust)
    display.say(run.by(asked.which))
    asked, target = asked._replace(which=run.chosen(asked.which)), adapted_to(run, asked.which)
    asked, out = asked._replace(run=asked.run.absolute()), out.absolute()
    shards = [absolute(shard) for shard in expand(pattern)]
    out.mkdir(parents=True, exist_ok=True)
    paths = outputs_of(shards, out)
    tasks = [(asked, *pair) for pair in zip(shards, paths, strict=True)]
    count = over_shards(found_done, _predict, tasks, out / UNREADABLE, display, engine, address)
    if note := unlike(target, some_logits(paths, len(run.classes))):
        display.say(note)
    return count


def _predict(asked: Asked, shard: str, path: Path) -> Done:
    """What came out of a shard."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not there on this node; give -o a folder that all nodes share")
    return predict_shard(asked, shard, path)
