"""The kinds of files that `tests.attacks.fuzz` damages: a whole one of each, what reads it, and how its values are changed."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import random
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from tests.conftest import drawn
from uda.cluster.shards import over_shards
from uda.cluster.spec import combinations, read_spec
from uda.console import Display
from uda.data.arrays import open_arrays
from uda.data.folders import find
from uda.data.frame import Frame, decode
from uda.data.shards import Done
from uda.inference.check import Drawn, draw, judge, keep, read_table
from uda.inference.shards import Asked, found_done, predict_shard
from uda.models.weights import load_weights
from uda.recipe.load import load_recipe
from uda.report.compare import compare, open_group
from uda.report.page import material_of, write_report
from uda.report.tables import comparison_table, result_table
from uda.runs.folder import RunFolder
from uda.runs.run import Run

Change = Callable[[bytes, random.Random], bytes]
QUIET = Display(quiet=True)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the file, in the folder of a case.
        read: what is tried with it.
        seeds: whole files, or such as must not do harm.
        beside: a folder, whose files lie around it.
        change: another file whose form is right, and one of its values is not.
    """

    name: str
    read: Callable[[Path], object]
    seeds: list[Callable[[], bytes]]
    beside: Path | None = None
    change: Change | None = None


class Canary:
    """Would write a file where unpickling ran code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("code-was-run",)


CODE = "open('code-was-run', 'w')\n"
"""as `Canary`, in a file that a recipe names"""


# Whole files


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


def tar_bytes(**more: Any) -> bytes:
    """A shard of three images, one of them with its class beside it, and what must not be followed or unpacked."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **more) as tar:
        for name, content in {
            "a/0.png": image_bytes("PNG", "L"), "a/1.jpg": image_bytes("JPEG", "RGB"), "2.png": image_bytes("PNG", "RGB"),
            "2.cls": b"b", "../outside.png": image_bytes("PNG", "L"),
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return out.getvalue()


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
SPEC = (
    b'recipes = ["synth2digits"]\nmethods = ["mcc", "dann"]\nseeds = [0, 1]\nsearch = "random"\ntrials = 2\n[settings]\n'
    b'"training.steps" = [20, 30]\nclassifier.width = [8]\n'
)
TABLE = "path,label\n" + 'a.png,cat\nb/c.jpg,"a dog"\n' * 3


# Changed values

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 1e308, 2**70, float("nan"), "", "x" * 300, "\x00", "\ud800", "$\\foo$", "[/red]", "<script>", "../..",
    [], {}, [[]], [0.5] * 3, {"a": {"b": 1}},
)  # fmt: skip
LITERALS = (
    "-1", "0", "0.5", "1e308", "nan", "true", '""', '"x"', "[]", "{}", "[[1]]", '"a\\u0000b"', "1e400", str(2**70), '"/dev/zero"',
    '"evil.py:X"', '"evil:X"', '"pipe:touch code-was-run"', '"pipe:touch code-was-run{0..1}.tar"', '"../../x.toml"',
)  # fmt: skip


def one_value(tree: Any, chance: random.Random) -> None:
    """Another value, or none, somewhere in a tree of dicts and lists."""
    places = range(len(tree)) if isinstance(tree, list) else list(tree)
    if not places:
        return
    place = chance.choice(places)
    if isinstance(tree[place], dict | list) and chance.random() < 0.7:
        one_value(tree[place], chance)
    elif chance.random() < 0.2:
        del tree[place]
    else:
        tree[place] = chance.choice(VALUES)


def json_changed(content: bytes, chance: random.Random) -> bytes:
    tree = json.loads(content)
    one_value(tree, chance)
    return json.dumps(tree).encode()


def lines_changed(content: bytes, chance: random.Random) -> bytes:
    """A line of JSON lines, or their order."""
    lines = content.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    if chance.random() < 0.2:
        chance.shuffle(lines)
    else:
        lines[at] = json_changed(lines[at], chance) + b"\n"
    return b"".join(lines)


def toml_changed(content: bytes, chance: random.Random) -> bytes:
    lines = content.decode().splitlines()
    places = [number for number, line in enumerate(lines) if " = " in line]
    at = chance.choice(places)
    key, _, value = lines[at].partition(" = ")
    literal = chance.choice(LITERALS)
    lines[at] = f"{key} = {f'[{literal}]' if value.startswith('[') and chance.random() < 0.7 else literal}"
    return "\n".join(lines).encode()


