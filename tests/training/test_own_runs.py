"""Whole runs with a user's own network and images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import uda
from tests.conftest import NETS, SHORT, StopAfter, write_folder
from tests.models.nets import SmallResNet
from uda import UserError
from uda.console import Display
from uda.data.augment import to_float
from uda.data.domain import Pair
from uda.data.files import ImageFiles
from uda.data.folders import find, in_frame
from uda.data.frame import Frame
from uda.runs.run import Run
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted


def overrides(folders: Path, **more: Any) -> dict[str, Any]:
    given = {
        "data.source": str(folders / "source"),
        "data.target": str(folders / "target"),
        "data.channels": 1,
        "classifier.backbone": f"{NETS}:SmallResNet",
        "classifier.weights": str(folders / "net.pt"),
    }
    return SHORT | given | more


def run(out: Path, settings: dict[str, Any], **more: Any) -> Run:
    return fit("folders", out=out, device="cpu", precision="fp32", overrides=settings, **more)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("classifier.weights", "missing.pt", "missing.pt"), ("classifier.backbone", f"{NETS}:Missing", "unknown name")],
)
def test_a_wrong_name_of_a_network_is_known_before_images_are_read(
    setting: str, value: str, said: str, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uda.training.fit.load_pair", lambda *_, **__: pytest.fail("images are read"))
    with pytest.raises(UserError, match=said):
        run(folders / "run", overrides(folders, **{setting: value}))


def test_adapted_weights_go_back_into_the_users_own_code(own_run: Run) -> None:
    network = SmallResNet().eval()
    network.load_state_dict(torch.load(own_run.path / "adapted.pt", weights_only=True))
    images = to_float(own_run.sample()) * 0.5 + 0.5
    expected = own_run.classifier(images * 2 - 1)
    assert torch.allclose(network(images), expected, atol=1e-4)
    loaded, _ = own_run.load_network()
    assert torch.allclose(loaded(images), expected, atol=1e-4)


def test_without_target_labels_there_are_weights_pictures_and_scores(folders: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "run", overrides(folders))
    assert done.accuracy["source"] is not None
    assert [done.accuracy[name] for name in ("source_only", "last", "selected", "oracle")] == [None] * 4
    assert done.target_accuracy is None
    assert "class_consistency" not in done.result["translation"]
    assert done.result["translation"]["feature_distance"] > 0
    assert {"taught_consistency", "taught_agreement"} < done.result["translation"].keys()
    assert "that a network taught by the adapted classifier gives their class" in (done.path / "report.html").read_text()
    assert (done.path / "translations.png").exists()


def test_a_run_from_files_on_disk_stops_and_resumes_to_the_same_end(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads them: of the whole run, one process ahead of it; of the run in two parts, the run itself."""
    settings = overrides(
        folders,
        **{
            "data.memory": 0,
            "classifier.refine_steps": 0,
            "training.log_every": 1,
            "training.evaluate_every": 6,
            "training.steps": 6,
        },
    )
    with monkeypatch.context() as patch:
        patch.setattr("uda.data.files.READERS", 1)
        whole = run(tmp_path / "whole", settings)
    assert isinstance(in_frame(find(folders / "target", False), Frame(16, 1), 0, Display(quiet=True))[1], ImageFiles)
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", settings, observers=[StopAfter(3)])
    again = resume(tmp_path / "stopped")
    a, b = whole.load_classifier().state_dict(), again.load_classifier().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_images_that_changed_in_between_stop_a_resume(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "target", tmp_path / "target")
    with pytest.raises(Interrupted):
        run(tmp_path / "run", overrides(folders, **{"data.target": str(tmp_path / "target")}), observers=[StopAfter(1)])
    next((tmp_path / "target").iterdir()).unlink()
    with pytest.raises(UserError, match="its target images have changed"):
        resume(tmp_path / "run")


def test_unreadable_images_are_named_in_the_run_folder(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "target", tmp_path / "target")
    next((tmp_path / "target").iterdir()).write_bytes(b"broken")
    done = run(tmp_path / "run", overrides(folders, **{"data.target": str(tmp_path / "target")}))
    (line,) = (done.path / "unreadable.txt").read_text().splitlines()
    assert str(tmp_path / "target") in line
    assert "1 unreadable" in done.result["target"]["note"]


def test_a_module_given_in_python(folders: Path, tmp_path: Path) -> None:
    settings = {name: value for name, value in overrides(folders).items() if not name.startswith("classifier.")}
    network = SmallResNet()
    network.load_state_dict(torch.load(folders / "net.pt", weights_only=True))
    done = run(tmp_path / "run", settings | {"classifier.refine_steps": 0}, model=network)
    images = to_float(done.sample())
    with pytest.raises(UserError, match="was given in Python; give it again"):
        uda.load(done.path).classifier  # noqa: B018
    again = uda.load(done.path, model=SmallResNet(), device="cpu")
    assert torch.equal(again.classifier(images), done.classifier(images))
    assert type(again.load_network()[0]) is SmallResNet


