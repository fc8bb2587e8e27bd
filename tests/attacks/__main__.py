"""The long form of all attacks, one after another: ``python -m tests.attacks --out FOLDER``, two hours on two quiet cores.

What each prints is kept in FOLDER, beside its list, which is gone on with where the command is given again. `faults` takes
root, on Linux. The last line says whether all is well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FORMS = {
    "kills": ["--out", "kills.jsonl"],
    "signals": ["--out", "signals.jsonl", "--count", "200"],
    "inputs": ["--out", "inputs.jsonl"],
    "faults": ["--out", "faults.jsonl"],
    "fuzz": ["--cases", "20000"],
    "steady": [],
    "imports": ["--count", "20"],
}
"""their options, where those that end in .jsonl lie in the folder"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("attacks"))
    parser.add_argument("--only", nargs="*", choices=FORMS, default=list(FORMS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    bad = []
    for name in given.only:
        words = [str(given.out / word) if word.endswith(".jsonl") else word for word in FORMS[name]]
        with (given.out / f"{name}.txt").open("w") as said:
            ended = subprocess.run([sys.executable, "-m", f"tests.attacks.{name}", *words], stdout=said, stderr=subprocess.STDOUT)
        print(f"{name}: {'as it has to be' if ended.returncode == 0 else 'look at'} {said.name}", flush=True)
        bad += [name] if ended.returncode else []
    print(f"not well: {', '.join(bad)}" if bad else "all is well")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