def tensors_changed(content: bytes, chance: random.Random) -> bytes:
    tensors = load(content)
    name = chance.choice(list(tensors))
    tensor = tensors.pop(name)
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda t: t[: len(t) // 2], lambda t: t[:0], lambda t: t[None], lambda t: t.flatten(), lambda t: t.double(),
        lambda t: t.to(torch.uint8), lambda t: t.long(), lambda t: t.float() * torch.nan, lambda t: t - 10_000,
        lambda t: t.float() * 1e38, lambda t: torch.zeros_like(t), lambda t: t.flip(0), lambda t: t.to(torch.complex64),
    ]  # fmt: skip
    if chance.random() < 0.9:
        tensors["x" * (chance.random() < 0.1) + name] = chance.choice(changes)(tensor).contiguous()
    return save(tensors)


def text_changed(content: bytes, chance: random.Random) -> bytes:
    """As another encoding, dialect or order of rows has it."""
    text = content.decode()
    rows = list(csv.reader(io.StringIO(text)))
    match chance.randrange(4):
        case 0:
            return text.encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))
        case 1:
            out = io.StringIO()
            csv.writer(out, delimiter=chance.choice(";\t|,"), quoting=csv.QUOTE_ALL).writerows(rows)
            return out.getvalue().encode()
        case 2:
            chance.shuffle(rows)
            return "\n".join(",".join(row[:: chance.choice((1, -1))]) for row in rows).encode()
        case _:
            row = chance.choice(rows)
            row[chance.randrange(len(row))] = chance.choice(
                ('"', "a\nb.png", "\x00", "=1+1", "none of them", "é", ",", "x" * 2**18)
            )
            return "\n".join(",".join(row) for row in rows).encode()


# Readers


def read_arrays(path: Path) -> None:
    with open_arrays(path) as file:
        file.images(), file.labels(), file.note()


def look(path: Path) -> None:
    """What `uda report`, `uda compare` and `Run` read of the run that a file belongs to; now and then with all pictures."""
    with drawn() if zlib.crc32(path.read_bytes()) % 16 == 0 else nullcontext():
        run = Run(path.parent if path.parent.name != "outputs" else path.parent.parent, device="cpu", precision="fp32")
        result_table(run.result)
        write_report(material_of(run), Path("../report.html"))
        comparison_table(compare([open_group(run.path)]))


def use(path: Path) -> None:
    """What a run's recipe decides."""
    run = Run(path.parent, device="cpu", precision="fp32")
    run.load_classifier("last")
    run.target()


def read_shard(path: Path, run: Path) -> None:
    for labelled in (False, True):
        for _ in find(path, labelled).decoded(Frame(8, 3)):
            pass
    predict_shard(Asked(run, "last", "cpu", "fp32", False), str(path), Path("../out.parquet"))


@cache
def drawn_of(run: Path) -> Drawn:
    return draw(Run(run), 5, 0)


