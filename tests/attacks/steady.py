"""The same recipe and seed twice, from memory and lazily, with 1, 2 and 4 readers: the same bits. Twenty fits: nothing grows.

``python -m tests.attacks.steady`` prints both tables.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests.attacks.cases import FEW, WHERE, write_data
from tests.attacks.kills import content, forked
from tests.conftest import NETS
from uda.data import files
from uda.training.fit import fit

FITS, WARM = 20, 5
APART = ("recipe.toml", "environment.json", "report.html")  # say how the images are read, by how many


def settings(data: Path) -> dict[str, Any]:
    """Of a run on image files, by a network of one's own."""
    own = {
        "data.source": str(data / "source"), "data.target": str(data / "target"), "data.target_test": str(data / "test"),
        "data.channels": 1, "classifier.backbone": f"{NETS}:SmallResNet", "classifier.weights": str(data / "net.pt"),
        "classifier.refine_steps": 6, "method.name": "dann",
    }  # fmt: skip
    return {key: value for key, value in FEW.items() if key != "classifier.steps"} | own | {"training.steps": 12}


def ways(data: Path, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way to read the images, and what it makes of them."""
    for name, memory, readers in (
        ("from memory", None, 2), ("again", None, 2), ("lazily, 1 reader", 0, 1), ("2 readers", 0, 2), ("4 readers", 0, 4)
    ):  # fmt: skip
        out = root / name

        def run(out: Path = out, memory: int | None = memory, readers: int = readers) -> None:
            files.READERS = readers
            read = {} if memory is None else {"data.memory": memory}
            fit("folders", out=out, data_root=data, overrides=settings(data) | read, **WHERE)

        said = root / f"{name}.txt"
        assert forked(run, said) == 0, said.read_text()
        made = {file: value for file, value in content(out).items() if file not in APART}
        for domain in ("source", "target"):
            del made["result.json"][0][domain]["note"]  # says so, too
        yield name, made


def held() -> tuple[float, int, int, int]:
    """What this process holds: MiB of memory, open files, threads, child processes.

    What waits for the collector of cycles, some MiB of each fit, is not held: that comes round when there is much of it.
    """
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tasks = list(Path("/proc/self/task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    return pages * os.sysconf("SC_PAGESIZE") / 2**20, len(os.listdir("/proc/self/fd")), len(tasks), children


def grown(data: Path, root: Path) -> bool:
    """Twenty fits in one process, every other one by reader processes; whether anything has grown since the first few."""
    print(f"{'fit':>4}{'MiB':>8}{'files':>8}{'threads':>9}{'children':>10}")
    found = []
    for number in range(1, FITS + 1):
        memory = {"data.memory": 0} if number % 2 else {}
        fit("folders", out=root / f"fit-{number}", data_root=data, overrides=settings(data) | memory, **WHERE)
        found.append(held())
        mebibytes, *rest = found[-1]
        print(
            f"{number:>4}{mebibytes:>8.0f}" + "".join(f"{value:>{width}}" for value, width in zip(rest, (8, 9, 10), strict=True))
        )
    return found[-1][1:] != found[WARM - 1][1:] or found[-1][0] > 1.05 * found[WARM - 1][0]


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        os.environ["XDG_STATE_HOME"] = str(root / "state")
        write_data(root / "data")
        torch.set_num_threads(1)
        found = dict(ways(root / "data", root))
        first = found["from memory"]
        differing = {name: [file for file in first if made.get(file) != first[file]] for name, made in found.items()}
        for name, those in differing.items():
            print(f"{name:<20}{'the same bits' if not those else 'differs: ' + ', '.join(those)} ({len(first)} files)")
        sys.exit(any(differing.values()) | grown(root / "data", root))


if __name__ == "__main__":
    main()
