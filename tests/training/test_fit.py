"""Whole runs at a small size: what they write, that they repeat, and that a stopped one ends as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import uda
from uda import UserError
from uda.data.augment import to_float
from uda.data.batches import Batches
from uda.data.domain import Pair
from uda.data.load import load_pair
from uda.methods import unit
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted, Loop

FILES = ["recipe.toml", "environment.json", "metrics.jsonl", "result.json", "translations.png", "report.html"]


def run(recipe: Path, out: Path, **settings: Any) -> uda.Run:
    return fit(recipe, out=out, device="cpu", precision="fp32", **settings)


def figures(path: Path) -> dict[str, Any]:
    result = json.loads((path / "result.json").read_text())
    del result["seconds"]
    return result


def test_a_run_writes_all_it_promises(tiny: Path, tmp_path: Path) -> None:
    got = run(tiny, tmp_path / "run", seed=3)
    for name in [*FILES, *(f"weights/{which}.safetensors" for which in ("source", "last", "selected", "method"))]:
        assert (got.path / name).stat().st_size > 0, name
    assert not (got.path / "checkpoint.pt").exists()
    assert not list(got.path.glob("**/.*")), "no temporary file is left"
    result = got.result
    assert (result["recipe"], result["method"], result["seed"], result["steps"]) == ("tiny", "unit", 3, 8)
    assert (result["device"], result["precision"]) == ("cpu", "fp32")
    assert result["target"] == {"name": "digits", "note": result["target"]["note"], "train": 1197, "test": 600}
    assert set(result["accuracy"]) == {"source", "source_only", "last", "selected", "oracle"}
    assert set(result["seconds"]) == {"total", "source_classifier", "adaptation"}
    assert 0 <= result["translation"]["class_consistency"] <= 1
    assert result["accuracy"]["oracle"] >= max(result["accuracy"]["last"], result["accuracy"]["selected"])
    rows = [json.loads(line) for line in (got.path / "metrics.jsonl").read_text().splitlines()]
    adaptation = [row for row in rows if row["stage"] == "adaptation"]
    assert [row["step"] for row in adaptation] == [2, 4, 6, 8]
    assert {"target_entropy", "pseudo_label", "generator_class"} <= set(adaptation[0])


def test_the_same_seed_repeats_and_another_differs(tiny: Path, tmp_path: Path) -> None:
    first, second, other = (run(tiny, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert figures(first.path) == figures(second.path)
    a, b, c = (load_file(each.path / "weights" / "last.safetensors") for each in (first, second, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize("stop_after", [3, 9, 13])  # steps of both stages together: 6 of the source classifier, then 8
def test_a_stopped_run_resumes_to_the_same_end(
    stop_after: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny, tmp_path / "whole")
    original = Loop._refuse_nan

    def stop(self: Loop, stage: str, step: int, row: dict[str, float]) -> None:
        original(self, stage, step, row)
        if not resumed and (step if stage == "source classifier" else 6 + step) >= stop_after:
            self.stop = True

    resumed = False
    monkeypatch.setattr(Loop, "_refuse_nan", stop)
    with pytest.raises(Interrupted) as interrupted:
        run(tiny, tmp_path / "stopped")
    assert interrupted.value.path == tmp_path / "stopped"
    resumed = True
    again = resume(tmp_path / "stopped")
    assert figures(again.path) == figures(whole.path)
    losses = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (each.path / "metrics.jsonl").open()]
        for each in (whole, again)
    ]
    assert losses[0] == losses[1]


def test_a_killed_run_resumes_from_its_last_checkpoint(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tiny, tmp_path / "whole")
    monkeypatch.setattr("uda.training.loop.SAVE_EVERY", 0.0)
    original, steps = unit.Method.step, 0

    def die(self: unit.Method, batch: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt  # as abrupt as a kill: nothing is saved on the way out
        return original(self, batch)

    monkeypatch.setattr(unit.Method, "step", die)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path / "killed")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "adaptation", "st')  # a line that the kill cut short
    monkeypatch.setattr(unit.Method, "step", original)
    again = resume(tmp_path / "killed")
    assert figures(again.path) == figures(whole.path)


def test_a_finished_run_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    first = run(tiny, tmp_path / "run")
    stamp = (first.path / "result.json").stat().st_mtime_ns
    assert resume(first.path).result == first.result
    assert (first.path / "result.json").stat().st_mtime_ns == stamp


def test_a_loaded_run_predicts_what_was_measured(tiny: Path, tmp_path: Path) -> None:
    done = run(tiny, tmp_path / "run")
    loaded = uda.load(done.path, device="cpu")
    from uda.data.datasets.synthetic import load_handwritten_digits

    test = load_handwritten_digits("test", 16, 1)
    for which, name in (("last", "last"), ("selected", "selected"), ("source", "source_only")):
        with torch.no_grad():
            right = (loaded.load_classifier(which)(to_float(test.images)).argmax(1) == test.labels).float().mean()
        assert right.item() == pytest.approx(loaded.accuracy[name], abs=1e-6), which
    images = to_float(test.images[:4])
    assert torch.equal(loaded.method().translate(images, 1, 0), done.method().translate(images, 1, 0))
    assert loaded.target_accuracy == loaded.accuracy["last"]


def test_target_labels_reach_neither_training_nor_selection(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all target labels shuffled, weights and label-free scores come out the same; only what the evaluator says differs."""
    straight = run(tiny, tmp_path / "straight")
    from uda.data.datasets import synthetic

    original = synthetic.load_handwritten_digits

    def shuffled(split: str, size: int, channels: int) -> Any:
        from dataclasses import replace

        domain = original(split, size, channels)
        return replace(domain, labels=domain.labels.roll(17))

    monkeypatch.setitem(__import__("uda.data.load", fromlist=["EMBEDDED"]).EMBEDDED, "digits", shuffled)
    other = run(tiny, tmp_path / "shuffled")
    for which in ("last", "selected", "method"):
        a, b = (load_file(each.path / "weights" / f"{which}.safetensors") for each in (straight, other))
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert straight.result["selection"]["selected_step"] == other.result["selection"]["selected_step"]
    assert straight.result["confusion"] != other.result["confusion"]


