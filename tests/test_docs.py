"""What README, CONTRIBUTING and docs/ say can be done is done here: every command, every Python block, every link.

A line runs in a folder that holds what the pages speak of: photos/, scans/, nets.py, net.pt, RUN, DIR. Training is a matter of
a dry run or of a few steps.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CHECKOUT, SHORT, domain, write_folder
from uda.cli import main
from uda.inference.check import draw, write_table
from uda.models.custom import load_network
from uda.runs.run import Run
from uda.training.fit import fit

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
PAGE_NAMES = [str(page.relative_to(CHECKOUT)) for page in PAGES]

OF_CI = {"pip", "pytest", "ruff", "mypy", "lint-imports"}
"""programs that .ci/run runs itself, with these very words where they matter"""
NOT_RUN = {
    "python -m venv .venv && source .venv/bin/activate": ".ci/run makes an environment of its own",
    "pre-commit install": "changes the checkout's git hooks",
    "uda sweep sweep.toml --out DIR/sweep": "takes minutes; tests/cluster/test_sweep.py runs one",
    "uda sweep sweep.toml --out DIR/sweep --address auto": "needs a cluster",
    "uda predict RUN 'DIR/photo-shards/{0000..0002}.tar' -o DIR/predictions --engine ray": "starts Ray",
    "uda cache build 'DIR/photo-shards/{0000..0002}.tar' --source photos/ --model timm:resnet10t --engine ray": "starts Ray",
    "uda check RUN": "waits for a person; tests/inference/test_answering.py answers",
    "python examples/own_classifier.py": "tests/test_examples.py runs it with few steps",
}
FEW = {
    "classifier.steps": 2,
    "classifier.batch": 8,
    "classifier.refine_steps": 2,
    "training.steps": 2,
    "training.batch": 4,
    "training.evaluate_every": 1,
    "training.log_every": 1,
}
NETS = """
import torch.nn as nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        )
"""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Every line of the page's sh blocks, without its comment; lines that end in a backslash go on in the next."""
    joined = (block.replace("\\\n", " ") for block in blocks(page, "sh"))
    lines = (re.sub(r"(^|\s+)#.*", "", line) for block in joined for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The things that the pages speak of, small."""
    root = tmp_path_factory.mktemp("docs")
    drawn = {name: domain(name, 60, seed, 32) for seed, name in enumerate(["photos", "scans", "labelled_scans", "new_scans"])}
    for name, images in drawn.items():
        write_folder(images, root / name, name in ("photos", "labelled_scans"))
    write_folder(domain("paintings", 60, 5, 32), root / "paintings", False)
    for name in ("photo", "other", "scan"):
        Image.open(root / "scans" / "0000.png").save(root / f"{name}.png")
    (root / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    torch.save(load_network(f"{root / 'nets.py'}:Net").state_dict(), root / "net.pt")
    (root / "DIR").mkdir()
    (root / "sweep.toml").write_text(blocks(CHECKOUT / "docs" / "scale.md", "toml")[0])
    for seed, name in enumerate(("mnist", "usps", "svhn")):
        for split in ("train", "test"):
            small = domain(name, 60, seed, 32)
            pixels = small.images.movedim(1, -1).numpy() if name == "svhn" else small.images[:, 0].numpy()
            np.savez(root / "DIR" / f"{name}_{split}.npz", images=pixels, labels=small.labels.numpy(), note="a stand-in")
    for seed, name in enumerate(("office31/amazon", "office31/dslr", "office31/webcam", "pacs/photo", "pacs/sketch")):
        write_folder(domain(name, 60, seed, 32), root / "DIR" / name, True)
    own = {"data.source": str(root / "photos"), "data.target": str(root / "scans")}
    short = SHORT | {"training.steps": 2, "training.evaluate_every": 2, "classifier.steps": 2}
    tested = own | {"data.target_test": str(root / "labelled_scans")}
    runs = {"RUN": tested, "OTHER_RUN": tested | {"seed": 1}, "DRIT_RUN": own | {"method.name": "drit"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uda.evaluation.translation.STEPS", 3)
        for name, overrides in runs.items():
            fit("folders", out=root / name, device="cpu", precision="fp32", report=False, overrides=short | overrides)
    drawn_images = draw(Run(root / "RUN"), 50, 0)
    write_table(drawn_images, dict(zip(drawn_images.names, drawn_images.predicted, strict=True)), root / "labelled.csv")
    (root / "examples").symlink_to(CHECKOUT / "examples")
    return root


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the working directory, with data sets that are drawn kept small."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("UDA_DATA", str(folder / "DIR"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("uda.data.datasets.synthetic.COUNTS", {"train": 60, "test": 60})
    monkeypatch.setattr("uda.evaluation.translation.STEPS", 3)
    return folder


def shortened(words: list[str]) -> list[str]:
    """A command line that is done within seconds: `uda fit` only checks, or takes a few steps."""
    if words[:1] != ["fit"] or "--resume" in words:
        return words
    if words[-2:] == ["--out", "RUN"]:
        words = words[:-2]  # a finished one is there, for the lines that follow
    words = [*words, "--precision", "fp32"]  # a probe of bf16 takes seconds
    if "--seeds" not in words:
        return words if "--dry-run" in words else [*words, "--dry-run"]
    words = [word for word in words if word != "--dry-run"]
    if "--seeds" in words:
        words[words.index("--seeds") + 1] = "2"
    few = {key: value for key, value in FEW.items() if not ("translate" in words and key.startswith("classifier"))}
    return [*words, *(word for key, value in few.items() for word in ("--set", f"{key}={value}"))]


def run_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One command, in this process; what `uda` prints may go to a file by `> FILE`."""
    if line in NOT_RUN:
        return
    for command in line.split(" && "):
        program, *words = shlex.split(command)
        if program in OF_CI:
            assert program in (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8"), f"CI does not run {program}"
            continue
        if program == "export":
            name, _, value = words[0].partition("=")
            monkeypatch.setenv(name, value)
            continue
        assert program == "uda", f"no way to run {command!r} here"
        words, target = (words[:-2], words[-1]) if ">" in words else (words, os.devnull)
        monkeypatch.setattr(sys, "argv", ["uda", *shortened(words)])
        printed, complaint = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complaint), pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code in (0, None) or words == [], f"{command}: {complaint.getvalue()}"
        Path(target).write_text(printed.getvalue(), encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_command_runs(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in commands(page):
        run_line(line, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_python_block_runs(page: Path, here: Path) -> None:
    for block in blocks(page, "python"):
        exec(compile(re.sub(r'(steps"?[=:] ?)\d+', r"\g<1>2", block), str(page), "exec"), {"__name__": "docs"})


def test_the_recipe_in_the_docs_is_accepted(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, block in enumerate(blocks(CHECKOUT / "docs" / "recipes.md", "toml")):
        Path(f"extended-{number}.toml").write_text(block, encoding="utf-8")
        run_line(f"uda fit --recipe extended-{number}.toml", monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), link
        headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_readme_is_short_and_its_commands_are_on_the_first_screen() -> None:
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 700
    assert "pip install . && uda fit --recipe synth2digits" in text.splitlines()[:25]
    assert 'pip install ".[dev]" && pytest -n 2' in text.splitlines()[:25]


def test_every_accuracy_in_the_readme_has_a_row_in_the_results() -> None:
    measured = (CHECKOUT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    for figure in re.findall(r"\b0\.\d{4}\b", (CHECKOUT / "README.md").read_text(encoding="utf-8")):
        assert figure in measured, figure


def test_the_pictures_are_as_the_contract_of_the_rooms_says(tmp_path: Path) -> None:
    subprocess.run([sys.executable, CHECKOUT / "docs" / "pictures" / "draw.py", tmp_path], check=True)
    for name in ("rooms.svg", "batch.svg"):
        assert (tmp_path / name).read_text() == (CHECKOUT / "docs" / "pictures" / name).read_text(), "run draw.py"
