"""Runs that translate and do not classify: two folders without labels in, translations and figures out."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import uda
from tests.conftest import StopAfter, drawn
from uda import UserError
from uda.report.compare import open_group
from uda.runs.run import Run
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted
from uda.training.seeds import fit_seeds

FEW = {
    "method.width": 4, "method.blocks": 1, "method.discriminator_depth": 2, "training.steps": 4, "training.batch": 2,
    "training.log_every": 1,
}  # fmt: skip
WHERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def images(folders: Path) -> dict[str, str]:
    return {"data.source": str(folders / "source"), "data.target": str(folders / "target")}


def result(run: Run) -> dict:
    return {key: value for key, value in run.result.items() if key != "seconds"}


def test_two_folders_without_labels_become_translations_and_a_report(images: dict, tmp_path: Path) -> None:
    with drawn():
        run = fit("translate", out=tmp_path / "run", overrides=FEW | images, **WHERE)
    translation = run.result["translation"]
    assert translation["feature_distance"] > 0
    assert "class_consistency" not in translation
    assert translation["backward"]["feature_distance"] > 0
    assert translation["reconstruction_error"].keys() == {"source", "target"}
    page = (run.path / "report.html").read_text()
    assert f"{translation['feature_distance']:.1f}" in page
    assert "data:image/png" in page
    assert page.count("<svg") >= 3
    assert f"{translation['backward']['feature_distance']:.1f}" in page
    assert Image.open(run.path / "translations.png").width > 500
    method = uda.load(run.path, device="cpu").method()
    assert method.translate(torch.zeros(2, 3, 16, 16), 0, 1).shape == (2, 3, 16, 16)


def test_a_stopped_run_resumes_to_the_same_end(images: dict, tmp_path: Path) -> None:
    whole = fit("translate", out=tmp_path / "whole", overrides=FEW | images, **WHERE)
    with pytest.raises(Interrupted):
        fit("translate", out=tmp_path / "stopped", overrides=FEW | images, observers=[StopAfter(2)], **WHERE)
    assert result(resume(tmp_path / "stopped")) == result(whole)


def test_paired_test_images_are_compared_pixel_by_pixel(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uda.data.datasets.city.COUNTS", {"train": 12, "test": 6})
    data = {"data.source": "aerial", "data.target": "map", "data.size": 32, "data.paired_test": True}
    run = fit("translate", out=tmp_path / "run", overrides=FEW | data, **WHERE)
    assert 0 <= run.result["translation"]["pixel_accuracy"] <= 1
    assert "NOT aerial photographs" in json.dumps(run.result["source"])
    assert "16 grey levels" in (run.path / "report.html").read_text()
    with pytest.raises(UserError, match="not as many"):
        fit("translate", out=tmp_path / "b", overrides=FEW | data | {"data.source": str(folders / "source")}, **WHERE)


def test_there_is_no_classifier_to_ask_for(images: dict, tmp_path: Path) -> None:
    run = fit("translate", out=tmp_path / "run", overrides=FEW | images, report=False, **WHERE)
    for ask in (lambda: run.classifier, lambda: run.accuracy, lambda: open_group(run.path)):
        with pytest.raises(UserError, match="translates images"):
            ask()
    with pytest.raises(UserError, match="no accuracy to compare"):
        fit_seeds("translate", 2, out=tmp_path / "seeds", overrides=FEW | images, **WHERE)
    assert not (tmp_path / "seeds").exists()


@pytest.mark.parametrize("given", [{"classifier.weights": "net.pt"}, {"classifier.backbone": "nets.py:Net"}])
def test_a_classifier_that_would_not_be_used_is_refused(given: dict, images: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no classifier; leave out --model, --weights and --backbone-weights"):
        fit("translate", out=tmp_path / "run", overrides=FEW | images | given, **WHERE)
    assert not (tmp_path / "run").exists()


def test_a_dozen_images_are_enough_though_not_for_a_distance(images: dict, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(few / f"{number}.png")
    run = fit("translate", out=tmp_path / "run", overrides=FEW | images | {"data.source": str(few)}, **WHERE)
    assert run.result["source"]["test"] == 1
    assert run.result["translation"].keys() == {"feature_network", "backward", "reconstruction_error"}
    assert run.result["translation"]["backward"].keys() == {"feature_network"}
    assert "too few for a distance" in (run.path / "report.html").read_text()


@pytest.mark.parametrize("wrong", [{"method.tied_layers": 9}, {"method.discriminator_depth": 9}, {"data.size": 30}])
def test_networks_that_cannot_be_built_are_refused_before_a_folder_is_made(wrong: dict, images: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        fit("translate", out=tmp_path / "run", overrides=FEW | images | wrong, **WHERE)
    assert not (tmp_path / "run").exists()
