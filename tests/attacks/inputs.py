"""Wrong inputs of all classes by the real command line: each ends in one line with exit code 2, and writes nothing.

``python -m tests.attacks.inputs --out inputs.jsonl`` goes through all of them; a list that is there is gone on with. An input
that turns out to be none that is wrong (exit code 0) is not counted. `tests.attacks.test_inputs` has the short form.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from tests.attacks import test_inputs
from tests.attacks.harness import attack, listed
from tests.attacks.kills import import_what_is_imported
from tests.attacks.test_edited import changed
from tests.attacks.test_inputs import ATTACKS, image
from tests.attacks.test_settings import WRONG, answer, keys
from tests.conftest import TINY
from uda.methods import METHODS
from uda.training.fit import fit as fit_run

SECONDS = 120  # of a command, on a busy machine


@dataclass(frozen=True)
class Wrong:
    """One wrong input.

    Attributes:
        kind: its class, and what tells it from others of that.
        name: of it, within its class.
        make: makes files in a folder, beside what `lay_out` makes.
        words: of the command.
    """

    kind: str
    name: str
    make: Callable[[Path], object]
    words: list[str]


def lay_out(folder: Path, run: Path) -> None:
    """What right commands read: labelled images ``s``, others ``t``, a recipe ``r.toml``, and a finished run ``run``."""
    for name in ("s/a/1.png", "s/a/2.png", "s/b/3.png", "s/b/4.png", "t/5.png", "t/6.png"):
        image(folder / name)
    (folder / "r.toml").write_text(TINY)
    shutil.copytree(run, folder / "run")


CPU = ["--device", "cpu"]
FIT = ["fit", "--recipe", "r.toml", "--source", "./s", "--target", "./t", "--method", "mcc", "--precision", "fp32", *CPU]
RIGHT: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "fit": (
        [*FIT, "--dry-run"],
        (
            "--recipe", "--source", "--target", "--source-test", "--target-test", "--model", "--weights", "--backbone-weights",
            "--split", "--size", "--method", "--seed", "--data-root", "--device", "--precision", "--set",
        ),
    ),
    "fit, not dry": ([*FIT, "-o", "r.toml"], ("-o", "--track", "--seeds", "--trust", "--resume")),
    "resume": (["fit", "--resume", "run"], ("--resume",)),
    "inspect": (
        ["inspect", "--source", "./s", "--target", "./t", "-o", "t", *CPU],
        ("--source", "--target", "--model", "--weights", "--backbone-weights", "--size", "--set", "--device"),
    ),
    "predict": (
        ["predict", "run", "t", *CPU],
        ("run", "t", "-o", "--which", "--reject", "--engine", "--address", "--device", "--precision"),
    ),
    "evaluate": (["evaluate", "run", "--data", "./s", *CPU], ("run", "--data", "-o", "--which", "--device", "--precision")),
    "translate": (
        ["translate", "run", "t", *CPU],
        ("run", "t", "-o", "--to", "--samples", "--reference", "--interpolate", "--seed", "--device", "--precision"),
    ),
    "check": (["check", "run", "--csv", "t", "--labels", "2"], ("run", "--labels", "--seed", "--answers")),
    "export": (["export", "run", "--format", "torch"], ("run", "--format", "-o", "--which")),
    "report": (["report", "run"], ("run",)),
    "compare": (["compare", "run", "-o", "t"], ("run",)),
    "shards": (["shards", "t", "-o", "s"], ("t", "--images", "--seed")),
    "recipes show": (["recipes", "show", "x"], ("x",)),
    "sweep": (["sweep", "r.toml", "--dry-run"], ("r.toml", "--address", "--device", "--precision")),
}  # fmt: skip
"""right commands, but for an output of some that would replace something; and what is put in the place of which words in turn"""


def written(name: str, content: bytes = b"text\n") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


VALUES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nothing": ("", lambda folder: None),
    "spaces": ("  ", lambda folder: None),
    "nowhere": ("no/such/thing", lambda folder: None),
    "a folder": ("d", lambda folder: (folder / "d").mkdir()),
    "a folder of text": ("e", lambda folder: ((folder / "e").mkdir(), (folder / "e/a.txt").write_text("a"))),
    "a file": ("f", written("f")),
    "a file without end": ("z", lambda folder: (folder / "z").symlink_to("/dev/zero")),
    "a pipe": ("p", lambda folder: os.mkfifo(folder / "p")),
    "a link to itself": ("l", lambda folder: (folder / "l").symlink_to("l")),
    "300 letters": ("x" * 300, lambda folder: None),
    "control letters": ("a\x1b[2J\r\n", lambda folder: None),
    "no UTF-8": (os.fsdecode(b"\xff\xfe"), lambda folder: None),
    "markup": ("[/red]$\\foo$", lambda folder: None),
    "a word": ("many", lambda folder: None),
    "below zero": ("-3", lambda folder: None),
    "a fraction": ("0.5", lambda folder: None),
    "not a number": ("nan", lambda folder: None),
    "beyond 64 bits": (str(2**70), lambda folder: None),
    "a table": ("{a=1}", lambda folder: None),
    "a pair": ("a=1", lambda folder: None),
    "an option": ("--no-such-option", lambda folder: None),
    **{f"text for .{end}": (f"x.{end}", written(f"x.{end}")) for end in ("csv", "npz", "tar", "toml", "pt", "png")},
    "code without that": ("x.py:Net", written("x.py", b"a = 1\n")),
    "code that is none": ("y.py:Net", written("y.py", b"\xff(\n")),
    "a module without that": ("json:Net", lambda folder: None),
    "a network that nobody has": ("timm:no_such_network", lambda folder: None),
}  # fmt: skip


def in_place(words: list[str], old: str, new: str) -> list[str]:
    """Words with another value: of a flag, whether it stood there or not, or of an argument."""
    if not old.startswith("-"):
        return [new if number == words.index(old) else word for number, word in enumerate(words)]
    if old not in words:
        return [*words, old, new]
    return [new if number == words.index(old) + 1 else word for number, word in enumerate(words)]


def arguments() -> Iterator[Wrong]:
    """Each argument and option of each command, with values of every kind."""
    for command, (words, places) in RIGHT.items():
        for place in places:
            for value, (given, make) in VALUES.items():
                yield Wrong(f"{command}: arguments", f"{place} is {value}", make, in_place(words, place, given))


def settings() -> Iterator[Wrong]:
    """Each key of the recipe, and of each method, with values of other kinds, or misspelled."""
    paths = ("--source", "./s", "--target", "./t", "--dry-run", "--set")
    seen: set[str] = set()  # what several methods have is tried once
    for method in METHODS:
        for key in (key for key in keys(method) if key not in seen):
            seen.add(key)
            named = {literal(value): (key, value) for value in WRONG if value is not None} | {"misspelled": (f"{key}s", 1)}
            for name, (wrong, value) in named.items():
                if answer(method, wrong, value):  # else there is nothing wrong with it
                    words = ["fit", "--recipe", "folders", "--method", method, *paths, f"{wrong}={literal(value)}"]
                    yield Wrong("fit: settings", f"{method} {key} {name}", lambda folder: None, words)


def literal(value: object) -> str:
    """A value as TOML has it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {literal(inner)}' for key, inner in value.items())}}}"
    return str(value) if isinstance(value, float) else json.dumps(value)


