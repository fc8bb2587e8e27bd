"""The constants of `scale_model.py` that can be measured on one machine; they are written beside it, with the machine's name.

    python benchmarks/scale_measure.py --photos DIR    # about three minutes; writes benchmarks/scale_constants.json

Steps are DANN's, of the digits' classifier on scikit-learn's digits at 32 pixels, as `uda fit` takes them, in one process
and in two. One step in ten is faster than the figure. Besides seconds, those of the process's own processor time are
written down: where the machine does other work, the first are worth nothing, and of the second only waiting is left out.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from cells import where
from ranks import TORCHRUN

from uda import ranks
from uda.data.frame import Frame, decode
from uda.evaluation.results import Row
from uda.training.fit import fit
from uda.training.loop import Observer

BATCHES = (64, 128, 256)
SIZES = (10, 250_000, 1_000_000, 4_000_000)
"""numbers (float32) in the buffers whose exchange is measured"""
SIDE, RESIZED = 224, 256
CONSTANTS = Path(__file__).with_name("scale_constants.json")


class Clock(Observer):
    """Notes when each step has ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def step(self, step: int, row: Row) -> None:
        self.ends.append((time.perf_counter(), time.process_time()))


def fastest(seconds: list[float]) -> float:
    """The time that one in ten is faster than."""
    return sorted(seconds)[len(seconds) // 10]


def steps(batch: int, count: int) -> dict[str, float]:
    """Seconds of a step of so many images of each domain, of all processes together, and processor seconds of one process."""
    clock = Clock()
    settings = {
        "data.source": "digits", "data.target": "digits", "data.size": 32, "data.channels": 1, "method.name": "dann",
        "classifier.steps": 1, "training.batch": batch, "training.target_batch": batch, "training.steps": count,
        "training.evaluate_every": count, "training.log_every": count,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fit(
            "mnist2usps", out=f"{folder}/run", device="cpu", precision="fp32", report=False, cache=False, observers=[clock],
            overrides=settings,
        )  # fmt: skip
    ends = clock.ends[2:]  # without the source classifier's one step, and without the first
    apart = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(ends)]
    return {"seconds": fastest([one[0] for one in apart]), "processor": fastest([one[1] for one in apart])} if apart else {}


def exchanges(count: int) -> dict[str, float]:
    """Seconds of an all-reduce between two processes, by how many numbers it is of."""
    ranks.join()
    found = {}
    for size in SIZES:
        buffer, seconds = torch.zeros(size), []
        for _ in range(count):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(buffer)
            seconds.append(time.perf_counter() - began)
        found[str(size)] = fastest(seconds)
    return found


def in_processes(several: bool, *words: str) -> dict[str, float]:
    """What this script says that is run with other words, in one process or in two."""
    program = TORCHRUN if several else [sys.executable]
    said = subprocess.run([*program, __file__, *words], check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def gradients() -> int:
    """Bytes of what DANN averages in a step: the classifier's gradients and the domain classifier's."""
    from uda.methods.dann import DANN, DANNSettings
    from uda.models import build_classifier
    from uda.runtime import choose_runtime

    classifier = build_classifier("strided", 1, 32, 10)
    method = DANN(DANNSettings(), classifier, (1, 32, 32), 1, choose_runtime("cpu", "fp32"))
    return 4 * sum(weight.numel() for weight in method.parameters() if weight.requires_grad)


def seconds_of(call: Callable[[], object], least: float = 4.0) -> float:
    """Processor seconds of a call, in which other work on the machine does not count."""
    call()
    began, count = time.process_time(), 0
    while time.process_time() - began < least:
        call()
        count += 1
    return (time.process_time() - began) / count


def photographs(folder: Path) -> dict[str, float]:
    """Bytes of a photograph, and how many one core decodes in a second, brought to 224 pixels."""
    paths = sorted(path for path in folder.rglob("*.jpg"))
    files = [path.read_bytes() for path in paths[:: max(1, len(paths) // 100)]]
    frame = Frame(SIDE, 3, RESIZED)
    took = seconds_of(lambda: [decode(io.BytesIO(content), frame) for content in files]) / len(files)
    return {"bytes": sum(map(len, files)) / len(files), "a_second": 1 / took, "files": len(files)}


def nothing(number: int) -> int:
    """What a task does that does nothing."""
    return number


def lost(line: str) -> int:
    """No task may be."""
    raise SystemExit(line)


def tasks(count: int) -> dict[str, float]:
    """Seconds until a first Ray task has ended, and of each of many that do nothing."""
    from uda.cluster.engine import cluster, completed

    with cluster(None) as takes:
        began = time.perf_counter()
        list(completed(nothing, [(0,)], takes, lost))
        first = time.perf_counter() - began
        began = time.perf_counter()
        list(completed(nothing, [(number,) for number in range(count)], takes, lost))
        return {"worker_start": first, "task": (time.perf_counter() - began) / count}


def measure(photos: Path, count: int) -> dict[str, Any]:
    one, two = (
        {str(batch): in_processes(several, "steps", "--batch", str(batch), "--count", str(count)) for batch in BATCHES}
        for several in (False, True)
    )
    return {
        "machine": where(),
        "step_of_one_process": one,
        "step_of_two_processes": two,
        "gradient_bytes": gradients(),
        "all_reduce_of_two_processes": in_processes(True, "exchanges", "--count", str(count)),
        "photographs": {"of": photos.name, **photographs(photos)},
        "ray": tasks(500),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=("all", "steps", "exchanges"))
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs to decode")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--count", type=int, default=100, help="steps and exchanges of each kind")
    given = parser.parse_args()
    if given.what == "all":
        if given.photos is None:
            parser.error("give --photos DIR, a folder of JPEGs")
        CONSTANTS.write_text(json.dumps(measure(given.photos, given.count), indent=2) + "\n")
        print(f"see {CONSTANTS}")
        return
    found = steps(given.batch, given.count) if given.what == "steps" else exchanges(given.count)
    if ranks.first():
        print(json.dumps(found))


if __name__ == "__main__":
    main()
