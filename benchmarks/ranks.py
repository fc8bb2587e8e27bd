"""One run in several processes against the same in one: weights after a few steps, accuracies, and a process that dies.

python benchmarks/ranks.py equal                                   # every method, five steps
python benchmarks/ranks.py accuracy synth2digits --seeds 0 1 2
python benchmarks/ranks.py kill --times 10
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from tests.two_processes import STEPS, TRAINED, weights_after

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def equal(names: list[str], double: bool) -> dict[str, float]:
    """By method, the largest difference of a weight between one process and two, after five steps without augmentation."""
    with tempfile.TemporaryDirectory() as folder:
        of_two = Path(folder) / "two.pt"
        subprocess.run(
            [*TORCHRUN, "-m", "tests.two_processes", str(of_two), str(STEPS), *(["double"] if double else [])], check=True
        )
        found = torch.load(of_two)
    return {
        name: max(apart(value, found[name][key]) for key, value in weights_after(name, double=double).items()) for name in names
    }


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors' numbers."""
    return float((a.double() - b.double()).abs().amax()) if a.numel() else 0.0


def last(recipe: str, seed: int, several: bool, options: list[str], folder: Path) -> tuple[float, float]:
    """The accuracy ``last`` of a run, and its seconds; a run that `folder` holds already is not made again."""
    program = TORCHRUN if several else [sys.executable]
    out = folder / f"{recipe}-{seed}-{1 + several}"
    if not (out / "result.json").exists():
        wanted = ["--recipe", recipe, "--seed", str(seed), "--out", str(out), "--no-cache", *options]
        subprocess.run([*program, "-m", "uda", "fit", *wanted], check=True, stdout=subprocess.DEVNULL)
    result = json.loads((out / "result.json").read_text())
    return result["accuracy"]["last"], result["seconds"]["total"]


def kill_once(delay: float, options: list[str], out: Path) -> tuple[int, list[str]]:
    """Kills one of two processes `delay` seconds after the run folder was made; the exit code, and what uda said on stderr."""
    command = [*TORCHRUN, "-m", "uda", "fit", "--recipe", "synth2digits", "--out", str(out), *options]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "recipe.toml").exists() and run.poll() is None:
        time.sleep(0.1)
    time.sleep(delay)
    if run.poll() is not None:
        raise SystemExit(f"the run ended within {delay:.0f} s; give another --longest")
    listed = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(random.choice(listed)), signal.SIGKILL)
    said = run.communicate()[1]
    return run.returncode, [line for line in said.splitlines() if line.startswith("uda:")]


def kill(times: int, options: list[str], longest: float) -> None:
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(times):
            out, delay = Path(folder) / str(number), random.uniform(0, longest)
            code, said = kill_once(delay, options, out)
            came = (out / "metrics.jsonl").read_text().count("\n") if (out / "metrics.jsonl").exists() else 0
            subprocess.run([sys.executable, "-m", "uda", "fit", "--resume", str(out)], check=True, stdout=subprocess.DEVNULL)
            resumed = (out / "result.json").exists() and not (out / "checkpoint.pt").exists()
            print(f"| {delay:.1f} | {came} | {code} | {' / '.join(said)} | {resumed} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equal", "accuracy", "kill"])
    parser.add_argument("recipe", nargs="?", default="synth2digits")
    parser.add_argument("--methods", nargs="+", default=TRAINED)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of the run folder within which a process is killed")
    parser.add_argument("--out", type=Path, help="a folder that keeps the runs, to be gone on with")
    parser.add_argument("--set", dest="options", nargs="*", default=[], help="settings of the runs, KEY=VALUE")
    asked = parser.parse_args()
    options = [word for setting in asked.options for word in ("--set", setting)]
    if asked.what == "equal":
        single, double = (equal(asked.methods, double) for double in (False, True))
        for name, difference in single.items():
            print(f"| {name} | {difference:.1e} | {double[name]:.1e} |")
    elif asked.what == "kill":
        kill(asked.times, options, asked.longest)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for seed in asked.seeds:
                kept = asked.out or Path(folder)
                one, two = (last(asked.recipe, seed, several, options, kept) for several in (False, True))
                print(f"| {asked.recipe} | {seed} | {one[0]:.4f} | {two[0]:.4f} | {one[1]:.0f} | {two[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
