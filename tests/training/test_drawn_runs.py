"""Runs of methods that draw images where a body is frozen: small ones are drawn, and the whole network reads whole ones."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.conftest import StopAfter
from tests.training.test_keep import settings, without_seconds
from uda import UserError
from uda.console import Display
from uda.data.augment import to_float
from uda.inference.export import export
from uda.inference.predict import write_predictions
from uda.inference.translate import write_translations
from uda.runs.run import Run
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted

UNIT = {
    "method.name": "unit",
    "method.encoder": "pixels",
    "method.width": 8,
    "method.coordinates": "none",
    "method.drawn_batch": 4,
    "method.translated_pseudo_label_weight": 1.0,
    "data.drawn_size": 12,
    "data.drawn_read_size": 16,
    "classifier.target_norm": "auto",
}


def drawn(folders: Path, out: Path, display: Display | None = None, observers: Any = (), **more: Any) -> Run:
    return fit(
        "folders", out=out, device="cpu", precision="fp32", report=False, display=display, observers=observers,
        overrides=settings(folders, **UNIT | more),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return drawn(folders, tmp_path_factory.mktemp("drawn") / "run")


def test_predictions_are_of_whole_images(run: Run, folders: Path, tmp_path: Path) -> None:
    write_predictions(run, folders / "test", tmp_path / "said.csv", "last", Display(quiet=True))
    with (tmp_path / "said.csv").open() as file:
        right = [Path(row["path"]).parent.name == row["class"] for row in csv.DictReader(file)]
    assert sum(right) / len(right) == pytest.approx(run.target_accuracy)


def test_translations_are_of_the_side_that_is_drawn(run: Run, folders: Path, tmp_path: Path) -> None:
    for to in ("source", "target"):
        write_translations(run, folders / "target", tmp_path / to, Display(quiet=True), to)
    names = sorted(path.name for path in (tmp_path / "target").iterdir())
    assert names == sorted(path.name for path in (folders / "target").iterdir())
    assert Image.open(tmp_path / "source" / names[0]).size == (12, 12)


def test_an_exported_run_reads_whole_images(run: Run, tmp_path: Path) -> None:
    path, _ = export(run, "torch", tmp_path / "net.pt2", "last")
    program = torch.export.load(path).module()
    images = to_float(run.sample())
    with torch.no_grad():
        assert torch.allclose(program(images * 0.5 + 0.5), run.classifier(images), atol=1e-4)


def test_what_the_source_classifier_says_of_translations_stands_beside_what_it_says_untranslated(run: Run) -> None:
    figures = run.result["translation"]
    for way in (figures, figures["backward"]):
        assert 0 <= way["class_consistency"] <= 1
        assert 0 <= way["untranslated_consistency"] <= 1
        assert way["feature_distance"] > 0
    assert set(figures["reconstruction_error"]) == {"source", "target"}


def test_one_body_reads_both_domains(run: Run) -> None:
    assert run.result["target_norm"] == "own"
    assert not (run.path / "weights" / "target_body.safetensors").exists()


def test_the_body_is_neither_trained_nor_saved_with_the_method(run: Run) -> None:
    last, source = run.load_classifier("last"), run.load_classifier("source")
    bodies = [part.get_submodule("body").state_dict() for part in (last, source)]
    assert all(torch.equal(bodies[0][name], bodies[1][name]) for name in bodies[0])
    assert not any("conv1" in name for name in run.method().state_dict())


def test_an_interrupted_run_ends_as_an_uninterrupted_one(folders: Path, tmp_path: Path, run: Run) -> None:
    with pytest.raises(Interrupted):
        drawn(folders, tmp_path / "run", observers=[StopAfter(6)])
    assert without_seconds(resume(tmp_path / "run", report=False)) == without_seconds(run)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"method.encoder": "backbone"}, 'method.encoder to "pixels"'),
        ({"classifier.trainable": "from layer2"}, "data.drawn_read_size"),
        ({"classifier.target_norm": "both"}, 'classifier.target_norm to "own"'),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_folder_is_made(
    folders: Path, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit("folders", out=tmp_path / "run", overrides=settings(folders, **UNIT | {"data.drawn_read_size": 8} | more))
    assert not (tmp_path / "run").exists()


def test_maps_are_read_as_pooled_features_are(folders: Path, tmp_path: Path) -> None:
    run = drawn(folders, tmp_path / "run", **{"classifier.trainable": "from layer2"})
    assert run.target_accuracy is not None


@pytest.mark.parametrize(
    "own",
    [{"method.name": "drit", "method.draws_from": 0.0, "method.translated_class_weight": 1.0}, {"method.name": "cogan"}],
    ids=str,
)
def test_other_methods_draw_through_the_body_too(folders: Path, tmp_path: Path, own: dict[str, Any]) -> None:
    small = {key: value for key, value in UNIT.items() if key.startswith("data.")}
    short = {"method.width": 4, "method.drawn_batch": 4, "training.steps": 2, "training.target_batch": 8}
    made = fit("folders", out=tmp_path / "run", report=False, overrides=settings(folders, **small | short | own))
    assert made.target_accuracy is not None
    assert made.translations is not None
    discriminators = made.method().get_submodule("discriminators")
    assert all(bool(parameter.isfinite().all()) for parameter in discriminators.parameters())
