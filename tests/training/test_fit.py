"""Whole runs at a small size: what they write, that they repeat, and that a stopped one ends as if it had not been."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import uda
from tests.conftest import StopAfter
from uda import UserError
from uda.console import Display
from uda.data.augment import to_float
from uda.data.batches import Batches
from uda.data.datasets.synthetic import load_handwritten_digits
from uda.data.domain import LabelledDomain
from uda.data.load import EMBEDDED, load_pair
from uda.evaluation.shares import Shares
from uda.recipe.load import load_recipe
from uda.runtime import Runtime
from uda.training.fit import fit, resume, start
from uda.training.loop import Interrupted, Observer, Row, Stage

FILES = ["recipe.toml", "environment.json", "metrics.jsonl", "result.json", "translations.png", "report.html"]


def run(recipe: Path, out: Path, **settings: Any) -> uda.Run:
    return fit(recipe, out=out, device="cpu", precision="fp32", **settings)


def result(run: uda.Run) -> dict[str, Any]:
    """What comes out, but for how long it took."""
    return {key: value for key, value in run.result.items() if key != "seconds"}


def losses(run: uda.Run) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.metrics]


def weights(run: uda.Run, which: str = "last") -> torch.Tensor:
    """All weights of one file, (N,)."""
    kept = load_file(run.path / "weights" / f"{which}.safetensors")
    return torch.cat([kept[name].double().flatten() for name in sorted(kept)])


def test_a_run_writes_all_it_promises(tiny_run: uda.Run) -> None:
    for name in [*FILES, *(f"weights/{which}.safetensors" for which in ("source", "last", "selected", "method"))]:
        assert (tiny_run.path / name).stat().st_size > 0, name
    assert not (tiny_run.path / "checkpoint.pt").exists()
    assert not list(tiny_run.path.glob("**/.*")), "no temporary file is left"


def test_a_result_says_what_was_run_and_what_came_out(tiny_run: uda.Run) -> None:
    result = tiny_run.result
    assert (result["recipe"], result["method"], result["seed"], result["steps"]) == ("tiny", "unit", 0, 8)
    assert (result["device"], result["precision"]) == ("cpu", "fp32")
    assert result["target"] == {"name": "digits", "note": result["target"]["note"], "train": 1197, "test": 600, "held_out": 0}
    assert set(result["accuracy"]) == {"source", "source_only", "last", "selected", "oracle"}
    assert set(result["seconds"]) == {"total", "source_classifier", "adaptation"}
    assert 0 <= result["translation"]["class_consistency"] <= 1
    assert result["accuracy"]["oracle"] >= max(result["accuracy"]["last"], result["accuracy"]["selected"])


def test_metrics_hold_the_losses_as_often_as_asked_for(tiny_run: uda.Run) -> None:
    adaptation = [row for row in tiny_run.metrics if row["stage"] == "adaptation"]
    assert [row["step"] for row in adaptation] == [2, 4, 6, 8]
    assert {"target_entropy", "pseudo_label", "generator_class"} <= set(adaptation[0])


def test_the_same_seed_repeats(tiny: Path, tiny_run: uda.Run, tmp_path: Path) -> None:
    again = run(tiny, tmp_path / "again")
    assert result(again) == result(tiny_run)
    assert torch.equal(weights(again), weights(tiny_run))


def test_another_seed_differs(tiny: Path, tiny_run: uda.Run, tmp_path: Path) -> None:
    assert not torch.equal(weights(run(tiny, tmp_path / "other", seed=2)), weights(tiny_run))


@pytest.mark.parametrize("stop_after", [3, 9, 13])  # of 6 steps of the source classifier, then 8 of the method
def test_a_stopped_run_resumes_to_the_same_end(stop_after: int, tiny: Path, tiny_run: uda.Run, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as interrupted:
        run(tiny, tmp_path / "stopped", observers=[StopAfter(stop_after)])
    assert interrupted.value.path == tmp_path / "stopped"
    again = resume(tmp_path / "stopped")
    assert result(again) == result(tiny_run)
    assert losses(again) == losses(tiny_run)


class Kill(Observer):
    """As abrupt as a kill: nothing is saved on the way out."""

    def step(self, step: int, row: Row) -> None:
        if "target_entropy" in row and step == 6:
            raise KeyboardInterrupt


def test_a_killed_run_resumes_from_its_last_checkpoint(
    tiny: Path, tiny_run: uda.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uda.training.loop.SAVE_EVERY", 0.0)
    with pytest.raises(Interrupted, match=r"^interrupted$"):
        run(tiny, tmp_path / "killed", observers=[Kill()])
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "adaptation", "step": 7, "class": 1.0}\n')  # logged after the checkpoint
        file.write('{"stage": "adaptation", "st')  # a line that the kill cut short
    again = resume(tmp_path / "killed")
    assert result(again) == result(tiny_run)
    assert losses(again) == losses(tiny_run)


def test_a_finished_run_is_left_alone(tiny_run: uda.Run) -> None:
    stamp = (tiny_run.path / "result.json").stat().st_mtime_ns
    assert resume(tiny_run.path).result == tiny_run.result
    assert (tiny_run.path / "result.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("which", "accuracy"), [("last", "last"), ("selected", "selected"), ("source", "source_only")])
def test_a_loaded_run_predicts_what_was_measured(which: str, accuracy: str, tiny_run: uda.Run) -> None:
    loaded, test = uda.load(tiny_run.path, device="cpu"), load_handwritten_digits("test", 16, 1)
    with torch.no_grad():
        right = (loaded.load_classifier(which)(to_float(test.images)).argmax(1) == test.labels).float().mean()
    assert right.item() == pytest.approx(loaded.accuracy[accuracy], abs=1e-6)


def test_a_loaded_run_translates_as_the_run_does(tiny_run: uda.Run) -> None:
    images = to_float(tiny_run.sample()[:4])
    assert torch.equal(
        uda.load(tiny_run.path, device="cpu").method().translate(images, 1, 0), tiny_run.method().translate(images, 1, 0)
    )


def test_a_loaded_method_holds_what_it_kept_of_every_target_image(tiny: Path, tmp_path: Path) -> None:
    """A bank of neighbours is as long as what of the target is trained on, which the recipe alone does not tell."""
    done = run(tiny, tmp_path / "run", overrides={"method.name": "aad"}, report=False)
    kept = load_file(done.path / "weights" / "method.safetensors")["bank.features"]
    assert len(kept) == done.result["target"]["train"] - done.result["target"]["held_out"]
    assert torch.equal(uda.load(done.path, device="cpu").method().bank.features, kept)


def test_target_labels_reach_neither_training_nor_selection(
    tiny: Path, tiny_run: uda.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all target labels shuffled, weights and label-free scores come out the same; only what the evaluator says differs."""

    def shuffled(split: str, size: int, channels: int) -> LabelledDomain:
        domain = load_handwritten_digits(split, size, channels)
        return LabelledDomain(domain.name, domain.images, domain.classes, domain.note, domain.labels.roll(17))

    monkeypatch.setitem(EMBEDDED, "digits", shuffled)
    other = run(tiny, tmp_path / "shuffled")
    for which in ("last", "selected", "method"):
        assert torch.equal(weights(tiny_run, which), weights(other, which)), which
    assert tiny_run.result["selection"]["selected_step"] == other.result["selection"]["selected_step"]
    assert tiny_run.result["confusion"] != other.result["confusion"]


