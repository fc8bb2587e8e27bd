"""Predictions for images in tar shards: one shard in, one Parquet file out. A shard that is done is not read again."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from uda.atomic import atomic_write
from uda.data.files import together
from uda.data.frame import Frame, decode
from uda.data.shards import EXTENSIONS, MISSING, Done, opened_shard, split_name, state_of
from uda.errors import UserError
from uda.evaluation.evaluator import predict
from uda.inference.predict import COMPARED, Spaced
from uda.paths import distinct
from uda.plugins import named
from uda.runs.run import Run

OF, SHARD, STATE = b"uda", b"uda shard", b"uda shard's state"
"""under which a Parquet file says whose predictions it holds, of which shard, and of what size and time of change that was"""
LOGITS, SPACED = b"uda logits", 100
"""under which it holds those of some images, as base64, to be compared with the target's; and of how many at most"""
ERROR = 3
"""the column that says why an image cannot be read"""


class Asked(NamedTuple):
    """Whose predictions: a run folder, which of its classifiers, and what computes them."""

    run: Path
    which: str
    device: str
    precision: str | None
    trust: bool


def outputs_of(shards: Sequence[str], out: Path) -> list[Path]:
    """The Parquet file of each shard: ``OUT/NAME.parquet``, with a number where two shards have one name."""
    return [out / f"{name}.parquet" for name in distinct(Path(Path(shard).name) for shard in shards)]


def found_done(asked: Asked, shard: str, path: Path) -> Done | None:
    """What the same command has made of a shard before; None where it has not, or the shard was written anew since.

    Raises:
        UserError: where another run's or another shard's predictions are there, or cannot be read.
    """
    if not path.exists():
        return None
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(MISSING) from None
    wanted = _described(asked, shard)
    try:
        with parquet.ParquetFile(path) as file:
            found = file.schema_arrow.metadata or {}
            done = _told_by(file, shard) if found.get(OF) == wanted[OF] else None
    except Exception as error:  # a damaged file makes the reader raise almost anything
        raise UserError(f"{path} cannot be read ({named(error)}); delete it, and it is made anew") from error
    if done is None:
        raise UserError(f"{path} holds predictions of another run; give another -o")
    if found.get(SHARD) != wanted[SHARD]:
        other = os.fsdecode(found.get(SHARD, b"another shard"))
        raise UserError(f"{path} holds predictions of {other}, and not of {shard}; give another -o")
    return done if found.get(STATE) == wanted[STATE] else None


def _told_by(file: Any, shard: str) -> Done:
    """What a Parquet file says came of a shard. Of blocks without an error, which most are, the footer says so."""
    groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
    some = [n for n, group in enumerate(groups) if group.column(ERROR).statistics.null_count < group.num_rows]
    return Done(file.metadata.num_rows, _lines(shard, file.read_row_groups(some, ["path", "error"]).to_pylist()))


def predict_shard(asked: Asked, shard: str, path: Path) -> Done:
    """Classifies the images of a shard, block by block, and writes a row for each: path, class, probability, error.

    `error` is empty where the image can be read; where it cannot, class and probability are.

    Raises:
        UserError: where the shard cannot be read, or is cut short.
    """
    try:
        from pyarrow import Table, parquet, schema
    except ImportError:
        raise UserError(MISSING) from None
    run, classifier, temperature = _loaded(asked)
    columns = schema([("path", "string"), ("class", "string"), ("probability", "float"), ("error", "string")])
    columns = columns.with_metadata(_described(asked, shard))
    count, unreadable, compared = 0, list[str](), Spaced(SPACED)
    with atomic_write(path) as part, parquet.ParquetWriter(part, columns) as table:
        for names, images, errors in _blocks(shard, run.recipe.data.frame):
            rows: list[dict[str, Any]] = [{"path": _told(name), "error": reason} for name, reason in errors]
            if names:
                logits = predict(classifier, images.to(run.runtime.device), run.runtime)
                compared.add(logits)
                probabilities, classes = (logits / temperature).softmax(1).max(1)
                told = zip(names, classes.tolist(), probabilities.tolist(), strict=True)
                rows += [{"path": _told(name), "class": _told(run.classes[k]), "probability": p} for name, k, p in told]
            table.write_table(Table.from_pylist(rows, schema=columns))
            count += len(rows)
            unreadable += _lines(shard, rows)
        if compared.kept:
            table.add_key_value_metadata({LOGITS: b64encode(torch.stack(compared.kept).numpy().tobytes())})
    return Done(count, unreadable)


def some_logits(paths: Sequence[Path], classes: int) -> list[Tensor]:
    """Logits (K,) of images that the predictions at these paths are of: of evenly spaced ones, from evenly spaced files."""
    from pyarrow import parquet

    found: list[Tensor] = []
    for path in paths[:: -(-len(paths) * SPACED // COMPARED)]:
        if kept := (parquet.read_metadata(path).metadata or {}).get(LOGITS):  # without any image, there are none
            found += torch.frombuffer(bytearray(b64decode(kept)), dtype=torch.float32).unflatten(0, (-1, classes))
    return found


def _lines(shard: str, rows: list[dict[str, Any]]) -> list[str]:
    """A line for each image that cannot be read."""
    return [f"{shard}/{row['path']}: {row['error']}" for row in rows if row.get("error") is not None]


def _told(name: str) -> str:
    """A name as text, its bytes that are no UTF-8 written out. No spreadsheet reads the file, so that all else stays as it is."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _blocks(shard: str, frame: Frame) -> Iterator[tuple[list[str], Tensor, list[tuple[str, str]]]]:
    """Names and images uint8 (B, C, S, S) of a shard, block by block, and (name, reason) of those that cannot be read."""
    names: list[str] = []
    images: list[Tensor] = []
    errors: list[tuple[str, str]] = []
    most = together((frame.channels, frame.size, frame.size))
    with opened_shard(shard) as tar:
        for member in tar:
            if not member.isfile() or split_name(member.name)[1] not in EXTENSIONS:
                continue
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
            try:
                images.append(decode(BytesIO(content), frame))
                names.append(member.name)
            except Exception as error:  # a damaged file makes a decoder raise almost anything
                errors.append((member.name, (str(error).splitlines() or [type(error).__name__])[0]))
            if len(names) + len(errors) == most:
                yield names, torch.stack(images) if images else torch.empty(0), errors
                names, images, errors = [], [], []
            tar.members = []  # type: ignore[attr-defined] # it would remember all of them
    if names or errors:
        yield names, torch.stack(images) if images else torch.empty(0), errors


@lru_cache(maxsize=1)
def _loaded(asked: Asked) -> tuple[Run, nn.Module, float]:
    """The classifier, loaded once in each process."""
    run = Run(asked.run, device=asked.device, precision=asked.precision, trust=asked.trust)
    return run, run.load_classifier(asked.which), run.temperature(asked.which)


def _described(asked: Asked, shard: str) -> dict[bytes, bytes]:
    """What a Parquet file says of itself."""
    return {OF: _identity(asked), SHARD: os.fsencode(shard), STATE: os.fsencode(state_of(shard))}


@lru_cache(maxsize=1)
def _identity(asked: Asked) -> bytes:
    """What tells these predictions from another run's, or another of its classifiers'."""
    environment = Run(asked.run, trust=asked.trust).environment
    return f"{environment['started']} {environment['recipe']} {asked.which}".encode()
