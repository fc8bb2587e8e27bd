"""What a sweep survives, and what it costs.

    python benchmarks/sweep.py survive    # two simulated nodes, one is removed, then the driver is killed and started again
    python benchmarks/sweep.py overhead   # a sweep on one node of one CPU against the same runs one after another

Nodes are simulated by `ray.cluster_utils.Cluster`. Needs the extras ray and shards.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

from cells import where
from ray.cluster_utils import Cluster

from uda.cluster.spec import combinations, read_spec
from uda.training.fit import fit

SPEC = """recipes = ["mnist2usps"]
methods = ["source_only", "dann", "dan", "deep_coral"]
seeds = [0, 1, 2]
reports = false
[settings]
data.size = [16]
classifier.width = [8]
classifier.steps = [{source}]
training.steps = [{steps}]
training.evaluate_every = [{steps}]
"""
STORE = 80 * 2**20


@contextmanager
def nodes(count: int) -> Iterator[Cluster]:
    """A head that computes nothing, and so many nodes of one CPU."""
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    for left in range(9, -1, -1):  # a busy machine may not be through within the 30 s that Ray allows
        cluster = Cluster()
        try:
            cluster.add_node(**head)
            cluster.workers = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(count)]
            break
        except Exception:
            cluster.shutdown()
            if not left:
                raise
    try:
        yield cluster
    finally:
        cluster.shutdown()


def write_spec(out: Path, source: int, steps: int) -> Path:
    out.mkdir(parents=True)
    (out / "spec.toml").write_text(SPEC.format(source=source, steps=steps))
    return out / "spec.toml"


def command(spec: Path, out: Path, address: str) -> list[str]:
    return [sys.executable, "-m", "uda", "sweep", str(spec), "-o", str(out), "--address", address, "--precision", "fp32"]


class Watch(threading.Thread):
    """Counts how often each result was written, and how many trials are at work."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self.out = out
        self.written: dict[Path, set[tuple[int, int]]] = {}

    def run(self) -> None:
        while True:
            for path in self.out.glob("*/seed-*/result.json"):
                state = path.stat()
                self.written.setdefault(path, set()).add((state.st_ino, state.st_mtime_ns))
            time.sleep(0.05)

    def until(self, count: int) -> None:
        while len(self.written) < count or len(list(self.out.glob("*/seed-*"))) == len(self.written):
            time.sleep(0.1)


def survive(out: Path, source: int, steps: int) -> None:
    """One node is removed in mid-work, then the driver is killed, and started again."""
    spec, runs = write_spec(out, source, steps), out / "runs"
    watch = Watch(runs)
    watch.start()
    with nodes(2) as cluster:
        driver = subprocess.Popen(command(spec, runs, cluster.address))
        watch.until(3)
        print(f"a node is removed after {len(watch.written)} results", flush=True)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)
        watch.until(6)
        print(f"the driver is killed after {len(watch.written)} results", flush=True)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        began = time.monotonic()
        subprocess.run(command(spec, runs, cluster.address), check=True)
        print(f"the second driver took {time.monotonic() - began:.0f} s")
    with (runs / "results.csv").open(newline="") as file:
        done = [row["state"] for row in csv.DictReader(file)].count("done")
    twice = sum(len(times) > 1 for times in watch.written.values())
    page = (runs / "comparison.html").read_text()
    named = sum(path.name in page for path in runs.iterdir() if path.is_dir())
    print(f"{done} of 12 results; {twice} written more than once; the page names {named} of 4 combinations")


def overhead(out: Path, source: int, steps: int, turns: int = 2) -> None:
    """Seconds of the runs one after another in one process, and of the sweep from its command to its end, in turns."""
    spec = write_spec(out, source, steps)
    asked = read_spec(spec)
    seconds: dict[str, list[float]] = {"one after another": [], "sweep": []}
    for turn in range(turns):
        began = time.monotonic()
        for one in combinations(asked):
            for seed in asked.seeds:
                recipe = one.recipe.model_copy(update={"seed": seed})
                fit(recipe, out=out / f"alone-{turn}" / one.name / str(seed), precision="fp32", report=False, cache=False)
        seconds["one after another"].append(time.monotonic() - began)
        with nodes(1) as cluster:
            began = time.monotonic()
            environment = {**os.environ, "UDA_CACHE_GIB": "0"}
            subprocess.run(command(spec, out / f"sweep-{turn}", cluster.address), check=True, env=environment)
            seconds["sweep"].append(time.monotonic() - began)
    for name, taken in seconds.items():
        print(f"{name}: {', '.join(f'{one:.1f} s' for one in taken)}")
    print(f"overhead: {sum(seconds['sweep']) / sum(seconds['one after another']) - 1:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("survive", "overhead"))
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--source", type=int, default=100, help="steps of the source classifier")
    parser.add_argument("--steps", type=int, default=100, help="steps of the method")
    parser.add_argument("--turns", type=int, default=2, help="of the two ways, for the overhead")
    given = parser.parse_args()
    if given.what == "survive":
        survive(given.out / given.what, given.source, given.steps)
    else:
        overhead(given.out / given.what, given.source, given.steps, given.turns)
    print(where())


if __name__ == "__main__":
    main()
