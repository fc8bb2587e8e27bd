"""Shared pieces of the tests: small domains, a small recipe, the real digits where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from uda.data.domain import LabelledDomain, Pair
from uda.data.synthetic import draw_street_digits
from uda.runtime import Runtime

torch.set_num_threads(1)  # tests run side by side; two thread pools on two cores spin against each other

CHECKOUT = Path(__file__).parent.parent


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
    images, labels = draw_street_digits(count, seed, size)
    return LabelledDomain(name, images, tuple("0123456789"), "drawn for a test", labels)


@pytest.fixture(scope="session")
def small_pair() -> Pair:
    """Drawn digits, 16 x 16 in colour, and their negatives as target."""
    source, source_test, target, target_test = (domain(f"d{i}", 96, i) for i in range(4))
    negative = [LabelledDomain(d.name, 255 - d.images, d.classes, d.note, d.labels) for d in (target, target_test)]
    return Pair(source, source_test, *negative)


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
    monkeypatch.setattr("uda.data.synthetic.COUNTS", {"train": 200, "test": 100})
    monkeypatch.setattr("uda.evaluation.JUDGE_STEPS", 3)
    monkeypatch.setenv("UDA_DATA", str(tmp_path))
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path
