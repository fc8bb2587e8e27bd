"""Ctrl-C at random moments while a real command imports: it ends with 130, in one line. ``python -m tests.attacks.imports``.

Until Python itself has started, which takes some hundredths of a second, nobody can listen; moments are drawn from there on.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

COMMAND = [sys.executable, "-m", "uda", "fit", "--recipe", "synth2digits", "--precision", "fp32", "--dry-run"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def listens(process: int) -> bool:
    """Whether it has a handler for SIGTERM, which Python by itself has not."""
    caught = Path(f"/proc/{process}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def begun() -> subprocess.Popen[bytes]:
    """A command that listens by now."""
    process = subprocess.Popen(COMMAND, **PIPES)  # type: ignore[call-overload]
    while not listens(process.pid):
        time.sleep(0.001)
    return process  # type: ignore[no-any-return]


def cpu(process: int) -> float:
    """Seconds of a core that it has had: on a busy machine, moments count by these."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    given = parser.parse_args()
    whole = begun()
    answer, _ = whole.communicate()
    took = sum(os.times()[2:4])
    chance, ends = random.Random(0), Counter[str]()
    while sum(ends.values()) < given.count:
        process = begun()
        until = cpu(process.pid) + chance.random() * 0.8 * took
        while process.poll() is None and cpu(process.pid) < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        if out == answer:  # it had ended, but for what Python does then
            continue
        known = (process.returncode, err) == (130, b"uda: stopped\n")
        ends["130, in one line" if known else f"{process.returncode}: {err.decode()[-300:]}"] += 1
    for end, count in ends.items():
        print(f"{count:>4}  {end}")
    sys.exit(len(ends) > 1)


if __name__ == "__main__":
    main()