def test_no_method_trains_on_target_images_that_are_kept_aside(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other images in their place, weights come out the same; what is said without labels differs."""
    monkeypatch.setattr("uda.data.domain.FEWEST_ASIDE", 100)  # there are 1,197 of these digits
    first = run(tiny, tmp_path / "first", report=False)

    def other(split: str, size: int, channels: int) -> LabelledDomain:
        domain = load_handwritten_digits(split, size, channels)
        aside, _ = domain.kept_aside(0.1)
        assert isinstance(domain.images, torch.Tensor)
        images = domain.images.clone()
        images[aside] = 255 - images[aside]
        return replace(domain, images=images) if split == "train" else domain

    monkeypatch.setitem(EMBEDDED, "digits", other)
    changed = run(tiny, tmp_path / "changed", report=False)
    assert first.result["target"]["held_out"] == 120
    for which in ("last", "method"):
        assert torch.equal(weights(first, which), weights(changed, which)), which
    assert first.result["estimated"] != changed.result["estimated"]


def test_a_trained_source_classifier_is_loaded_instead_of_trained(tiny: Path, tiny_run: uda.Run, tmp_path: Path) -> None:
    trained = str(tiny_run.path / "weights" / "source.safetensors")
    second = run(tiny, tmp_path / "second", classifier__weights=trained)
    assert result(second) == result(tiny_run)
    assert second.result["seconds"]["source_classifier"] == 0
    with pytest.raises(UserError, match="another network"):
        run(tiny, tmp_path / "third", classifier__weights=trained, classifier__width=16)


def test_keywords_override_the_recipe(tiny: Path, tmp_path: Path) -> None:
    done = run(tiny, tmp_path / "run", method__feature_norm="l2", training__steps=2)
    assert done.recipe.method.feature_norm == "l2"
    assert done.result["steps"] == 2


def test_source_only_runs_as_a_method(tiny: Path, tmp_path: Path) -> None:
    done = run(tiny, tmp_path / "run", overrides={"method.name": "source_only", "training.steps": 3})
    assert "translation" not in done.result
    assert not (done.path / "translations.png").exists()


def test_a_timm_backbone_runs(tiny: Path, folders: Path, tmp_path: Path) -> None:
    recipe = (
        tiny.read_text()
        .replace("width = 8\nsteps = 6", 'backbone = "timm:mobilenetv3_small_050"\npretrained = false\nsteps = 2')
        .replace("steps = 8", "steps = 2")
    )
    tiny.write_text(recipe.replace("size = 16", "size = 32"))
    data = {
        "data.source": str(folders / "source"),
        "data.target": str(folders / "target"),
        "data.target_test": str(folders / "test"),
    }
    assert 0 <= run(tiny, tmp_path / "run", overrides=data).target_accuracy <= 1


def test_a_folder_that_is_not_empty_is_not_overwritten(tiny: Path, tiny_run: uda.Run) -> None:
    with pytest.raises(UserError, match="exists already"):
        run(tiny, tiny_run.path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.target", "nothing"),
        ("data.size", 5),
        ("classifier.backbone", "none"),
        ("classifier.weights", "nowhere.safetensors"),
        ("method.private_encoder_layers", 99),
        ("selection.score", "luck"),
    ],
)
def test_wrong_input_leaves_no_folder(key: str, value: object, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run(tiny, tmp_path / "run", overrides={key: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["checkpoint.pt", "recipe.toml", "environment.json"])
def test_damaged_files_are_named(name: str, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny, tmp_path / "run", observers=[StopAfter(1)])
    (tmp_path / "run" / name).write_bytes(b"\x80damaged")
    with pytest.raises(UserError, match=name):
        resume(tmp_path / "run")


def test_diverging_training_says_what_to_do(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adaptation: .*; lower method\.learning_rate"):
        run(tiny, tmp_path / "run", method__learning_rate=1e30)


class Paint(Observer):
    """Once the source classifier is there, paints the source's pixels over."""

    def __init__(self, source: torch.Tensor) -> None:
        self.source = source

    def begin(self, stage: Stage) -> None:
        if stage.name == "adaptation":
            self.source.zero_()


@pytest.mark.parametrize(("method", "same"), [("shot", True), ("mcc", False)])
def test_source_free_means_that_the_source_could_be_gone(
    method: str, same: bool, tiny: Path, tmp_path: Path, fp32: Runtime
) -> None:
    """Who read the painted images would end elsewhere."""
    overrides = {"method.name": method, "training.steps": 3, "training.batch": 8, "training.target_batch": 8}
    whole, recipe = run(tiny, tmp_path / "whole", overrides=overrides), load_recipe(tiny, overrides)
    pair, display = load_pair(recipe.data, (tmp_path,), Display(quiet=True)), Display(quiet=True)
    painted = start(recipe, pair, fp32, display, out=tmp_path / "painted", observers=[Paint(pair.source.images)])
    assert torch.equal(weights(whole), weights(painted)) == same


def test_the_upper_bound_trains_on_target_labels_and_nothing_else_does(tiny: Path, tmp_path: Path) -> None:
    few = {"training.steps": 60, "training.batch": 32}
    bound = run(tiny, tmp_path / "bound", overrides={"method.name": "target_only"} | few)
    assert bound.accuracy["last"] > bound.accuracy["source_only"] + 0.1
    np.savez(tmp_path / "t.npz", images=np.zeros((9, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"target_only trains on target labels, and .* has none"):
        run(tiny, tmp_path / "none", overrides={"method.name": "target_only", "data.target": str(tmp_path / "t.npz")} | few)


def test_source_classes_can_be_drawn_as_the_target_seems_to_have_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shares that batches are drawn by are the source classifier's mean prediction on target images."""
    drawn = []

    class Noted(Batches):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            drawn.extend(given[7:])

    monkeypatch.setattr("uda.training.stages.Batches", Noted)
    done = run(tiny, tmp_path / "run", training__class_shares="predicted")
    few = {"method.name": "dann", "training.steps": 1, "training.class_shares": "target"}
    estimated = run(tiny, tmp_path / "estimated", overrides=few | {"training.target_shares": "estimated"}, report=False)
    run(tiny, tmp_path / "even", overrides=few | {"training.target_shares": "even"}, report=False)
    predicted, target, even = drawn
    assert torch.allclose(predicted, done.outputs("source_only").target_logits.softmax(1).mean(0))
    assert torch.allclose(target, Shares(torch.tensor(estimated.result["class_shares"]["estimated"]), 0.0, 1).expected)
    assert torch.equal(even, torch.ones(10))


def test_a_target_that_lacks_classes_is_noticed_and_expected(tiny: Path, tmp_path: Path) -> None:
    """In training as in testing; it is said once, and the methods are told. Where even classes are asked for, they are not."""
    for split in ("train", "test"):
        domain = load_handwritten_digits(split, 16, 1)
        few = domain.labels < 6
        np.savez(tmp_path / f"{split}.npz", images=domain.images.numpy()[few, 0], labels=domain.labels.numpy()[few])
    said = io.StringIO()
    data = {"data.source": "digits", "data.target": str(tmp_path / "train.npz"), "data.target_test": str(tmp_path / "test.npz")}
    few_steps = data | {"classifier.steps": 150, "classifier.batch": 64, "method.name": "im", "training.steps": 2}
    auto = run(tiny, tmp_path / "auto", overrides=few_steps, display=Display(console=Console(file=said, width=200)), report=False)
    even = run(tiny, tmp_path / "even", overrides=few_steps | {"training.target_shares": "even"}, report=False)
    (line,) = [text for text in said.getvalue().splitlines() if "class shares of the target" in text]
    assert "estimated" in line
    assert "hardly any of 6, 7, 8, 9" in line
    assert "without images of 4 of 10 classes: 6, 7, 8, 9" in said.getvalue()
    assert [run.result["class_shares"]["expected"] for run in (auto, even)] == ["estimated", "even"]
    assert sum(auto.result["class_shares"]["estimated"][6:]) < 0.05


DENORMALS = """
import sys
import numpy as np, torch, uda
from uda.training.loop import Observer
torch.set_num_threads(2)
small = np.full(1_000_000, 2e-38, np.float32)  # so many that both threads have a part of them

class Look(Observer):
    def step(self, step, row):
        bits = (torch.from_numpy(small) * 1e-3).numpy().view(np.uint32)
        assert (bits == 0).all(), f"{(bits != 0).mean():.0%} of the products are denormal numbers"

few = {"method.name": "dann", "classifier.steps": 1, "training.steps": 1, "training.batch": 8}
uda.fit(sys.argv[1], out=sys.argv[2], device="cpu", precision="fp32", report=False, observers=[Look()], overrides=few)
"""


def test_all_threads_of_a_run_flush_denormals(tiny: Path, tmp_path: Path) -> None:
    """In a process of its own: torch starts its threads once, and they keep what they begin with."""
    done = subprocess.run([sys.executable, "-c", DENORMALS, str(tiny), str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_model_that_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model is int, and no torch\.nn\.Module"):
        fit("synth2digits", model=3, out=tmp_path / "run")  # type: ignore[arg-type]