def test_a_trained_source_classifier_is_loaded_instead_of_trained(tiny: Path, tmp_path: Path) -> None:
    first = run(tiny, tmp_path / "first")
    weights = first.path / "weights" / "source.safetensors"
    second = run(tiny, tmp_path / "second", classifier__weights=str(weights))
    assert figures(second.path) == figures(first.path)
    assert second.result["seconds"]["source_classifier"] == 0
    with pytest.raises(UserError, match="another network"):
        run(tiny, tmp_path / "third", classifier__weights=str(weights), classifier__width=16)


def test_keywords_override_the_recipe(tiny: Path, tmp_path: Path) -> None:
    done = run(tiny, tmp_path / "run", method__feature_norm="l2", training__steps=2)
    assert done.recipe.method.feature_norm == "l2"
    assert done.result["steps"] == 2


def test_source_only_runs_as_a_method(tiny: Path, tmp_path: Path) -> None:
    done = run(tiny, tmp_path / "run", overrides={"method.name": "source_only", "training.steps": 3})
    assert "translation" not in done.result
    assert not (done.path / "translations.png").exists()


def test_a_timm_backbone_runs(tiny: Path, tmp_path: Path) -> None:
    recipe = (
        tiny.read_text()
        .replace("width = 8\nsteps = 6", 'backbone = "timm:resnet18"\nsteps = 2')
        .replace("steps = 8", "steps = 2")
    )
    tiny.write_text(recipe.replace("size = 16", "size = 32"))
    assert 0 <= run(tiny, tmp_path / "run").target_accuracy <= 1


def test_a_folder_that_is_not_empty_is_not_overwritten(tiny: Path, tmp_path: Path) -> None:
    run(tiny, tmp_path / "run")
    with pytest.raises(UserError, match="exists already"):
        run(tiny, tmp_path / "run")


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
def test_damaged_files_are_named(name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "_refuse_nan", lambda self, *_: self._ask_to_stop())
    with pytest.raises(Interrupted):
        run(tiny, tmp_path / "run")
    (tmp_path / "run" / name).write_bytes(b"\x80damaged")
    with pytest.raises(UserError, match=name):
        resume(tmp_path / "run")


def test_diverging_training_says_what_to_do(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="learning_rate"):
        run(tiny, tmp_path / "run", method__reconstruction_weight=float("inf"))


@pytest.mark.parametrize(("method", "same"), [("shot", True), ("mcc", False)])
def test_source_free_means_that_the_source_could_be_gone(
    method: str, same: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the source classifier is there, the source's pixels are painted over: who read them would end elsewhere."""
    overrides = {"method.name": method, "training.steps": 3, "training.batch": 8, "training.target_batch": 8}
    whole = run(tiny, tmp_path / "whole", overrides=overrides)
    original, pairs = Loop.train, []

    def load(*given: Any) -> Pair:
        pairs.append(load_pair(*given))
        return pairs[-1]

    def train(self: Loop, stage: str, *given: Any) -> Any:
        if stage == "adaptation":
            pairs[-1].source.images.zero_()
        return original(self, stage, *given)

    monkeypatch.setattr("uda.training.fit.load_pair", load)
    monkeypatch.setattr(Loop, "train", train)
    painted = run(tiny, tmp_path / "painted", overrides=overrides)
    a, b = (load_file(each.path / "weights" / "last.safetensors") for each in (whole, painted))
    assert all(torch.equal(a[key], b[key]) for key in a) == same


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
    original = Batches.__init__

    def note(self: Batches, *arguments: Any) -> None:
        drawn.append(arguments[7] if len(arguments) > 7 else None)
        original(self, *arguments)

    monkeypatch.setattr(Batches, "__init__", note)
    done = run(tiny, tmp_path / "run", training__class_shares="predicted")
    expected = done.seen("source_only").evidence.target_logits.softmax(1).mean(0)
    (shares,) = [shares for shares in drawn if shares is not None]
    assert torch.allclose(shares, expected)
