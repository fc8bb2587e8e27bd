"""Shared pieces of the tests: small domains, a small recipe, the real digits where they are present."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from tests.models.nets import SmallResNet
from uda.data import files
from uda.data.datasets import synthetic
from uda.data.domain import LabelledDomain, Pair
from uda.evaluation import translation
from uda.models import Classifier, build_classifier
from uda.report import page, plots
from uda.runs.run import Run
from uda.runtime import Runtime
from uda.training.fit import fit
from uda.training.loop import Observer, Row, Stop

# Hundreds of runs draw data, make a page and train an evaluation classifier, and none of their tests is about how good these are.
# The pictures of a page take longer than all the rest of such a run: `drawn` has them drawn.
DRAWING = {name: getattr(plots, name) for name in dir(plots) if name.startswith("draw_")}
PLACED = page.placed
for name in DRAWING:
    setattr(plots, name, lambda *_: "")
page.placed = lambda outputs: (np.zeros((2, 2)), np.zeros(2, int), np.arange(2) > 0)
page.MAPPED = 30
synthetic.COUNTS.update(train=200, test=100)
translation.STEPS, translation.BATCH, translation.WIDTH, translation.ROUNDS_BACK = 3, 16, 8, 1
# How long a case takes depends on the machine alone; a change is judged by the same cases as the one before it.
settings.register_profile("slow or fast", deadline=None, derandomize=True)
settings.load_profile("slow or fast")
os.environ["UDA_CACHE_GIB"] = "0"  # what one test computes, no other test reads
torch.set_num_threads(1)  # tests run side by side; two thread pools on two cores spin against each other

CHECKOUT = Path(__file__).parent.parent
NETS = CHECKOUT / "tests" / "models" / "nets.py"


@contextmanager
def drawn() -> Iterator[None]:
    """Within, pages have their pictures."""
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in DRAWING.items():
            patch.setattr(plots, name, draw)
        patch.setattr(page, "placed", PLACED)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed of its own is the same on every machine and in every order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _reads_images_itself() -> None:
    """A dozen small images are decoded sooner than a process is forked that decodes them: `readers` has them decoded so."""
    files.READERS = 0


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Image files are decoded by processes of their own, as they are outside of tests."""
    monkeypatch.setattr(files, "READERS", 2)


@pytest.fixture(scope="session", autouse=True)
def _trusted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests trust is not what the user trusts."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def fp32() -> Runtime:
    return Runtime(torch.device("cpu"), "fp32", True, "test")


@pytest.fixture(scope="session")
def real_digits() -> Path:
    """The folder with the real digit arrays; skips where there is none."""
    given = os.environ.get("UDA_DATA")
    root = Path(given) if given else CHECKOUT.parent / "shared" / "data" / "digits"
    if not (root / "mnist_test.npz").exists():
        pytest.skip(f"real digits are not at {root}; set UDA_DATA to a folder with mnist_test.npz and its siblings")
    return root


def domain(name: str, count: int, seed: int, size: int = 16) -> LabelledDomain:
    images, labels = synthetic.draw_street_digits(count, seed, size)
    return LabelledDomain(name, images, tuple("0123456789"), "drawn for a test", labels)


@pytest.fixture(scope="session")
def small_pair() -> Pair:
    """Drawn digits, 16 x 16 in colour, and their negatives as target."""
    source, source_test, target, target_test = (domain(f"d{i}", 96, i) for i in range(4))
    negative = [LabelledDomain(d.name, 255 - d.images, d.classes, d.note, d.labels) for d in (target, target_test)]
    return Pair(source, source_test, *negative)


def small_classifier() -> Classifier:
    """Ten classes of 16 x 16 colour pictures, untrained, the same weights on every call and no test's own (they seed 0)."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return build_classifier("strided", 3, 16, 10, width=8)


def write_folder(labelled: LabelledDomain, root: Path, with_classes: bool) -> Path:
    """A domain as PNGs: ROOT/CLASS/0000.png, or ROOT/0000.png."""
    for number, (image, label) in enumerate(zip(labelled.images, labelled.labels, strict=True)):
        assert isinstance(image, torch.Tensor)
        folder = root / labelled.classes[label] if with_classes else root
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:04d}.png")
    return root


@pytest.fixture(scope="session")
def folders(small_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: ``source/CLASS/``, ``target/`` and ``test/CLASS/`` of PNGs, and ``net.pt`` for `SmallResNet`."""
    root = tmp_path_factory.mktemp("folders")
    write_folder(small_pair.source, root / "source", True)
    write_folder(small_pair.target, root / "target", False)  # type: ignore[arg-type]
    write_folder(small_pair.target_test, root / "test", True)  # type: ignore[arg-type]
    torch.manual_seed(0)
    torch.save(SmallResNet().state_dict(), root / "net.pt")
    return root


SHORT = {
    "classifier.batch": 16,
    "classifier.refine_steps": 3,
    "method.width": 8,
    "method.code_dim": 16,
    "training.steps": 4,
    "training.batch": 8,
    "training.target_batch": 8,
    "training.log_every": 2,
    "training.evaluate_every": 2,
}


@pytest.fixture(scope="session")
def own_run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of the recipe `folders` with a user's network, in grey."""
    overrides = {
        "data.source": str(folders / "source"),
        "data.target": str(folders / "target"),
        "data.target_test": str(folders / "test"),
        "data.channels": 1,
        "classifier.backbone": f"{NETS}:SmallResNet",
        "classifier.weights": str(folders / "net.pt"),
    }
    out = tmp_path_factory.mktemp("runs") / "own"
    with drawn():
        return fit("folders", out=out, device="cpu", precision="fp32", overrides=SHORT | overrides)


TINY = """
description = "a few steps on small images"
[data]
source = "synth"
target = "digits"
size = 16
channels = 1
[augment.source]
rotate = 10
colour = 0.2
invert = 0.5
[classifier]
width = 8
steps = 6
batch = 16
[method]
name = "unit"
width = 8
code_dim = 16
[training]
steps = 8
batch = 8
log_every = 2
evaluate_every = 4
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe file that a whole run finishes within seconds."""
    monkeypatch.setenv("UDA_DATA", str(tmp_path))
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The finished run of `tiny`, to be read and not to be changed."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "tiny.toml").write_text(TINY)
    return fit(root / "tiny.toml", out=root / "run", data_root=root, device="cpu", precision="fp32")


class StopAfter(Observer):
    """Stops a run after so many steps, those of all its stages counted together."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, step: int, row: Row) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stop
