"""Finished runs of methods that draw many translations of an image."""

from pathlib import Path

import pytest

from tests.conftest import SHORT
from uda.runs.run import Run
from uda.training.fit import fit


def finished(folders: Path, out: Path, method: str) -> Run:
    data = {"data.source": str(folders / "source"), "data.target": str(folders / "target"), "method.name": method}
    small = {key: value for key, value in SHORT.items() if key != "classifier.refine_steps"}
    return fit("folders", out=out, device="cpu", precision="fp32", overrides=small | data | {"classifier.steps": 3})


@pytest.fixture(scope="session")
def styled_run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of DRIT."""
    return finished(folders, tmp_path_factory.mktemp("runs") / "drit", "drit")


@pytest.fixture(scope="session")
def mapped_run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of latent mapping."""
    return finished(folders, tmp_path_factory.mktemp("runs") / "latent_mapping", "latent_mapping")
