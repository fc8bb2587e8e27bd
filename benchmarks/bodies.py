"""Whether bodies of many kinds run: a vision transformer, a ConvNeXt, a ResNet and a MobileNet of timm, through the command line.

    python benchmarks/bodies.py [--steps 8]

Random weights and drawn images, so nothing is downloaded: it says what works, and nothing of accuracy. Of each network, trained
whole and frozen: `uda fit`, then `uda predict` on the target's images and `uda export --format torch`, which compares what it
wrote with the classifier. Printed as Markdown: seconds of each command, or the line that it ended with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cells import where
from PIL import Image, ImageDraw

BODIES = ("vit_tiny_patch16_224", "convnext_atto", "resnet10t", "mobilenetv3_small_050", "efficientnet_lite0")
UDA = [sys.executable, "-m", "uda"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", nargs="+", default=BODIES, help="names of timm")
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    print("\n| body | trainable | fit | predict | export |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw_domain(root / "light", (235, 235, 235), 0)
        draw_domain(root / "dark", (30, 30, 60), 1)
        for body in given.bodies:
            for trainable in ("head", "all"):
                print(f"| {body} | {trainable} | {' | '.join(commands(root, body, trainable, given.steps))} |", flush=True)
    print(f"\n{given.steps} + {given.steps} steps of 8 images. {where()}")


def draw_domain(root: Path, paper: tuple[int, int, int], seed: int) -> None:
    """Sixteen images of each of three shapes, not square, in a domain's colours: ROOT/SHAPE/NUMBER.png."""
    draws = np.random.default_rng(seed)
    for shape in ("ellipse", "rectangle", "line"):
        (root / shape).mkdir(parents=True)
        for number in range(16):
            image = Image.new("RGB", (280, 240), paper)
            x, y = draws.integers(20, 120, 2).tolist()
            colour = tuple(draws.integers(60, 200, 3).tolist())
            getattr(ImageDraw.Draw(image), shape)((x, y, x + 100, y + 90), fill=colour, width=6)
            image.save(root / shape / f"{number}.png")


def commands(root: Path, body: str, trainable: str, steps: int) -> list[str]:
    """What each command took, or said."""
    run = root / f"{body}-{trainable}"
    settings = {
        "classifier.pretrained": "false", "classifier.trainable": trainable, "classifier.steps": steps, "classifier.batch": 8,
        "training.steps": steps, "training.batch": 8, "training.target_batch": 8,
    }  # fmt: skip
    fit: list[str | Path] = ["fit", "--source", root / "light", "--target", root / "dark", "-o", run]
    fit += ["--model", f"timm:{body}", "--no-cache"]
    fit += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    table = root / "predictions.csv"
    return [timed(fit), timed(["predict", run, root / "dark", "-o", table]), timed(["export", run, "--format", "torch"])]


def timed(command: list[str | Path]) -> str:
    """Seconds of a command of uda's, or its last line where it fails."""
    began = time.perf_counter()
    done = subprocess.run([*UDA, *map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"exit code {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    return f"{time.perf_counter() - began:.0f} s"


if __name__ == "__main__":
    main()