BAD_DATA = {
    "only_broken_images": ".", "floats": ".", "whole_numbers_of_32_bits": ".", "a_pipe": ".", "a_device": "t.csv",
    "a_table_that_is_a_pipe": "t.csv", "a_table_with_semicolons": "t.csv", "a_table_with_labels_first": "t.csv",
    "a_table_with_zero_bytes": "t.csv", "four_hundred_million_pixels": ".", "one_array_by_another_name": "a.npz",
    "encrypted": "a.npz", "nine_hundred_tebibytes": "a.npz", "a_zip_bomb": "a.npz", "no_side": "a.npz",
    "labels_in_two_columns": "a.npz", "labels_between_numbers": "a.npz",
}  # fmt: skip
READING = {
    "fit": ("--source", "--target", "--source-test", "--target-test"),
    "inspect": ("--source", "--target"),
    "predict": ("t",),
    "evaluate": ("--data",),
    "translate": ("t", "--reference", "--interpolate"),
    "shards": ("t",),
}


def beside(made: Callable[[Path, str], object], folder: Path) -> None:
    """The files of a single one, in a folder of their own."""
    (folder / "bad").mkdir()
    made(folder / "bad", "")


def data() -> Iterator[Wrong]:
    """Images, tables and arrays that are wrong, wherever a command reads some."""
    for name, path in BAD_DATA.items():
        make = partial(beside, getattr(test_inputs, name))
        for command, places in READING.items():
            for place in places:
                words = in_place(RIGHT[command][0], place, f"./bad/{path}".removesuffix("/."))
                yield Wrong(f"{command}: data", f"{place}: {name}", make, words)


