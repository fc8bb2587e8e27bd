"""Runs with a frozen body: what it makes of images is computed once, and nothing else changes by that."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import uda
from tests.conftest import NETS, SHORT, StopAfter
from tests.two_processes import free_port, start
from uda import UserError
from uda.console import Display
from uda.data.augment import to_float
from uda.data.folders import find, in_frame
from uda.runs.run import Run
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted

FROZEN = {
    "classifier.backbone": f"{NETS}:SmallResNet",
    "classifier.trainable": "head",
    "classifier.bottleneck": 8,
    "classifier.steps": 4,
    "classifier.refine_steps": 0,
    "data.channels": 1,
    "method.name": "im",
}


def settings(folders: Path, **more: Any) -> dict[str, Any]:
    place = {"data.source": folders / "source", "data.target": folders / "target", "data.target_test": folders / "test"}
    place |= {"classifier.backbone_weights": folders / "net.pt"}
    short = {key: value for key, value in SHORT.items() if not key.startswith("method.")}
    return short | {key: str(path) for key, path in place.items()} | FROZEN | more


def frozen(folders: Path, out: Path, display: Display | None = None, cache: bool = True, **more: Any) -> Run:
    return fit(
        "folders", out=out, device="cpu", precision="fp32", report=False, display=display, cache=cache,
        overrides=settings(folders, **more),
    )  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UDA_CACHE_GIB", "1")
    return tmp_path / "cache" / "uda" / "kept"


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return frozen(folders, tmp_path_factory.mktemp("keep") / "run")


def test_the_whole_network_says_of_pixels_what_was_said_of_kept_features(run: Run, folders: Path) -> None:
    _, images, _ = in_frame(find(folders / "test", True), run.recipe.data.frame, 1 << 30, Display(quiet=True))
    assert isinstance(images, torch.Tensor)
    kept = run.outputs("last").test
    assert kept is not None
    with torch.no_grad():
        logits = run.classifier(to_float(images))
    assert torch.allclose(logits, kept[0], atol=1e-4)
    assert run.target_accuracy == pytest.approx(float((logits.argmax(1) == kept[1]).float().mean()))


def test_target_images_may_have_a_body_of_their_own(folders: Path, tmp_path: Path, cache: Path, run: Run) -> None:
    """The source classifier's figures stay; what adapts reads the target by its statistics too, as predictions do."""
    wanted = {"classifier.target_norm": "both"}
    made = frozen(folders, tmp_path / "both", **wanted)
    assert made.accuracy["source_only"] == run.accuracy["source_only"]
    source, plain = (one.load_classifier("source").get_submodule("body").state_dict() for one in (made, run))
    assert all(torch.equal(source[name], plain[name]) for name in plain)
    assert not torch.equal(made.outputs("last").target_features, run.outputs("last").target_features)
    test_the_whole_network_says_of_pixels_what_was_said_of_kept_features(made, folders)
    with pytest.raises(Interrupted):
        fit(
            "folders", out=tmp_path / "stopped", device="cpu", precision="fp32", report=False, observers=[StopAfter(1)],
            overrides=settings(folders, **wanted),
        )  # fmt: skip
    assert without_seconds(resume(tmp_path / "stopped", report=False)) == without_seconds(made)


@pytest.mark.parametrize(("scores", "decided"), [([0.4, 0.5], "both"), ([0.5, 0.4], "own")])
def test_target_images_have_a_body_of_their_own_where_the_source_classifier_is_surer_then(
    folders: Path, tmp_path: Path, cache: Path, run: Run, monkeypatch: pytest.MonkeyPatch, scores: list[float], decided: str
) -> None:
    seen: list[float] = list(scores)
    monkeypatch.setattr("uda.training.stages.information_maximization", lambda logits: seen.pop(0))
    made = frozen(folders, tmp_path / "auto", **{"classifier.target_norm": "auto"})
    assert made.result["target_norm"] == decided
    assert seen == []
    same = torch.equal(made.outputs("last").target_features, run.outputs("last").target_features)
    assert same == (decided == "own")
    test_the_whole_network_says_of_pixels_what_was_said_of_kept_features(uda.load(made.path), folders)


def test_the_body_is_as_it_came_and_what_follows_is_not(run: Run) -> None:
    """The factory draws its weights, so they are compared with the source classifier's, not with a new network's."""
    last, source = run.load_classifier("last"), run.load_classifier("source")
    bodies = [part.get_submodule("body").state_dict() for part in (last, source)]
    assert all(torch.equal(bodies[0][name], bodies[1][name]) for name in bodies[0])
    heads = [part.get_submodule("classifier.head") for part in (last, source)]
    assert not torch.equal(*(head.weight for head in heads if isinstance(head, nn.Linear)))