def kinds(run: Path, root: Path) -> dict[str, Kind]:
    """All kinds; `run` is a finished run, whose files are read from copies in `root`."""
    one, seeds = root / "one", root / "seeds"
    shutil.copytree(run, one)
    (one / "evil.py").write_text(CODE)
    result = json.loads((one / "result.json").read_text())
    result.pop("files")  # which tell that a file is not the one that was written, whatever is in it
    (one / "result.json").write_text(json.dumps(result))
    keep(Run(one), judge(Run(one), drawn_of(run), dict.fromkeys(drawn_of(run).names, "3"), 0))
    shutil.copytree(one, seeds / "seed-0")
    shutil.copy(one / "recipe.toml", seeds / "seeds.toml")
    (seeds / "seeds.json").write_text('{"format": 2, "seeds": [0], "data_root": "", "device": "cpu", "precision": "fp32"}')
    recipe = (one / "recipe.toml").read_text()
    foreign = [re.sub(r"(?m)^source = .*$", 'source = "pipe:touch code-was-run"', recipe), f'extends = "evil.toml"\n{recipe}']
    foreign += [re.sub(r'(?m)^name = "(unit|dann)"$', 'name = "evil.py:X"', recipe)]
    (root / "shard.tar").write_bytes(tar_bytes())
    asked = Asked(run, "last", "cpu", "fp32", False)
    predict_shard(asked, str(root / "shard.tar"), root / "shard.parquet")
    answers = "path,predicted,label\n" + "".join(f"{name},0,3\n" for name in drawn_of(run).names)

    def as_written(name: str, of: Path = one) -> list[Callable[[], bytes]]:
        return [(of / name).read_bytes]

    def listed(path: Path) -> None:
        over_shards(lambda *_: Done(1, ["a.tar/1.png: bad"]), lambda *_: Done(1, []), [(0, "a.tar")], path, QUIET, "here", None)

    return {
        **READERS,
        "csv, no labels": Kind("a.csv", lambda path: find(path, labelled=False), [lambda: TABLE.encode()], change=text_changed),
        "csv, labels": Kind("a.csv", lambda path: find(path, labelled=True), [lambda: TABLE.encode()], change=text_changed),
        "answers": Kind("a.csv", lambda path: read_table(drawn_of(run), path), [answers.encode], change=text_changed),
        "spec": Kind("a.toml", lambda path: combinations(read_spec(path)), [lambda: SPEC], change=toml_changed),
        "a run's result": Kind("result.json", look, as_written("result.json"), one, json_changed),
        "its metrics": Kind("metrics.jsonl", look, as_written("metrics.jsonl"), one, lines_changed),
        "its outputs": Kind(
            "outputs/last.safetensors", look, as_written("outputs/last.safetensors"), one, tensors_changed
        ),
        "its examples": Kind(
            "outputs/examples.safetensors", look, as_written("outputs/examples.safetensors"), one, tensors_changed
        ),
        "its check": Kind("check.json", look, as_written("check.json"), one, json_changed),
        "its recipe": Kind(
            "recipe.toml", use, [*as_written("recipe.toml"), *(text.encode for text in foreign)], one, toml_changed
        ),
        "seeds": Kind(
            "seeds.json", lambda path: compare([open_group(path.parent)]), as_written("seeds.json", seeds), seeds, json_changed
        ),
        "shard": Kind(
            "a.tar", lambda path: read_shard(path, run), [tar_bytes, lambda: tar_bytes(format=tarfile.PAX_FORMAT)]
        ),
        "parquet": Kind(
            "a.parquet", lambda path: found_done(asked, str(root / "shard.tar"), path), [(root / "shard.parquet").read_bytes]
        ),
        "unreadable": Kind("unreadable.txt", listed, [lambda: b"a.tar/1.png: bad\nb.tar/2.png: worse\n"]),
    }  # fmt: skip


READERS = {
    "image": Kind(
        "a.png",
        lambda path: decode(path, Frame(8, 3)),
        [
            lambda kind=kind, mode=mode: image_bytes(kind, mode)  # type: ignore[misc]
            for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "RGB"), ("BMP", "RGB"), ("GIF", "P"))
        ]
        + [lambda: image_bytes("TIFF", "F"), lambda: image_bytes("WEBP", "RGB"), lambda: image_bytes("PPM", "L")],
    ),
    "npz": Kind("a.npz", read_arrays, [npz_bytes, lambda: npz_bytes(np.savez_compressed), canary_npz]),
    "safetensors": Kind("a.safetensors", lambda path: load_weights(path, torch.nn.Linear(3, 2)), [lambda: save(STATE)]),
    "weights": Kind(
        "a.pt",
        lambda path: load_weights(path, torch.nn.Linear(3, 2)),
        [lambda: torch_bytes(STATE), lambda: torch_bytes({"weight": Canary()}), lambda: pickle.dumps(Canary())],
    ),
    "checkpoint": Kind(
        "checkpoint.pt",
        lambda path: RunFolder(path.parent).read_checkpoint(),
        [lambda: torch_bytes(CHECKPOINT), lambda: torch_bytes(Canary())],
    ),
    "json": Kind(
        "environment.json",
        lambda path: RunFolder(path.parent).read_environment(),
        [lambda: json.dumps(ENVIRONMENT).encode(), lambda: b"[" * 5000],
    ),
    "toml": Kind("a.toml", load_recipe, [lambda: RECIPE]),
}
"""those that take no run"""
