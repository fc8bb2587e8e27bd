"""Wrong input of every class, by the real command line: one line, exit code 2, within seconds, and nothing written."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import uda.inference.export
import uda.inference.predict
import uda.inference.translate
import uda.training.check
import uda.training.fit  # noqa: F401 - what the forked commands import is imported once
from tests.attacks.harness import Outcome, attack
from tests.conftest import TINY
from uda.models import build_classifier
from uda.runs.run import Run

pytestmark = pytest.mark.usefixtures("readers")
torch.set_num_threads(1)  # a forked process has no others
Attack = Callable[[Path, str], list[str]]
"""makes files in a folder, for a run at a path; returns the words of the command"""


def image(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 256, size, np.uint8)).save(path)
    return path


def predict(run: str, images: str, *words: str) -> list[str]:
    return ["predict", run, images, "--device", "cpu", *words]


def fit(folder: Path, *words: str, dry: bool = True) -> list[str]:
    """A fit of a few steps on folders of drawn images, with classes a and b."""
    for name in ("s/a/1.png", "s/a/2.png", "s/b/3.png", "s/b/4.png", "t/5.png", "t/6.png"):
        image(folder / name)
    own = any(word == "--model" for word in words)
    (folder / "r.toml").write_text(TINY.replace("[classifier]\nwidth = 8", "[classifier]") if own else TINY)
    given = {"--source": "./s", "--target": "./t", "--method": "mcc", "--recipe": "r.toml", "--precision": "fp32"}
    given |= dict(zip(words[::2], words[1::2], strict=True)) if "--set" not in words else {}
    rest = words if "--set" in words else ()
    flags = [word for pair in given.items() if pair[0] not in rest for word in pair]
    return ["fit", *flags, *rest, *(["--dry-run"] if dry else ["-o", "run"])]


def black_png(path: Path, side: int) -> None:
    """Few bytes of many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(side + 1) * 100)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def claiming(path: Path, shape: tuple[int, ...], data: bytes, times: int = 1) -> None:
    """An .npz whose array says that it is uint8 of a shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w", force_zip64=True) as member:
        member.write(header.getvalue())
        for _ in range(times):
            member.write(data)


# Outputs that would replace something


def onto_its_input(folder: Path, run: str) -> list[str]:
    image(folder / "pics/a.png")
    return ["translate", run, "pics", "-o", "pics", "--device", "cpu"]


def over_the_table(folder: Path, run: str) -> list[str]:
    image(folder / "a.png")
    (folder / "t.csv").write_text("a.png\n")
    return predict(run, "t.csv", "-o", "t.csv")


def over_the_table_by_a_link(folder: Path, run: str) -> list[str]:
    (folder / "l.csv").symlink_to("t.csv")
    return [*over_the_table(folder, run)[:-1], "l.csv"]


def over_a_result(folder: Path, run: str) -> list[str]:
    shutil.copytree(run, folder / "run")
    image(folder / "e/0/a.png")
    return ["evaluate", "run", "--data", "./e", "-o", "run/result.json", "--device", "cpu"]


def over_an_image(folder: Path, run: str) -> list[str]:
    image(folder / "e/0/a.png")
    return ["evaluate", run, "--data", "./e", "-o", "e/0/a.png", "--device", "cpu"]


def over_a_pipe(folder: Path, run: str) -> list[str]:
    os.mkfifo(folder / "p.csv")
    return predict(run, str(image(folder / "a.png")), "-o", "p.csv")


def over_a_folder(folder: Path, run: str) -> list[str]:
    (folder / "o").mkdir()
    return predict(run, str(image(folder / "a.png")), "-o", "o")


def below_a_file(folder: Path, run: str) -> list[str]:
    return predict(run, str(image(folder / "a.png")), "-o", "a.png/x.csv")


def too_long_a_name(folder: Path, run: str) -> list[str]:
    return predict(run, str(image(folder / "a.png")), "-o", "x" * 300 + ".csv")


# Images, tables and arrays


def only_broken_images(folder: Path, run: str) -> list[str]:
    (folder / "a.png").write_bytes(b"broken")
    return predict(run, ".")


def only_broken_images_to_translate(folder: Path, run: str) -> list[str]:
    (folder / "a.png").write_bytes(b"broken")
    return ["translate", run, ".", "-o", "o", "--device", "cpu"]


def floats(folder: Path, run: str) -> list[str]:
    Image.fromarray(np.random.default_rng(0).random((16, 16), np.float32)).save(folder / "a.tif")
    return predict(run, ".")


def whole_numbers_of_32_bits(folder: Path, run: str) -> list[str]:
    Image.fromarray(np.full((16, 16), 70_000, np.int32)).save(folder / "a.tif")
    return predict(run, ".")


def a_pipe(folder: Path, run: str) -> list[str]:
    os.mkfifo(folder / "a.png")
    return predict(run, ".")


def a_device(folder: Path, run: str) -> list[str]:
    (folder / "t.csv").write_text("path\n/dev/zero.png\n/dev/zero\n")
    return predict(run, "t.csv")


def a_table_that_is_a_pipe(folder: Path, run: str) -> list[str]:
    os.mkfifo(folder / "t.csv")
    return predict(run, "t.csv")


def a_table_with_semicolons(folder: Path, run: str) -> list[str]:
    image(folder / "a.png")
    (folder / "t.csv").write_text("a.png;cat\n")
    return predict(run, "t.csv")


def a_table_with_labels_first(folder: Path, run: str) -> list[str]:
    image(folder / "a.png")
    (folder / "t.csv").write_text("label,path\n0,a.png\n")
    return ["evaluate", run, "--data", "t.csv", "--device", "cpu"]


def a_table_with_zero_bytes(folder: Path, run: str) -> list[str]:
    (folder / "t.csv").write_bytes(b"a\0b.png\n")
    return predict(run, "t.csv")


def four_hundred_million_pixels(folder: Path, run: str) -> list[str]:
    black_png(folder / "a.png", 20_000)
    return predict(run, ".")


def a_hundred_million_pixels(folder: Path, run: str) -> list[str]:
    black_png(folder / "a.png", 10_000)
    return predict(run, ".")


def too_many_pixels_to_inspect(folder: Path, run: str) -> list[str]:
    (folder / "t").mkdir()
    black_png(folder / "t" / "a.png", 20_000)
    image(folder / "s" / "a" / "1.png")
    image(folder / "s" / "b" / "2.png")
    return ["inspect", "--source", "./s", "--target", "./t", "-o", "page.html", "--device", "cpu"]


def one_array_by_another_name(folder: Path, run: str) -> list[str]:
    with (folder / "a.npz").open("wb") as file:
        np.save(file, np.zeros((2, 16, 16), np.uint8))
    return predict(run, "a.npz")


def encrypted(folder: Path, run: str) -> list[str]:
    np.savez(folder / "a.npz", images=np.zeros((2, 16, 16), np.uint8))
    made = bytearray((folder / "a.npz").read_bytes())
    made[made.find(b"PK\x01\x02") + 8] |= 1
    made[6] |= 1
    (folder / "a.npz").write_bytes(made)
    return predict(run, "a.npz")


def nine_hundred_tebibytes(folder: Path, run: str) -> list[str]:
    claiming(folder / "a.npz", (900 * 2**40 // 256, 16, 16), b"x")
    return predict(run, "a.npz")


def a_zip_bomb(folder: Path, run: str) -> list[str]:
    claiming(folder / "a.npz", (2**21, 16, 16), bytes(2**20), times=2**9)
    return predict(run, "a.npz")


def no_side(folder: Path, run: str) -> list[str]:
    np.savez(folder / "a.npz", images=np.zeros((2, 0, 16), np.uint8))
    return predict(run, "a.npz")


def labels_in_two_columns(folder: Path, run: str) -> list[str]:
    np.savez(folder / "a.npz", images=np.zeros((2, 16, 16), np.uint8), labels=np.zeros((2, 2), int))
    return ["evaluate", run, "--data", "a.npz", "--device", "cpu"]


def labels_between_numbers(folder: Path, run: str) -> list[str]:
    np.savez(folder / "a.npz", images=np.zeros((2, 16, 16), np.uint8), labels=[0.5, 1.0])
    return ["evaluate", run, "--data", "a.npz", "--device", "cpu"]


def an_empty_class(folder: Path, run: str) -> list[str]:
    np.savez(folder / "s.npz", images=np.zeros((8, 16, 16), np.uint8), labels=["", "b"] * 4)
    return ["inspect", "--source", "./s.npz", "--target", "./s.npz", "-o", "page.html", "--device", "cpu"]


def a_header_cut_short(folder: Path, run: str) -> list[str]:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 16,"
    with zipfile.ZipFile(folder / "a.npz", "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(512))
    return predict(run, "a.npz")


def latin_recipe(folder: Path, run: str) -> list[str]:
    (folder / "a.toml").write_bytes("# caf\xe9".encode("latin-1"))
    return ["recipes", "show", "a.toml"]


# Settings


def setting(*words: str) -> Attack:
    return lambda folder, run: fit(folder, *words)


def a_recipe_of_brackets(folder: Path, run: str) -> list[str]:
    (folder / "a.toml").write_text("a=" + "[" * 3000)
    return ["fit", "--recipe", "a.toml", "--dry-run"]


def a_class_without_a_readable_image(folder: Path, run: str) -> list[str]:
    words = fit(folder, dry=False)
    for number in range(20):
        image(folder / "s" / "a" / f"more{number}.png")
    (folder / "s" / "c").mkdir()
    (folder / "s" / "c" / "7.png").write_bytes(b"\x89PNG")
    return words


def command(*words: str) -> Attack:
    return lambda folder, run: [run if word == "RUN" else word for word in words]


# Weights


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Attack:
    def files(folder: Path, run: str) -> list[str]:
        state = build_classifier("strided", 1, 16, 2, width=8).state_dict()
        torch.save(change(state), folder / "w.pt")
        return fit(folder, "--weights", "w.pt")

    return files


def first(state: dict[str, torch.Tensor], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
    name = next(iter(state))
    return state | {name: change(state[name])}


def weights_from_a_pipe(folder: Path, run: str) -> list[str]:
    os.mkfifo(folder / "w.pt")
    return fit(folder, "--weights", "w.pt")


# Runs of others


def a_foreign_run(*words: str) -> Attack:
    """A run whose recipe names a file that leaves a trace where it is run."""

    def files(folder: Path, run: str) -> list[str]:
        shutil.copytree(run, folder / "run")
        (folder / "evil.py").write_text("open('code-was-run', 'w')\n")
        recipe = folder / "run" / "recipe.toml"
        recipe.write_text(recipe.read_text().replace('name = "unit"', f'name = "{folder}/evil.py:X"'))
        shutil.copytree(folder / "run", folder / "seeds" / "seed-0")
        shutil.copy(recipe, folder / "seeds" / "seeds.toml")
        (folder / "seeds" / "seeds.json").write_text('{"seeds": [0], "data_root": "", "device": "cpu", "precision": "fp32"}')
        image(folder / "a.png")
        return list(words)

    return files


ATTACKS: dict[str, Attack] = {
    **{
        made.__name__: made
        for made in (
            onto_its_input, over_the_table, over_the_table_by_a_link, over_a_result, over_an_image, over_a_pipe, over_a_folder,
            below_a_file, too_long_a_name, only_broken_images, only_broken_images_to_translate, floats,
            whole_numbers_of_32_bits, a_pipe, a_device, a_table_that_is_a_pipe, a_table_with_semicolons,
            a_table_with_labels_first, a_table_with_zero_bytes, four_hundred_million_pixels, a_hundred_million_pixels,
            too_many_pixels_to_inspect, one_array_by_another_name, encrypted, nine_hundred_tebibytes, a_zip_bomb, no_side,
            labels_in_two_columns, labels_between_numbers, a_recipe_of_brackets, weights_from_a_pipe,
        )
    },
    "an_empty_word": lambda folder, run: predict(run, str(image(folder / "a.png")), "-o", ""),
    "a_seed_beyond_64_bits": setting("--seed", str(2**70)),
    "a_batch_beyond_all_memory": lambda folder, run: fit(folder, "--set", "training.batch=1000000000", dry=False),
    "a_seed_below_zero": setting("--set", "seed=-1"),
    "a_table_for_a_seed": setting("--set", "seed={a=1}"),
    "a_learning_rate_of_nan": setting("--set", "method.learning_rate=nan"),
    "an_infinite_weight_decay": setting("--set", "method.weight_decay=inf"),
    "a_deviation_of_zero": setting("--set", "classifier.std=[0]"),
    "a_split_that_nobody_reads": setting("--split", "nope"),
    "a_mean_that_nobody_reads": setting("--set", "classifier.mean=[0.5]"),
    "a_class_named_twice": setting("--set", 'data.classes=["a","b","a"]'),
    "a_zero_byte_in_a_path": setting("--set", 'data.source_test="a\\u0000/b"'),
    "fewer_than_no_samples": command("translate", "RUN", ".", "--samples", "-3"),
    "a_setting_twice": setting("--set", "seed=3", "--set", "seed=4"),
    "a_setting_twice_where_one_only_looks": command("inspect", "--source", "./s", "--target", "./t", *2 * ["--set", "seed=3"]),
    "a_tracker_that_there_is_not": lambda folder, run: [*fit(folder), "--track", "nope"],
    "no_seeds": lambda folder, run: [*fit(folder), "--seeds", "0"],
    "a_run_that_is_there": lambda folder, run: [*fit(folder), "-o", run],
    "a_covariance_of_one_image": setting("--set", "method.name=deep_coral", "--set", "training.batch=1"),
    "a_target_within_the_source": lambda folder, run: fit(folder, "--source", ".", "--target", "./t"),
    "a_class_without_a_readable_image": a_class_without_a_readable_image,
    "an_address_of_a_kind_that_nobody_reads": setting("--target", "foo://x/y.tar"),
    "a_setting_by_two_flags": setting("--set", "seed=3", "--seed", "4"),
    "a_run_among_the_target": lambda folder, run: [*fit(folder, dry=False)[:-1], "t/run"],
    "a_figure_in_a_run": lambda folder, run: predict(run, str(image(folder / "a.png")), "-o", f"{run}/p.csv"),
    "an_empty_class": an_empty_class,
    "a_header_cut_short": a_header_cut_short,
    "a_recipe_that_is_no_text": latin_recipe,
    "a_name_that_leads_elsewhere": setting("--set", 'name="../../escaped"'),
    "no_argument": command("predict"),
    "no_such_command": command("predikt"),
    "a_word_for_a_number": command("fit", "--seed", "many"),
    "a_path_of_5000_letters": command("predict", "RUN", "x" * 5000, "--device", "cpu"),
    "trust_without_a_run": setting("--set", "seed=1", "--trust"),
    "a_device_with_resume": command("fit", "--resume", "RUN", "--device", "cuda"),
    "weights_that_are_nan": weights(lambda state: first(state, lambda value: value * torch.nan)),
    "weights_by_number": weights(lambda state: dict(enumerate(state.values()))),
    "weights_that_are_sparse": weights(lambda state: first(state, torch.Tensor.to_sparse)),
    "weights_that_are_complex": weights(lambda state: first(state, lambda value: value.to(torch.complex64))),
    "weights_without_values": weights(lambda state: first(state, lambda value: value.to("meta"))),
    "ten_trillion_weights": weights(lambda state: {"a": torch.zeros(1).expand(10**13)}),
    "a_foreign_run_reported": a_foreign_run("report", "run"),
    "a_foreign_run_compared": a_foreign_run("compare", "run"),
    "foreign_seeds_resumed": a_foreign_run("fit", "--resume", "seeds"),
    "foreign_seeds_compared": a_foreign_run("compare", "seeds"),
    "a_foreign_run_resumed": a_foreign_run("fit", "--resume", "run"),
    "a_foreign_run_used": a_foreign_run("predict", "run", "a.png", "--device", "cpu"),
    "a_foreign_run_exported": a_foreign_run("export", "run"),
}  # fmt: skip


def carried_out(made: Attack, tmp_path: Path, run: Run) -> tuple[Outcome, set[Path]]:
    """What came of it, and which files are new."""
    folder = tmp_path / "here"
    folder.mkdir()
    words = made(folder, str(run.path))
    before = {path: path.lstat().st_mtime_ns for path in (*folder.rglob("*"), *run.path.rglob("*")) if not path.is_dir()}
    outcome = attack(words, folder)
    after = {path: path.lstat().st_mtime_ns for path in (*folder.rglob("*"), *run.path.rglob("*")) if not path.is_dir()}
    return outcome, {path for path, time in after.items() if before.get(path) != time}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the user trusts and keeps lies in the test's own folder."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("UDA_DATA", raising=False)


@pytest.mark.parametrize("name", ATTACKS)
def test_wrong_input_ends_in_one_line_and_writes_nothing(name: str, tmp_path: Path, tiny_run: Run) -> None:
    outcome, written = carried_out(ATTACKS[name], tmp_path, tiny_run)
    assert outcome.refused, outcome
    assert written == set()
    assert outcome.seconds < 10
