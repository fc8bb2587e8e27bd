"""Files that are damaged at random, given to each reader: none may crash, hang, take much memory, run code or write a file.

``python -m tests.attacks.fuzz --cases 20000`` runs the long form and prints a table; a seed and a number name a case.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import signal
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from uda.data.arrays import open_arrays
from uda.data.folders import find
from uda.data.frame import Frame, decode
from uda.errors import UserError
from uda.models.weights import load_weights
from uda.recipe.load import load_recipe
from uda.runs.folder import RunFolder

SECONDS, BYTES, BLOCK = 10, 2**30, 50  # of a case, beyond what the process had, and cases in one process
INTERESTING = (b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00" * 8, b"\xff" * 8)


class Canary:
    """Would write a file where unpickling ran code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("code-was-run",)


def image_bytes(kind: str, mode: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind)
    return out.getvalue()


def npz_bytes(save_as: Callable[..., None] = np.savez) -> bytes:
    out = io.BytesIO()
    save_as(out, images=np.zeros((3, 8, 8), np.uint8), labels=np.arange(3), note="drawn")
    return out.getvalue()


def torch_bytes(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def canary_npz() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("images.npy", "w") as member:
        np.lib.format.write_array(member, np.array([Canary()], object), allow_pickle=True)
    return out.getvalue()


def read_arrays(path: Path) -> None:
    with open_arrays(path) as file:
        file.images(), file.labels(), file.note()


STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}
CHECKPOINT = {
    "stage": "x", "method": STATE, "players": {}, "batches": {}, "random": {}, "seconds": {"x": 1.0}, "spent": 1.0,
    "troubles": {},
}  # fmt: skip
ENVIRONMENT = {
    "format": 2, "device": "cpu", "precision": "fp32", "data_root": "", "versions": {"uda": "1"}, "machine": "m", "threads": 1,
    "started": "now",
}  # fmt: skip
RECIPE = b'name = "r"\nseed = 1\n[data]\nsource = "synth"\ntarget = "digits"\n[method]\nname = "mcc"\n[training]\nsteps = 3\n'
READERS: dict[str, tuple[str, Callable[[Path], object], list[Callable[[], bytes]]]] = {
    "image": (
        "a.png",
        lambda path: decode(path, Frame(8, 3)),
        [
            lambda kind=kind, mode=mode: image_bytes(kind, mode)  # type: ignore[misc]
            for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("BMP", "RGB"), ("GIF", "P"))
        ]
        + [lambda: image_bytes("TIFF", "F"), lambda: image_bytes("WEBP", "RGB"), lambda: image_bytes("PPM", "L")],
    ),
    "npz": ("a.npz", read_arrays, [npz_bytes, lambda: npz_bytes(np.savez_compressed), canary_npz]),
    "safetensors": ("a.safetensors", lambda path: load_weights(path, torch.nn.Linear(3, 2)), [lambda: save(STATE)]),
    "weights": (
        "a.pt",
        lambda path: load_weights(path, torch.nn.Linear(3, 2)),
        [lambda: torch_bytes(STATE), lambda: torch_bytes({"weight": Canary()}), lambda: pickle.dumps(Canary())],
    ),
    "checkpoint": (
        "checkpoint.pt",
        lambda path: RunFolder(path.parent).read_checkpoint(),
        [lambda: torch_bytes(CHECKPOINT), lambda: torch_bytes(Canary())],
    ),
    "json": (
        "environment.json",
        lambda path: RunFolder(path.parent).read_environment(),
        [lambda: json.dumps(ENVIRONMENT).encode(), lambda: b"[" * 5000],
    ),
    "csv": ("a.csv", lambda path: find(path, labelled=True), [lambda: b"path,label\n" + b'a.png,cat\nb/c.jpg,"a dog"\n' * 3]),
    "toml": ("a.toml", load_recipe, [lambda: RECIPE]),
}


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
    """How cases ended, by reader: ``read``, ``refused`` in a line, or what must not be."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


def case(reader: str, seed: int, number: int, folder: Path) -> str:
    """One case in this process, which alone may be killed by its limits. How it ended."""
    name, read, seeds = READERS[reader]
    chance = random.Random(f"{reader} {seed} {number}")
    (folder / name).write_bytes(damaged(chance.choice(seeds)(), chance))
    signal.alarm(SECONDS)
    try:
        read(folder / name)
        end = "read"
    except UserError as error:
        end = "refused" if "\n" not in str(error) else "refused in several lines"
    except Exception as error:  # a decoder of images may raise anything, which ends in a line of unreadable.txt
        end = "refused" if reader == "image" else f"{type(error).__name__}: {error}"
    signal.alarm(0)
    written = set(os.listdir(folder)) - {name}
    return f"wrote {written}" if written else end


def block(reader: str, seed: int, numbers: range, folder: Path) -> list[str]:
    """How each case ended; the process ends with the first that is killed, and all after it are left out."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for number in numbers:
            os.write(theirs, (case(reader, seed, number, folder).replace("\n", " ")[:200] + "\n").encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as ends:
        lines = ends.read().splitlines()
    _, status = os.waitpid(child, 0)
    return lines if status == 0 else [*lines, f"killed by signal {os.waitstatus_to_exitcode(status)}"]


def fuzz(cases: int, seed: int = 0) -> Report:
    """So many cases, shared out evenly among the readers."""
    report = Report()
    for reader in READERS:
        ends = report.ends.setdefault(reader, Counter())
        done, wanted = 0, cases // len(READERS)
        with tempfile.TemporaryDirectory() as folder:
            while done < wanted:
                numbers = range(done, min(done + BLOCK, wanted))
                found = block(reader, seed, numbers, Path(folder))
                for number, end in zip(numbers, found, strict=False):
                    ends[end if end in ("read", "refused") else "bad"] += 1
                    if end not in ("read", "refused"):
                        report.bad.append(f"{reader}, seed {seed}, case {number}: {end}")
                done += len(found)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = fuzz(given.cases, given.seed)
    for reader, ends in result.ends.items():
        print(f"{reader:12} {dict(ends)}")
    print("\n".join(result.bad) or "none was bad")
