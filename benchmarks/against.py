"""Two checkouts of uda, in turn: how long the same few steps take, and whether they end in the same figures.

    python benchmarks/against.py ../before . svhn2mnist mnist2usps --rounds 3 --steps 12

Each round runs both checkouts, one after the other (and the other way round in the next), each in a process of its own. Printed
as Markdown: median seconds of the adaptation and of the whole run, their ratio (second to first), the ratios' spread, and whether
all of the accuracies, estimates, class consistency and feature distance are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUN = """
import sys, uda
run = uda.fit(sys.argv[1], seed=0, out=sys.argv[2], device="cpu", precision=sys.argv[3], report=False,
    overrides={"classifier.steps": int(sys.argv[4]), "training.steps": int(sys.argv[4]), "training.evaluate_every": 10**6})
"""


def measure(checkout: Path, recipe: str, precision: str, steps: int) -> dict[str, Any]:
    """The result of one run by one checkout."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [sys.executable, "-c", RUN, recipe, str(out), precision, str(steps)]
        subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(checkout.resolve())}, check=True)
        return dict(json.loads((out / "result.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", default="fp32")
    given = parser.parse_args()
    print("| recipe | seconds of adaptation | ratio | whole run | ratio | same figures |")
    print("|---|---|---|---|---|---|")
    for recipe in given.recipes:
        rounds = []
        for number in range(given.rounds):  # who goes first changes from round to round
            order = (given.first, given.second)[:: 1 if number % 2 == 0 else -1]
            done = {checkout: measure(checkout, recipe, given.precision, given.steps) for checkout in order}
            rounds.append((done[given.first], done[given.second]))
        cells = []
        for name in ("adaptation", "total"):
            first, second = ([pair[side]["seconds"][name] for pair in rounds] for side in (0, 1))
            ratios = [after / before for before, after in zip(first, second, strict=True)]
            cells.append(f"{statistics.median(first):.1f}, {statistics.median(second):.1f}")
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})")
        same = all(before[key] == after[key] for before, after in rounds for key in ("accuracy", "translation", "estimated"))
        print(f"| {recipe} | {' | '.join(cells)} | {'yes' if same else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
