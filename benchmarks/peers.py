"""Side by side with peers: pytorch-adapt's DANN and MCD, skada's DANN, and this project's.

    python benchmarks/peers.py --epochs 7 --seeds 0 1 2

Every side adapts the same network (one that is trained on the source once, by a plain loop) on the same float arrays, without
augmentation, for the same number of steps with batches of the same size and Adam's learning rate of 1e-3. The peers have virtual
environments of their own, which this script makes; they see this environment's torch, so that all compute with the same build.
Each cell is a process of its own; the sides take turns, seed by seed. Lines of code are those of the scripts
in benchmarks/peer_scripts, without the call that measures them. What is finished is kept under --out.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from cells import where

from uda.console import Display
from uda.data.load import load_pair
from uda.data.names import data_roots
from uda.recipe.load import load_recipe

SCRIPTS = Path(__file__).parent / "peer_scripts"
sys.path.insert(0, str(SCRIPTS))
from network import Net  # noqa: E402

PACKAGES = {
    "with_pytorch_adapt": ["pytorch-adapt==0.0.83", "torchmetrics==0.9.3", "pytorch-metric-learning==1.6.3", "setuptools<81"],
    "with_skada": ["skada==0.6.0", "skorch==1.4.0"],
}
SIDES = [
    ("with_uda", "dann", "bf16"),
    ("with_uda", "dann", "fp32"),
    ("with_pytorch_adapt", "dann", "fp32"),
    ("with_skada", "dann", "fp32"),
    ("with_uda", "mcd", "bf16"),
    ("with_uda", "mcd", "fp32"),
    ("with_pytorch_adapt", "mcd", "fp32"),
]
"""script, method, precision"""


def python_of(out: Path, script: str) -> str:
    """The interpreter that runs a side; its environment is made where it is missing."""
    if script not in PACKAGES:
        return sys.executable
    folder = out / "environments" / script
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text("\n".join(site.getsitepackages()))
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[script]], check=True)
        (folder / "ready").touch()
    return str(python)


def prepare(out: Path, pair_name: str, batch: int) -> int:
    """Writes the arrays and the network that all sides start from; returns the number of source images."""
    if not (out / "network.pt").exists():
        out.mkdir(parents=True, exist_ok=True)
        pair = load_pair(load_recipe(pair_name).data, data_roots(None), Display(quiet=True))
        test = pair.target_test
        assert test is not None
        count = len(pair.source) // batch * batch
        arrays: dict[str, Any] = {"labels": pair.source.labels[:count], "test_labels": test.labels}
        for name, domain in {"source": pair.source, "target": pair.target, "test": test}.items():
            assert isinstance(domain.images, torch.Tensor)
            arrays[name] = domain.images.float().div(255).numpy()
        arrays["source"] = arrays["source"][:count]
        np.savez(out / "arrays.npz", **arrays)
        torch.manual_seed(0)
        network, labels = Net(), pair.source.labels
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(15):
            for rows in torch.randperm(count).split(batch):
                loss = F.cross_entropy(network(torch.from_numpy(arrays["source"][rows])), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            predicted = torch.cat([network(part).argmax(1) for part in torch.from_numpy(arrays["test"]).split(1000)])
        accuracy = float((predicted == test.labels).float().mean())
        note = f"{pair.source.note} -> {pair.target.note}"
        (out / "task.json").write_text(json.dumps({"source_only": accuracy, "note": note, "source_images": count}))
        torch.save(network.state_dict(), out / "network.pt")
    images: int = json.loads((out / "task.json").read_text())["source_images"]
    return images


def run(out: Path, side: tuple[str, str, str], steps: int, batch: int, seed: int) -> dict[str, float]:
    """One cell: seconds of adaptation, and accuracy on the target's test images."""
    script, method, precision = side
    kept = out / f"{script}-{method}-{precision}-{steps}-{seed}.json"
    if not kept.exists():
        command = [python_of(out, script), str(SCRIPTS / f"{script}.py"), str(out), "--method", method, "--precision", precision]
        command += ["--steps", str(steps), "--batch", str(batch), "--seed", str(seed)]
        environment = os.environ | {"PYTHONPATH": str(SCRIPTS.parents[1]), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        kept.write_text(done.stdout.splitlines()[-1])
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def lines_of_code(script: str) -> int:
    """Lines of what a user writes: without the docstring, the call that measures it, blank lines and comments."""
    text = (SCRIPTS / f"{script}.py").read_text().split('"""', 2)[2].partition("\nif __name__")[0]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", default="svhn2mnist", help="a recipe whose data and no other settings are used")
    parser.add_argument("--epochs", type=int, default=7, help="over the source images")
    parser.add_argument("--batch", type=int, default=128, help="images of each domain in a step")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    given = parser.parse_args()
    out = given.out.absolute()

    steps = given.epochs * prepare(out, given.pair, given.batch) // given.batch
    cells: dict[tuple[str, str, str], list[dict[str, float]]] = {side: [] for side in SIDES}
    for seed in given.seeds:
        for side in SIDES:
            cells[side].append(run(out, side, steps, given.batch, seed))
            print(*side, seed, cells[side][-1], flush=True)

    print("\n| method | side | precision | target accuracy | ms per step | lines of user code |\n|---|---|---|---|---|---|")
    for (script, method, precision), found in cells.items():
        accuracies, times = [cell["accuracy"] for cell in found], [1000 * cell["seconds"] / steps for cell in found]
        print(
            f"| {method} | {script.removeprefix('with_')} | {precision} "
            f"| {statistics.mean(accuracies):.4f} ({min(accuracies):.4f} .. {max(accuracies):.4f}) "
            f"| {statistics.median(times):.0f} ({min(times):.0f} .. {max(times):.0f}) | {lines_of_code(script)} |"
        )
    task = json.loads((out / "task.json").read_text())
    print(f"\n{steps} steps of {given.batch} + {given.batch}; before adaptation {task['source_only']:.4f}.")
    print(f"{task['note']}.\n{where()}")


if __name__ == "__main__":
    main()