@pytest.mark.parametrize("size", [28, 64, 112])
def test_other_sides_than_32_work(size: int, tiny: Path, folders: Path, tmp_path: Path) -> None:
    few = {"data.size": size, "training.steps": 2, "training.batch": 2, "classifier.steps": 2, "classifier.batch": 2}
    few |= {"data.source": str(folders / "source"), "data.target": str(folders / "target")}
    done = fit(tiny, out=tmp_path / "run", device="cpu", precision="fp32", overrides=few)
    assert done.method().translate(torch.zeros(1, 1, size, size), 0, 1).shape == (1, 1, size, size)


def test_the_given_classifier_is_measured_before_it_is_refined(folders: Path, tmp_path: Path) -> None:
    settings = overrides(folders, **{"data.target_test": str(folders / "test"), "classifier.refine_steps": 40})
    done = run(tmp_path / "run", settings)
    plain = run(tmp_path / "plain", settings | {"classifier.refine_steps": 0})
    assert done.accuracy["source_only"] == plain.accuracy["source_only"]
    assert done.accuracy["refined"] != done.accuracy["source_only"]
    assert list(done.accuracy) == ["source", "source_only", "refined", "last", "selected", "oracle"]
    assert "refined" not in plain.accuracy
    plain_settings = {name: value for name, value in settings.items() if not name.startswith("method.")}
    free = run(tmp_path / "free", plain_settings | {"method.name": "shot", "training.steps": 2})
    assert "refined" not in free.accuracy, "a source-free method's classifier sees no source image"


def test_adapting_a_network_with_batch_norm_does_not_fall_below_source_only(tmp_path: Path) -> None:
    """The target is the source's handwriting, darker, flatter and noisy: statistics of the source fit it badly."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images * (255 / 16), np.ones((2, 2)))
    noise = np.random.default_rng(0).normal(0, 12, images.shape)
    shifted = 60 + 0.35 * images + noise
    for name, pixels, rows in (
        ("source", images, slice(0, 900)),
        ("target", shifted, slice(900, 1400)),
        ("test", shifted, slice(1400, None)),
    ):
        np.savez(tmp_path / f"{name}.npz", images=pixels[rows].clip(0, 255).astype(np.uint8), labels=digits.target[rows])
    places = {f"data.{key}": str(tmp_path / f"{key.split('_')[-1]}.npz") for key in ("source", "target", "target_test")}
    steps = {
        "classifier.steps": 80,
        "classifier.batch": 64,
        "training.steps": 40,
        "training.batch": 32,
        "training.target_batch": 64,
    }
    settings = SHORT | places | steps | {"classifier.backbone": f"{NETS}:SmallResNet", "training.evaluate_every": 40}
    done = run(tmp_path / "run", settings | {"augment.source": {}, "classifier.training.learning_rate": 3e-3})
    before, after = done.accuracy["source_only"], done.accuracy["last"]
    assert before is not None
    assert after is not None
    assert before < 0.8, "else there is nothing to adapt to"
    assert after > before


def test_a_run_on_photographs_by_name_keeps_its_roots_and_goes_without_a_class(small_pair: Pair, tmp_path: Path) -> None:
    """The roots are written down for a resume; a target without some class has figures for the others."""
    write_folder(small_pair.source, tmp_path / "office-home" / "Art", True)
    write_folder(small_pair.source_test, tmp_path / "more" / "office-home" / "Real World", True)
    shutil.rmtree(tmp_path / "more" / "office-home" / "Real World" / "3")
    roots = f"{tmp_path}{os.pathsep}{tmp_path / 'more'}"
    named = {"data.source": "office-home/Art", "data.target": "office-home/Real World", "data.held_out": False, "seed": 1}
    short = {key: value for key, value in SHORT.items() if not key.startswith("method")}
    settings = short | named | {"classifier.steps": 2, "method.name": "mcc", "data.size": 16}
    with pytest.raises(Interrupted):
        run(tmp_path / "run", settings, data_root=roots, observers=[StopAfter(3)])
    done = resume(tmp_path / "run")
    assert done.result["target"]["name"] == "office-home/Real World"
    assert "transductive" in done.result["target"]["note"]
    assert "tested on what it was trained on" in done.result["source"]["note"]
    assert done.result["per_class"]["last"][3] is None
    assert done.result["source"]["test"] == done.result["source"]["train"] == 96


def test_a_source_that_is_tested_on_whole_says_that_it_was_trained_on(folders: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "run", overrides(folders, **{"data.held_out": False}))
    assert done.result["source"]["seen"] == "all"


def test_a_source_classifier_that_knows_nothing_is_the_first_warning(own_run: Run) -> None:
    """Its weights are random."""
    first = own_run.result["warnings"][0]
    assert first["name"] == "hardly better than guessing"
    assert first["advice"][1:] in (own_run.path / "report.html").read_text()
