"""Reading a large folder of images: images per second and peak memory, beside torchvision's ImageFolder and DataLoader.

    python benchmarks/folders.py --images 200000 --side 64 --rounds 3

Writes that many small JPEGs once (10 class folders), then, in turn and each in a process of its own: decodes all of them in
shuffled batches of 256 by both readers, with as many workers; and fits a few steps of the recipe `folders` from them. Memory is
the proportional set size of the process and its workers together, looked at five times a second; beside its peak stands what
the same program takes for 1,000 of the images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cells import where
from PIL import Image

BATCH, WORKERS = 256, os.cpu_count() or 1
FEW = 1000


def write(folder: Path, count: int, side: int) -> None:
    """Noise of low frequency, so that the files are as small as photographs of that size."""
    draws = np.random.default_rng(0)
    for number in range(10):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / str(number % 10) / f"{number:06d}.jpg", quality=90)


def read_by_uda(folder: Path, side: int) -> int:
    from uda.data.files import ImageFiles, read
    from uda.data.folders import find
    from uda.data.frame import Frame

    found = find(folder, labelled=True)
    images = ImageFiles(found.root, found.names, Frame(side, 3))
    return sum(len(part) for part in read(images, torch.randperm(len(images)).split(BATCH)))


def read_by_torchvision(folder: Path, side: int) -> int:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

    images = ImageFolder(str(folder), Compose([Resize(side), CenterCrop(side), PILToTensor()]))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=WORKERS)
    return sum(len(part) for part, _ in loader)


def fit_from(folder: Path, side: int) -> int:
    from uda import fit

    overrides = {"data.source": str(folder), "data.target": str(folder), "training.steps": 20, "classifier.steps": 20}
    with tempfile.TemporaryDirectory() as out:
        run = fit("folders", out=Path(out) / "run", overrides=overrides | {"data.size": side})
        return run.result["source"]["train"]


PARTS = {"uda": read_by_uda, "torchvision": read_by_torchvision, "fit": fit_from}


def memory(process: int) -> int:
    """Proportional set size of a process and its children, bytes."""
    total = 0
    for one in (process, *map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure(part: str, folder: Path, side: int) -> tuple[float, float, float]:
    """Seconds of the work itself, images per second, and peak memory in MiB."""
    words = [sys.executable, __file__, "--part", part, "--folder", str(folder), "--side", str(side)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, memory(process.pid))
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(0.2)
    assert process.stdout is not None
    count, seconds = process.stdout.read().split()[-2:]
    return float(seconds), int(count) / float(seconds), peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the images are, or are to be written; else a temporary folder")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        began = time.perf_counter()
        count = PARTS[given.part](given.folder, given.side)
        print(count, time.perf_counter() - began)
        return

    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "all").exists():
            write(folder / "all", given.images, given.side)
            write(folder / "few", FEW, given.side)
        figures: dict[str, list[tuple[float, float, float]]] = {"uda": [], "torchvision": []}
        for _ in range(given.rounds):
            for part, rows in figures.items():
                rows.append(measure(part, folder / "all", given.side))
        few = {part: measure(part, folder / "few", given.side)[2] for part in PARTS}
        figures["fit"] = [measure("fit", folder / "all", given.side)]

    held = given.images * 3 * given.side**2 / 2**20
    print(
        f"\n{given.images:,} JPEGs of {given.side} x {given.side}; decoded they would take {held:,.0f} MiB; {WORKERS} workers\n"
    )
    print(f"| | images per second | peak memory, MiB | with {FEW:,} images, MiB | seconds |\n|---|---|---|---|---|")
    names = {"uda": "uda", "torchvision": "torchvision ImageFolder + DataLoader", "fit": "uda fit: all checked, 20 + 20 steps"}
    for part, rows in figures.items():
        seconds, speed, peak = (statistics.median(column) for column in zip(*rows, strict=True))
        spread = f" ({min(row[1] for row in rows):,.0f} .. {max(row[1] for row in rows):,.0f})" if len(rows) > 1 else ""
        shown = f"{speed:,.0f}{spread}" if part != "fit" else ""
        print(f"| {names[part]} | {shown} | {peak:,.0f} | {few[part]:,.0f} | {seconds:.0f} |")
    ratios = [a[1] / b[1] for a, b in zip(figures["uda"], figures["torchvision"], strict=True)]
    print(f"\nuda / torchvision, images per second: {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})")
    print(f"\n{where()}")


if __name__ == "__main__":
    main()