LOOKS = {
    "predict": ["predict", "run", "t", *CPU],
    "evaluate": ["evaluate", "run", "--data", "./s", *CPU],
    "translate": ["translate", "run", "t", *CPU],
    "check": ["check", "run", "--csv", "c.csv", "--labels", "2"],
    "export": ["export", "run", "--format", "torch"],
    "report": ["report", "run"],
    "compare": ["compare", "run"],
    "resume": ["fit", "--resume", "run"],
}


def replaced(name: Path, put: Callable[[Path], object], folder: Path) -> None:
    (folder / name).unlink()
    put(folder / name)


def run_files(run: Path) -> Iterator[Wrong]:
    """Each file of a run that is another, at each command that opens runs."""
    files = [file for file in sorted(run.rglob("*")) if file.is_file() and file.suffix not in (".html", ".png", ".pt")]
    instead: dict[str, Callable[[Path], object]] = {
        "a folder": Path.mkdir,
        "a pipe": lambda path: os.mkfifo(path),
        "a file without end": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path.name),
    }
    for file in files:
        ways = {way: (lambda path, new=new: new is None or path.write_bytes(new)) for way, new in changed(file, files)} | instead
        for way, put in ways.items():
            make = partial(replaced, Path("run") / file.relative_to(run), put)
            for command, words in LOOKS.items():
                yield Wrong(f"{command}: run folder", f"{file.relative_to(run)} {way}", make, words)


def single() -> Iterator[Wrong]:
    """The single ones of the short form."""
    for name, made in ATTACKS.items():
        yield Wrong("single", name, made, [])  # type: ignore[arg-type]


def judged(wrong: Wrong, folder: Path, run: Path) -> str:
    """``"refused"``, ``"taken"`` (it was not wrong), or what is bad."""
    folder.mkdir()
    if wrong.words:
        lay_out(folder, run)
        wrong.make(folder)
        words = wrong.words
    else:
        words = wrong.make(folder, str(run))  # type: ignore[call-arg]
    before = stamps(folder)
    outcome = attack(words, folder, SECONDS)
    if outcome.code == 0:
        return "taken"
    if not outcome.refused:
        return f"bad: code {outcome.code}, {outcome.err[-400:]}"
    new = {str(path) for path, time in stamps(folder).items() if before.get(path) != time}
    return f"bad: wrote {sorted(new)}" if new else "refused"


def stamps(folder: Path) -> dict[Path, int]:
    return {path.relative_to(folder): path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("inputs.jsonl"))
    parser.add_argument("--only", nargs="*", default=["single", "arguments", "data", "run_files", "settings"])
    given = parser.parse_args()
    rows = listed(given.out)
    known = {(row["kind"], row["name"]) for row in rows}
    with tempfile.TemporaryDirectory() as made, given.out.open("a") as log:
        root = Path(made)
        for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
            os.environ[name] = str(root / "home")
        os.environ.pop("UDA_DATA", None)
        torch.set_num_threads(1)
        (root / "tiny.toml").write_text(TINY)
        run = root / "first" / "run"
        begin = partial(fit_run, root / "tiny.toml", out=run, data_root=root, device="cpu", precision="fp32")
        import_what_is_imported(begin, root / "first-run")
        tables = {
            "single": single, "arguments": arguments, "data": data, "run_files": partial(run_files, run), "settings": settings,
        }  # fmt: skip
        number = 0
        for wrong in (each for name in given.only for each in tables[name]()):
            if (wrong.kind, wrong.name) in known:
                continue
            number += 1
            row = {"kind": wrong.kind, "name": wrong.name, "outcome": judged(wrong, root / str(number), run)}
            shutil.rmtree(root / str(number), ignore_errors=True)
            rows.append(row)
            print(json.dumps(row), file=log, flush=True)
    counted = Counter((row["kind"], row["outcome"].partition(":")[0]) for row in rows)
    print(f"{'class':<28}{'refused':>8}{'taken':>8}{'bad':>8}")
    for kind in sorted({kind for kind, _ in counted}):
        print(f"{kind:<28}" + "".join(f"{counted[kind, end]:>8}" for end in ("refused", "taken", "bad")))
    sys.exit(any(end == "bad" for _, end in counted))


if __name__ == "__main__":
    main()