def test_a_second_run_reads_what_the_first_has_kept(
    folders: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = frozen(folders, tmp_path / "first", Display())
    said = capsys.readouterr().out
    assert "features of source" in said
    kept = [path for path in cache.iterdir() if path.suffix != ".lock"]
    assert len(kept) == 5, "source, its test images, target, its test images; and the source classifier"
    again = frozen(folders, tmp_path / "again", Display())
    said = capsys.readouterr().out
    assert "features of" not in said
    assert "trained by an earlier run" in said
    assert without_seconds(again) == without_seconds(first)
    other = frozen(folders, tmp_path / "other", Display(), **{"method.name": "mcc", "seed": 5})
    said = capsys.readouterr().out
    assert "features of" not in said
    assert "trained by an earlier run" not in said
    assert other.recipe.seed == 5
    fresh = frozen(folders, tmp_path / "fresh", Display(), cache=False)
    assert "features of source" in capsys.readouterr().out
    assert without_seconds(fresh) == without_seconds(first)


def without_seconds(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.result.items() if key != "seconds"}


@pytest.mark.parametrize("lost", [True, False])
def test_an_interrupted_run_ends_as_an_uninterrupted_one_maps_kept_or_lost(
    folders: Path, tmp_path: Path, cache: Path, run: Run, lost: bool
) -> None:
    with pytest.raises(Interrupted):
        fit(
            "folders", out=tmp_path / "run", device="cpu", precision="fp32", report=False, observers=[StopAfter(6)],
            overrides=settings(folders),
        )  # fmt: skip
    if lost:
        shutil.rmtree(cache)
    assert without_seconds(resume(tmp_path / "run", report=False)) == without_seconds(run)


def test_damaged_images_are_left_out_and_named(folders: Path, tmp_path: Path, cache: Path) -> None:
    shutil.copytree(folders / "target", tmp_path / "target")
    damaged = sorted((tmp_path / "target").iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:60])
    for out in ("first", "again"):  # computed, then kept
        made = frozen(folders, tmp_path / out, **{"data.target": str(tmp_path / "target")})
        assert made.result["target"]["train"] == 95
        assert damaged.name in (tmp_path / out / "unreadable.txt").read_text()


def test_two_processes_share_the_work_and_keep_what_one_would(folders: Path, tmp_path: Path, cache: Path) -> None:
    shutil.copytree(folders / "target", tmp_path / "target")
    damaged = sorted((tmp_path / "target").iterdir())[5]
    damaged.write_bytes(damaged.read_bytes()[:60])
    more = {"data.target": str(tmp_path / "target"), "classifier.target_norm": "both"}
    wanted = settings(folders, **more)
    words = ["-m", "uda", "fit", "--recipe", "folders", "--out", str(tmp_path / "run"), "--precision", "fp32", "--device", "cpu"]
    words += [word for key, value in wanted.items() for word in ("--set", f"{key}={value}")]
    port = free_port()
    both = [start(rank, port, *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for rank in range(2)]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("features of source" in text for text in said) == 1
    of_two = kept_maps(cache)
    shutil.rmtree(cache)
    frozen(folders, tmp_path / "one", **more)
    assert of_two == kept_maps(cache)
    assert damaged.name in (tmp_path / "run" / "unreadable.txt").read_text()


def kept_maps(cache: Path) -> dict[str, tuple[bytes, str]]:
    """By key: the maps, and what is said of them."""
    return {path.parent.name: (path.read_bytes(), (path.parent / "about.json").read_text()) for path in cache.glob("*/maps.bin")}


def test_a_part_of_the_network_is_trained_from_a_stage_on(folders: Path, tmp_path: Path) -> None:
    """Its maps are kept in place of pooled features."""
    made = frozen(folders, tmp_path / "run", **{"classifier.trainable": "from layer2"})
    last, source = made.load_classifier("last"), made.load_classifier("source")
    trunks = [part.get_submodule("classifier.backbone.trunk") for part in (last, source)]
    moved = [not torch.equal(a, b) for a, b in zip(*(trunk.parameters() for trunk in trunks), strict=True)]
    assert sum(moved) > 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"method.name": "latent_mapping"}, 'classifier.trainable to "all"'),
        ({"classifier.trainable": "from layer9"}, "layer9"),
        ({"classifier.trainable": "from ?"}, "the network's stages are layer1, layer2$"),
        ({"classifier.trainable": "half"}, "classifier.trainable"),
        ({"classifier.backbone": "lenet", "classifier.trainable": "from x"}, "no stages"),
    ],
)
def test_what_cannot_be_frozen_is_refused_before_a_folder_is_made(
    folders: Path, tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        frozen(folders, tmp_path / "run", **more)
    assert not os.path.exists(tmp_path / "run")


def test_a_run_is_opened_where_the_weights_it_began_with_are_gone(folders: Path, tmp_path: Path) -> None:
    shutil.copy(folders / "net.pt", tmp_path / "body.pt")
    made = frozen(folders, tmp_path / "run", **{"classifier.backbone_weights": str(tmp_path / "body.pt")})
    (tmp_path / "body.pt").unlink()
    body = uda.load(made.path).classifier.get_submodule("body").state_dict()
    given = torch.load(folders / "net.pt", weights_only=True)
    name = next(name for name in given if name.endswith("conv1.weight"))
    assert any(torch.equal(value, given[name]) for value in body.values())
