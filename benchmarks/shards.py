"""Shards: memory of a run by their number, and predictions over a hundred of them with a worker killed in mid-work.

    python benchmarks/shards.py memory     # peak memory of uda fit and of its readers, from 10 shards and from 200
    python benchmarks/shards.py predict    # uda predict --engine ray over 100 shards; a worker is killed

The images are 500 drawn digits, under other names in each shard. Needs the extras ray and shards.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

from cells import where
from PIL import Image
from pyarrow import parquet

from uda.console import Display
from uda.data.datasets.synthetic import draw_street_digits
from uda.training.fit import fit

RECIPE = """
[data]
source = "digits"
target = "{target}"
size = 16
channels = 1
looked_at = 2000
[classifier]
width = 8
steps = 20
[method]
name = "dann"
[training]
steps = {steps}
evaluate_every = {steps}
"""


def write_shards(folder: Path, count: int, each: int) -> str:
    """So many shards of `each` images; the pattern that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, _ = draw_street_digits(min(each, 500), 0, 16)
    contents = []
    for image in images:
        out = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(out, "PNG")
        contents.append(out.getvalue())
    for shard in range(count):
        with tarfile.open(folder / f"{shard:04d}.tar", "w") as tar:
            for number in range(each):
                info = tarfile.TarInfo(f"{shard:04d}-{number:05d}.png")
                info.size = len(contents[number % len(contents)])
                tar.addfile(info, io.BytesIO(contents[number % len(contents)]))
    return f"{folder.absolute()}/{{0000..{count - 1:04d}}}.tar"


def memory(out: Path, steps: int) -> None:
    """Peak resident memory of the training process and of the largest of its readers, each run in a process of its own.

    A reader is forked, and what it shares with the training process counts in both.
    """
    peaks: dict[int, list[int]] = {}
    for count in (10, 200):
        (out / f"{count}.toml").write_text(RECIPE.format(target=write_shards(out / f"shards-{count}", count, 500), steps=steps))
        code = "import sys; sys.path.insert(0, 'benchmarks'); import shards; shards.one(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(out / f"{count}.toml"), str(out / f"run-{count}")]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks[count] = [int(peak) for peak in said.split()[-2:]]
        own, reader = (f"{peak / 1024:.1f} MiB" for peak in peaks[count])
        print(f"{count} shards, {500 * count:,} images: {own}, largest reader {reader}", flush=True)
    print(", ".join(f"{more / few - 1:+.1%}" for few, more in zip(peaks[10], peaks[200], strict=True)))


def one(recipe: str, out: str) -> None:
    """Runs a recipe; says how much memory this process and the largest of its readers have taken at most, KiB."""
    fit(recipe, out=out, device="cpu", precision="fp32", report=False, cache=False)
    print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def predict(out: Path, steps: int) -> None:
    """Predictions over 100 shards on Ray; a worker is killed once ten are done."""
    pattern, run = write_shards(out / "shards", 100, 100), out / "run"
    recipe = out / "recipe.toml"
    recipe.write_text(RECIPE.format(target=pattern.replace("0099", "0004"), steps=steps))
    fit(recipe, out=run, device="cpu", precision="fp32", report=False, cache=False, display=Display())
    command = [sys.executable, "-m", "uda", "predict", str(run), pattern, "-o", str(out / "predictions"), "--engine", "ray"]
    began = time.monotonic()
    engine = subprocess.Popen(command, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
    while len(list((out / "predictions").glob("*.parquet"))) < 10:
        time.sleep(0.05)
    workers = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_worker(path, engine.pid)]
    os.kill(workers[0], signal.SIGKILL)
    print(f"one of {len(workers)} workers is killed", flush=True)
    print(f"exit code {engine.wait()}, {time.monotonic() - began:.0f} s")
    found: Counter[str] = Counter()
    for path in (out / "predictions").glob("*.parquet"):
        found.update(parquet.read_table(path).column("path").to_pylist())
    print(json.dumps({"images": len(found), "missing": 10_000 - len(found), "twice": sum(n > 1 for n in found.values())}))


def _is_worker(process: Path, driver: int) -> bool:
    """Whether a process is a Ray worker that a driver of ours has started."""
    try:
        name = (process / "cmdline").read_bytes()
        above = process
        for _ in range(4):
            parent = int((above / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == driver:
                return name.startswith(b"ray::_attempt")
            above = Path("/proc") / str(parent)
    except (OSError, ValueError, IndexError):
        pass
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "predict"))
    parser.add_argument("--out", type=Path, default=Path("runs/shards"))
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    (given.out / given.what).mkdir(parents=True)
    {"memory": memory, "predict": predict}[given.what](given.out / given.what, given.steps)
    print(where())


if __name__ == "__main__":
    main()
