"""Stops a run before each of its file operations, goes on with it, and compares the folder with an uninterrupted one.

``python -m tests.attacks.kills --out kills.jsonl`` goes through all of them (hours); a list that is there is gone on with.
``--every N`` takes each N-th operation, ``--cases`` some of the runs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.attacks.cases import PLAIN, Case, cases, write_data, write_more
from tests.attacks.harness import listed
from uda import UserError
from uda.evaluation import study
from uda.models import weights
from uda.training import loop

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.rmtree")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
FIGURES = re.compile(rb"\d+(\.\d+)? (s|min|h)\b|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class Killer:
    """Counts the file operations under a folder, and kills the process before one of them."""

    def __init__(self, root: Path, last: int | None) -> None:
        self.root, self.last, self.count, self.names = str(root), last, 0, []
        sys.addaudithook(self.hear)
        self.halve(torch, "save", 1)
        self.halve(weights, "save_file", 1)
        fsync = os.fsync
        os.fsync = lambda file: (self.tick("fsync"), fsync(file))[1]  # type: ignore[assignment]

    def hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "fcntl.flock" or (event == "open" and self.mine(given[0]) and given[2] & WRITES):
            self.tick(event)
        elif event in CHANGES and (self.mine(given[0]) or (event in ("os.remove", "os.rmdir") and given[1] != -1)):
            self.tick(f"{event} {Path(os.fsdecode(given[0])).name}")

    def mine(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.root)

    def tick(self, name: str) -> None:
        self.count += 1
        self.names.append(name)
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def halve(self, module: Any, name: str, place: int) -> None:
        """A writer in C++ or Rust tells no hook of what it does: it is stopped before it begins, and when half is written."""
        write = getattr(module, name)

        def halved(*given: Any, **more: Any) -> None:
            mine, path = self.mine(given[place]), given[place]
            if mine:
                self.tick(name)
            write(*given, **more)
            if not mine:
                return
            path = Path(path)
            whole = path.read_bytes()
            os.truncate(path, len(whole) // 2)
            self.tick(f"half of {name}")
            with open(os.open(path, os.O_RDWR), "wb") as file:
                file.write(whole)

        setattr(module, name, halved)


def forked(work: Callable[[], Any], said: Path) -> int:
    """Does work in a forked process; returns how it ended, with what it raised in the file `said`."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        with open(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            loop.SAVE_EVERY = 0.0
            try:
                work()
                os._exit(0)
            except UserError as error:
                print(f"UserError: {error}", file=file, flush=True)
            except BaseException:
                traceback.print_exc(file=file)
                file.flush()
    finally:
        os._exit(1)


def import_what_is_imported(work: Callable[[], Any], place: Path) -> None:
    """Does work once in a forked process, and imports here what that has imported: no other fork then waits for it."""
    before, names = set(sys.modules), place.with_suffix(".modules")

    def run() -> None:
        work()
        names.write_text("\n".join(name for name in sys.modules if name not in before))

    assert forked(run, place.with_suffix(".txt")) == 0, place.with_suffix(".txt").read_text()
    for name in names.read_text().splitlines():
        with contextlib.suppress(ImportError):  # a name that a package has made up
            importlib.import_module(name)


def go_on(case: Case, out: Path) -> None:
    """What somebody does whose command was killed: gives the same one, and does what that says where it does so."""
    try:
        case.begin(out)
    except UserError as error:
        if case.flag not in str(error):
            raise
        case.go_on(out)


def content(root: Path) -> dict[str, Any]:
    """Everything below a folder, but for seconds and dates."""
    return {str(path.relative_to(root)): _content(path) for path in root.rglob("*") if path.is_file()}


def _content(path: Path) -> Any:
    if path.suffix == ".html":
        return FIGURES.sub(b"", re.sub(rb"<svg.*?</svg>", b"", path.read_bytes(), flags=re.S))
    if path.suffix == ".pt":  # holds the name that it was written under
        return {name: value.tolist() for name, value in torch.load(path, weights_only=True).items()}
    if path.name == "results.csv":
        return [row | {"seconds": ""} for row in csv.DictReader(path.read_text().splitlines())]
    if path.suffix not in (".json", ".jsonl"):
        return path.read_bytes()
    parts = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
    return [{key: value for key, value in json.loads(part).items() if key not in ("seconds", "started", "id")} for part in parts]


def attack(name: str, last: int | None, place: Path, data: Path) -> tuple[str, dict[str, Any]]:
    """One kill and what came of it.

    Returns:
        ``"same"`` is not known here: ``"ended"`` with the folder's content, ``"survived"`` where there are not so many
        operations, or what was said where it could not go on.
    """
    case = cases(data)[name]
    out, said = place / "run", place.with_suffix(".txt")
    place.mkdir()
    case.before(out)

    def run() -> None:
        killer = Killer(place, last)
        case.begin(out)
        (place.with_suffix(".count")).write_text("\n".join(killer.names))

    ended = forked(run, said)
    if last is not None and os.WIFSIGNALED(ended):
        ended = forked(lambda: go_on(case, out), said)
    elif last is not None and ended == 0:
        return "survived", {}
    return (said.read_text()[-2000:] if ended else "ended"), content(place)


def compare(whole: dict[str, Any], found: dict[str, Any]) -> str:
    """``"same"``, or what differs."""
    differing = [name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)]
    return f"differs: {', '.join(sorted(differing))}" if differing else "same"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("kills.jsonl"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--cases", nargs="*")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no attack after so long")
    given = parser.parse_args()
    began, known = time.monotonic(), {(row["case"], row["operation"]): row["outcome"] for row in listed(given.out)}
    with tempfile.TemporaryDirectory() as made, given.out.open("a") as log:
        root = Path(made)
        write_data(root / "data")
        if not given.cases or set(given.cases) - set(PLAIN):
            write_more(root / "data")
        study.shipped()  # the same for all, and computed without threads
        for name in given.cases or cases(root):
            case, first = cases(root / "data")[name], root / "first" / name
            first.parent.mkdir(exist_ok=True)
            case.before(first)
            import_what_is_imported(partial(case.begin, first), root / f"{name}-first")
            said, whole = attack(name, None, root / name, root / "data")
            assert said == "ended", said
            again, repeated = attack(name, None, root / f"{name}-again", root / "data")
            assert compare(whole, repeated) == "same", (again, compare(whole, repeated))
            operations = (root / f"{name}.count").read_text().splitlines()
            for number in range(1, len(operations) + 1, given.every):
                if (name, number) in known or time.monotonic() - began > given.seconds:
                    continue
                said, found = attack(name, number, root / f"{name}-{number}", root / "data")
                known[name, number] = outcome = compare(whole, found) if said == "ended" else said
                row = {"case": name, "operation": number, "of": len(operations), "before": operations[number - 1]}
                print(json.dumps(row | {"outcome": outcome}), file=log, flush=True)
    print(f"{'case':<12}{'killed':>8}{'same':>8}{'other':>8}")
    for name in dict.fromkeys(case for case, _ in known):
        outcomes = [outcome for (case, _), outcome in known.items() if case == name]
        same = outcomes.count("same")
        print(f"{name:<12}{len(outcomes):>8}{same:>8}{len(outcomes) - same:>8}")
    sys.exit(any(outcome != "same" for outcome in known.values()))


if __name__ == "__main__":
    main()
