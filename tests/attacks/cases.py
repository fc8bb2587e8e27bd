"""What `tests.attacks.kills` kills: runs of each kind, and the commands that write beside them."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer

from tests.conftest import NETS, SHORT, TINY, domain, write_folder
from tests.models.nets import SmallResNet
from uda.cli import app
from uda.cluster import sweep
from uda.training.fit import fit, resume
from uda.training.seeds import fit_seeds, resume_seeds

WHERE = {"device": "cpu", "precision": "fp32"}
FEW = {
    "classifier.steps": 2, "classifier.batch": 16, "training.steps": 3, "training.batch": 8, "training.log_every": 1,
    "training.evaluate_every": 2,
}  # fmt: skip
FROZEN = {
    "classifier.trainable": "head", "classifier.bottleneck": 8, "classifier.refine_steps": 0, "method.name": "im",
    "data.views.weak": ["centre"], "data.views.strong": ["crop"],
}  # fmt: skip
LABELS = ("--labels", "5")
PLAIN = ("ours", "empty", "own", "lazy", "frozen", "seeds", "translate")
"""the cases that need `write_data` alone"""


def nothing(out: Path) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """Something that is killed.

    Attributes:
        begin: does it, in a folder; given again, it ends what was begun, or names the flag by which that is done.
        go_on: does that.
        flag: which one that is.
        before: what is there beforehand.
    """

    begin: Callable[[Path], Any]
    go_on: Callable[[Path], Any] = nothing
    flag: str = "--resume"
    before: Callable[[Path], Any] = nothing


def cases(data: Path) -> dict[str, Case]:
    """All of them; `data` is for what they read."""
    tiny = data / "tiny.toml"
    own = {
        "data.source": str(data / "source"), "data.target": str(data / "target"), "data.target_test": str(data / "test"),
        "data.channels": 1, "classifier.backbone": f"{NETS}:SmallResNet",
    }  # fmt: skip
    trained = own | {"classifier.weights": str(data / "net.pt")}
    pretrained = own | {"classifier.backbone_weights": str(data / "net.pt")}
    translating = {"method.name": "unit_translation", "method.width": 4, "method.blocks": 1, "method.discriminator_depth": 2}

    def one(recipe: str | Path, **overrides: Any) -> Callable[[Path], Any]:
        return lambda out: fit(recipe, out=out, data_root=data, overrides=overrides, **WHERE)

    def two(out: Path) -> None:
        fit_seeds(tiny, 2, out=out, data_root=data, overrides=FEW | {"method.name": "dann"}, **WHERE)

    ours, finished = one(tiny, **FEW | {"method.name": "dann"}), lambda out: shutil.copytree(data / "run", out)
    parts = [word for key, value in (pretrained | FROZEN).items() for word in ("--set", f"{key}={value}") if key != "data.target"]
    build = ["cache", "build", str(data / "shards" / "{0000..0001}.tar"), "--recipe", "folders", "--device", "cpu", *parts]
    return {
        "ours": Case(ours, resume),
        "empty": Case(ours, resume, before=Path.mkdir),
        "own": Case(one("folders", **SHORT | trained), resume),
        "lazy": Case(
            one("folders", **FEW | {"classifier.steps": 0} | trained | {"method.name": "dann", "data.memory": 0}), resume
        ),
        "frozen": Case(keeping(one("folders", **FEW | pretrained | FROZEN | {"training.steps": 2})), keeping(resume)),
        "seeds": Case(two, resume_seeds),
        "translate": Case(one(tiny, **FEW | translating), resume),
        "sweep": Case(lambda out: swept(data, out)),
        "shards": Case(lambda out: command("shards", str(data / "test"), "-o", str(out), "--images", "20")),
        "parts": Case(keeping(lambda out: command(*build, "--precision", "fp32"))),
        "check --csv": Case(
            lambda out: command("check", str(out), *LABELS, "--csv", str(table(out))), flag="--answers", before=finished
        ),
        "check --answers": Case(
            lambda out: command("check", str(out), *LABELS, "--answers", str(table(out))),
            before=lambda out: (finished(out), shutil.copy(data / "answers.csv", table(out))),
        ),
        "export": Case(lambda out: command("export", str(out), "--format", "torch"), before=finished),
        "report": Case(lambda out: command("report", str(out)), before=finished),
    }


def command(*words: str) -> None:
    """The command line; what is wrong with its input is raised, and not said."""
    with typer.main.get_command(app).make_context("uda", list(words)) as context:
        context.command.invoke(context)


def table(out: Path) -> Path:
    return out.with_name("table.csv")


def keeping(work: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Work that keeps things for other runs, beside where it writes."""

    def kept(out: Path) -> None:
        os.environ |= {"XDG_CACHE_HOME": str(out.with_name("cache")), "UDA_CACHE_GIB": "1"}
        work(out)

    return kept


def swept(data: Path, out: Path) -> None:
    """A sweep of two trials, whose tasks are this process's: Ray's start takes longer than they do."""

    @contextmanager
    def alone(*_: object) -> Iterator[dict[str, float]]:
        yield {}

    sweep.cluster = alone  # type: ignore[assignment]
    sweep.completed = lambda function, tasks, *_: ((n, function(*task)) for n, task in enumerate(tasks))  # type: ignore[assignment]
    command("sweep", str(data / "sweep.toml"), "-o", str(out), "--data-root", str(data), "--device", "cpu", "--precision", "fp32")


def elsewhere(work: Callable[[], Any]) -> None:
    """Does work in a process of its own: what has computed must not be forked."""
    if (child := os.fork()) == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def write_data(data: Path) -> None:
    """What runs read: a recipe, folders of drawn digits, and a network's weights."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "tiny.toml").write_text(TINY)

    def draw() -> None:
        for seed, (name, classes) in enumerate({"source": True, "target": False, "test": True}.items()):
            write_folder(domain(name, 48, seed), data / name, classes)
        torch.manual_seed(0)
        torch.save(SmallResNet().state_dict(), data / "net.pt")

    elsewhere(draw)


def write_more(data: Path) -> None:
    """What other commands read: a spec, shards, a finished run, and answers about its images."""
    settings = "".join(f'"{key}" = [{value}]\n' for key, value in FEW.items())
    spec = f'recipes = ["{data}/tiny.toml"]\nmethods = ["source_only", "mcc"]\nreports = false\n[settings]\n{settings}'
    (data / "sweep.toml").write_text(spec)

    def compute() -> None:
        command("shards", str(data / "target"), "-o", str(data / "shards"), "--images", "24")
        fit(data / "tiny.toml", out=data / "run", data_root=data, overrides=FEW | {"method.name": "dann"}, **WHERE)
        command("check", str(data / "run"), *LABELS, "--csv", str(data / "answers.csv"))
        answers = (data / "answers.csv").read_text().splitlines()
        (data / "answers.csv").write_text("\n".join([answers[0], *(f"{line}3" for line in answers[1:])]))

    elsewhere(compute)
