"""Files that are damaged at random, given to each reader: none may crash, hang, take much memory, run code or write a file.

``python -m tests.attacks.fuzz --cases 20000`` runs the long form and prints a table; a seed and a number name a case. ``--only``
takes some of the kinds, which `tests.attacks.kinds` has.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.attacks.cases import write_data, write_more
from tests.attacks.kinds import READERS, Kind, kinds
from uda.data import files
from uda.errors import UserError

SECONDS, BYTES, BLOCK = 10, 2**30, 50  # of a case, beyond what the process had, and cases in one process
INTERESTING = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00" * 8, b"\xff" * 8)


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """The seed file with one to four damages; as it is, once in a while."""
    made = bytearray(seed)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        at, length = chance.randrange(len(made) + 1), chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0:
                made[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                made[at : at + length] = b""
            case 2:
                made[at:at] = bytes(chance.randrange(256) for _ in range(length))
            case 3:
                wanted = chance.choice(INTERESTING)
                made[at : at + len(wanted)] = wanted
            case 4:
                made[at:at] = made[at : at + length] * chance.choice((1, 2, 100))
            case 5:
                del made[at:]
    return bytes(made)


@dataclass
class Report:
    """How cases ended, by kind: ``read``, ``refused`` in a line, or what must not be."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


def case(name: str, kind: Kind, seed: int, number: int, folder: Path) -> str:
    """One case in this process, which alone may be killed by its limits. How it ended."""
    chance = random.Random(f"{name} {seed} {number}")
    content = chance.choice(kind.seeds)()
    structured = kind.change is not None and chance.random() < 0.5
    (folder / kind.name).write_bytes(kind.change(content, chance) if structured and kind.change else damaged(content, chance))
    before = set(folder.rglob("*"))
    signal.alarm(SECONDS)
    try:
        kind.read(folder / kind.name)
        end = "read"
    except UserError as error:
        end = "refused" if "\n" not in str(error) else "refused in several lines"
    except Exception as error:  # a decoder of images may raise anything, which ends in a line of unreadable.txt
        end = "refused" if name == "image" else f"{type(error).__name__}: {error}"
    signal.alarm(0)
    written = {str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before}
    return f"wrote {written}" if written else end


def block(name: str, kind: Kind, seed: int, numbers: range, folder: Path) -> list[str]:
    """How each case ended; the process ends with the first that is killed, and all after it are left out."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
        files.READERS = 0
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for number in numbers:
            os.write(theirs, (case(name, kind, seed, number, folder).replace("\n", " ")[:200] + "\n").encode(errors="replace"))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as ends:
        lines = ends.read().splitlines()
    _, status = os.waitpid(child, 0)
    return lines if status == 0 else [*lines, f"killed by signal {os.waitstatus_to_exitcode(status)}"]


def fuzz(cases: int, known: Mapping[str, Kind] = READERS, seed: int = 0) -> Report:
    """So many cases, shared out evenly among the kinds."""
    report = Report()
    for name, kind in known.items():
        ends = report.ends.setdefault(name, Counter())
        done, wanted = 0, cases // len(known)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "case"
            shutil.copytree(kind.beside, folder) if kind.beside else folder.mkdir()
            while done < wanted:
                numbers = range(done, min(done + BLOCK, wanted))
                found = block(name, kind, seed, numbers, folder)
                for number, end in zip(numbers, found, strict=False):
                    ends[end if end in ("read", "refused") else "bad"] += 1
                    if end not in ("read", "refused"):
                        report.bad.append(f"{name}, seed {seed}, case {number}: {end}")
                done += len(found)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        os.environ |= {"XDG_STATE_HOME": str(root / "state"), "XDG_CACHE_HOME": str(root / "cache")}
        write_data(root / "data")
        write_more(root / "data")
        known = kinds(root / "data" / "run", root)
        result = fuzz(given.cases, {name: known[name] for name in given.only or known}, given.seed)
    for name, ends in result.ends.items():
        print(f"{name:16} {dict(ends)}")
    print("\n".join(result.bad) or "none was bad")
    sys.exit(bool(result.bad))


if __name__ == "__main__":
    main()
