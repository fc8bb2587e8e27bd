"""Predictions for many shards: in this process, or each as a task on Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from uda.atomic import atomic_write
from uda.cluster.engine import cluster, completed
from uda.console import Display
from uda.data.names import absolute
from uda.data.shards import expand
from uda.errors import UserError
from uda.inference.shards import Asked, Predicted, is_done, outputs_of, predict_shard
from uda.runs.run import Run

ENGINES = "here", "ray"
UNREADABLE = "unreadable.txt"


def predict_shards(asked: Asked, pattern: str, out: Path, display: Display, engine: str, address: str | None = None) -> int:
    """Classifies the images of all shards that have no predictions in `out` yet; returns how many images that were.

    Images that cannot be read have rows that say so, and lines in ``OUT/unreadable.txt``.

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
    if engine not in ENGINES:
        raise UserError.unknown("engine", engine, ENGINES)
    if address is not None and engine != "ray":
        raise UserError("--address is of a Ray cluster; add --engine ray")
    run = Run(asked.run, trust=asked.trust)
    if note := run.note_on(asked.which):
        display.say(note)
    asked = asked._replace(which=run.chosen(asked.which))
    asked, out = asked._replace(run=asked.run.absolute()), out.absolute()
    shards = [absolute(shard) for shard in expand(pattern)]
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(asked, *pair) for pair in zip(shards, outputs_of(shards, out), strict=True)]
    left = [task for task in tasks if not is_done(asked, task[2])]
    if len(left) < len(tasks):
        display.say(f"  {len(tasks) - len(left)} of {len(tasks)} shards are done already")
    images, unreadable, failed = 0, list[str](), list[str]()
    with display.stage("shards", len(tasks) - len(left), len(tasks)) as bar:
        done = len(tasks) - len(left)
        for ended in _ended(left, engine, address):
            done += 1
            if isinstance(ended, str):
                failed.append(ended)
                continue
            images += ended.images
            unreadable += ended.unreadable
            _list(ended.unreadable, out / UNREADABLE)  # at once: a shard that is done is not looked at again
            bar.update(done, f"{images:,} images")
    if unreadable:
        display.say(f"  {len(unreadable)} images cannot be read; their rows say so, and {out / UNREADABLE} lists them")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(left)} shards failed, for example: {failed[0]}; the same command does these alone"
        )
    return images


def _ended(left: Sequence[tuple[Asked, str, Path]], engine: str, address: str | None) -> Iterator[Predicted | str]:
    if not left:
        return
    if engine == "here":
        yield from (_predict(*task) for task in left)
        return
    with cluster(address) as takes:
        yield from (ended for _, ended in completed(_predict, left, takes))


def _predict(asked: Asked, shard: str, path: Path) -> Predicted | str:
    """What came out of a shard, or in one line why nothing did."""
    try:
        if not path.parent.is_dir():
            raise UserError(f"{path.parent} is not there on this node; give -o a folder that all nodes share")
        # A task that is run again, since its node died, may have been done.
        return Predicted(0, []) if is_done(asked, path) else predict_shard(asked, shard, path)
    except UserError as error:
        return str(error)


def _list(unreadable: list[str], path: Path) -> None:
    """Adds to the list of images that cannot be read; it is written whole."""
    known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if lines := sorted({*known, *unreadable}):
        with atomic_write(path) as part:
            part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")
