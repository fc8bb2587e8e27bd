"""The run folder: what is kept comes back, and which folders are refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from uda import Run, UserError
from uda.atomic import held, temporary_beside
from uda.evaluation.outputs import Outputs
from uda.methods import METHODS
from uda.recipe.load import load_recipe
from uda.runs.folder import FORMAT, RunFolder, default_path

DEAD = f".uda-{'0' * 16}.part"


@pytest.fixture
def copy(own_run: Run, tmp_path: Path) -> Path:
    """A finished run's folder that a test may change."""
    return Path(shutil.copytree(own_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("weights")))


@pytest.mark.parametrize("source", [True, False])
@pytest.mark.parametrize("test", [True, False])
def test_outputs_come_back_as_they_were_kept(source: bool, test: bool, tmp_path: Path) -> None:
    given: dict[str, Any] = {"target_features": torch.randn(5, 3), "target_logits": torch.randn(5, 4)}
    if source:
        given |= {"source_features": torch.randn(6, 3), "source_logits": torch.randn(6, 4), "source_labels": torch.arange(6) % 4}
    if test:
        given |= {"test_logits": torch.randn(7, 4), "test_labels": torch.arange(7) % 4}
    RunFolder(tmp_path).write_outputs("last", Outputs(**given))
    back = {name: value for name, value in vars(RunFolder(tmp_path).read_outputs("last")).items() if value is not None}
    assert back.keys() == given.keys()
    for name, value in given.items():
        assert torch.equal(back[name], value.half() if name.endswith("features") else value), name


def test_examples_are_as_sure_as_predict_says_they_are(own_run: Run) -> None:
    logits, labels = load_file(own_run.path / "outputs" / "last.safetensors"), own_run.outputs().test_labels
    assert labels is not None
    sure = (logits["test_logits"] / own_run.temperature("last")).softmax(1).amax(1)[logits["test_logits"].argmax(1) != labels]
    assert own_run.examples[3].tolist() == pytest.approx(sure.sort(descending=True).values[:24].tolist(), abs=1e-3)


def test_a_run_folder_says_its_format(own_run: Run) -> None:
    assert own_run.environment["format"] == FORMAT


def test_images_that_were_moved_are_asked_for_and_found_where_the_recipe_says_that_they_are(copy: Path, tmp_path: Path) -> None:
    place = Path(Run(copy).recipe.data.target)
    recipe = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(recipe.replace(str(place), str(tmp_path / "gone")))
    with pytest.raises(UserError, match=r"gone are not there; put them back, or write their new place into .*recipe.toml"):
        Run(copy).target()
    shutil.copytree(place, tmp_path / "moved")
    (copy / "recipe.toml").write_text(recipe.replace(str(place), str(tmp_path / "moved")))
    assert len(Run(copy).target()[0]) == Run(copy).result["target"]["train"]


def test_which_classifier_that_is_can_be_said_and_no_other_one_asked_for(own_run: Run) -> None:
    assert own_run.by("last") == "by the adapted classifier"
    assert own_run.by("source") == "by the source classifier"
    with pytest.raises(UserError, match="did you mean 'recommended'"):
        own_run.chosen("recommendd")


def before_formats(folder: Path) -> None:
    (folder / "environment.json").rename(folder / "setting.json")


def of_the_future(folder: Path) -> None:
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"format": FORMAT + 1}))


@pytest.mark.parametrize(("change", "found"), [(before_formats, 1), (of_the_future, FORMAT + 1)])
def test_another_format_is_refused_in_one_line(change: Any, found: int, copy: Path) -> None:
    change(copy)
    with pytest.raises(UserError, match=f"has run-folder format {found}, and this version of uda reads {FORMAT}") as caught:
        RunFolder.open(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "7"])
def test_a_damaged_environment_is_one_line(content: str, copy: Path) -> None:
    (copy / "environment.json").write_text(content)
    with pytest.raises(UserError, match=r"environment\.json is damaged") as caught:
        RunFolder.open(copy)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_recipe_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a run folder \(it has no recipe\.toml\)"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("left", [[], ["recipe.toml"], ["environment.json"], [f"{DEAD}/recipe.toml"]])
def test_less_than_a_whole_beginning_is_begun_anew(left: list[str], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).write_text("half")
    recipe = load_recipe("svhn2mnist")
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    assert folder.recipe == recipe
    with folder.locked():
        pass
    assert {path.name for path in tmp_path.rglob("*")} == {"run", "recipe.toml", "environment.json"}


@pytest.mark.parametrize(
    "hidden", ['extends = "base.toml"', '"classifier.backbone" = "evil.py:Net"', '"method.name" = "evil.py:Net"']
)
def test_code_cannot_hide_from_the_question_whether_it_is_trusted(
    hidden: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "base.toml").write_text('[classifier]\nbackbone = "evil.py:Net"\n')
    (copy / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    (copy / "recipe.toml").write_text(f"{hidden}\n{(copy / 'recipe.toml').read_text()}")
    monkeypatch.chdir(copy)
    for trust in (False, True):
        with pytest.raises(UserError, match="not as a run writes it"):
            Run(copy, trust=trust)
    assert not (copy / "ran").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(tmp_path, load_recipe("svhn2mnist"), {})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"recipe.toml": "mine", "notes": "mine"}


def test_what_a_dead_process_was_writing_is_swept(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_recipe("svhn2mnist"), {})
    left = [tmp_path / "run" / name for name in (DEAD, f"weights/{DEAD}", f"outputs/{DEAD}")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with folder.locked():
        assert not any(path.exists() for path in left)


def test_a_dead_beginning_is_swept_and_a_live_one_is_not(tmp_path: Path) -> None:
    for _ in range(2):
        (live := temporary_beside(tmp_path / "run")).mkdir()
    with held(live):
        RunFolder.create(tmp_path / "run", load_recipe("svhn2mnist"), {})
    assert {path.name for path in tmp_path.iterdir()} == {"run", live.name}


def test_what_a_link_in_a_run_folder_leads_to_is_left_alone(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_recipe("svhn2mnist"), {})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / DEAD).touch()
    (tmp_path / "run" / "outputs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="outputs is a link"), folder.locked():
        pass
    assert (tmp_path / "elsewhere" / DEAD).exists()


@pytest.mark.parametrize("method", METHODS)
def test_every_methods_recipe_is_read_back_from_the_folder(method: str, tmp_path: Path) -> None:
    recipe = load_recipe("svhn2mnist", {"method.name": method, "augment.target.mask": 0.5})
    assert RunFolder.create(tmp_path / "run", recipe, {}).recipe == recipe


def test_a_recipe_that_would_not_read_back_makes_no_folder(tmp_path: Path) -> None:
    recipe = load_recipe("svhn2mnist").model_copy(update={"description": "\udcff"})  # of a name that is not UTF-8
    with pytest.raises(UserError, match="cannot be written as TOML"):
        RunFolder.create(tmp_path / "run", recipe, {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "method", "begins"),
    [
        ("mnist2usps", "dann", "mnist2usps-dann-7-"),
        ("svhn2mnist", "dann", "svhn2mnist-dann-7-"),
        ("mnist2usps", "unit", "mnist2usps-unit-7-"),
    ],
)
def test_a_folder_is_named_after_its_recipe_and_method_once(recipe: str, method: str, begins: str) -> None:
    path = default_path(load_recipe(recipe, {"method.name": method}), "7")
    assert path.parent == Path("runs")
    assert path.name.startswith(begins)
    assert path.name.count("-") == begins.count("-") + 1


@pytest.mark.parametrize("lost", ["target_test_accuracy", "target_mean_entropy", "scores"])
def test_evaluations_that_are_not_alike_are_damaged(lost: str, copy: Path) -> None:
    rows = Run(copy).metrics
    last = max(number for number, row in enumerate(rows) if "scores" in row)
    del rows[last][lost]
    rows[last] |= {"scores": {"another": 0.0}} if lost == "scores" else {}
    RunFolder(copy).write_metrics(rows)
    with pytest.raises(UserError, match="its evaluations do not hold the same figures"):
        _ = Run(copy).metrics


def test_a_row_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    folder, rows = RunFolder(tmp_path), [{"stage": "adaptation", "step": 1}]
    folder.write_metrics(rows)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "adap')
    assert folder.read_metrics() == rows


@pytest.mark.parametrize(
    "line", ['{"stage": "adap', "7", '{"stage": "adaptation", "step": "x"}', '{"stage": "a", "step": 1, "loss": []}']
)
def test_a_damaged_line_among_others_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + '\n{"stage": "adaptation", "step": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged \(line 1,"):
        RunFolder(tmp_path).read_metrics()


def test_a_list_that_is_not_text_and_a_picture_that_is_a_pipe_are_one_line_each(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "unreadable.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"unreadable\.txt is damaged"):
        folder.read_unreadable()
    os.mkfifo(tmp_path / "translations.png")
    with pytest.raises(UserError, match=r"translations\.png cannot be read \(it is a pipe"):
        folder.read_picture("translations.png")


def of_rows(file: Path, change: Any) -> None:
    """Changes the tensors of a file, and takes what it was out of the result, as of a run that kept no digests."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    result = file.parents[1] / "result.json"
    result.write_text(json.dumps({key: value for key, value in json.loads(result.read_text()).items() if key != "files"}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_damaged(value: float, copy: Path) -> None:
    of_rows(copy / "outputs" / "last.safetensors", lambda tensors: tensors["target_features"][0].fill_(value))
    with pytest.raises(UserError, match=r"last\.safetensors is missing or damaged"):
        Run(copy).outputs()


def test_outputs_without_what_the_result_says_of_them_are_refused(copy: Path) -> None:
    of_rows(copy / "outputs" / "last.safetensors", lambda tensors: [tensors.pop(name) for name in ("test_logits", "test_labels")])
    with pytest.raises(UserError, match="other images than its result"):
        Run(copy).outputs()


@pytest.mark.parametrize(("name", "value"), [("labels", 99), ("predicted", -1), ("labels", -2)])
def test_examples_of_classes_that_there_are_not_are_refused(name: str, value: int, copy: Path) -> None:
    of_rows(copy / "outputs" / "examples.safetensors", lambda tensors: tensors[name].fill_(value))
    with pytest.raises(UserError, match="of other classes"):
        _ = Run(copy).examples


def test_more_outputs_than_images_are_refused(copy: Path) -> None:
    def more(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("target_logits", "target_features"):
            tensors[name] = tensors[name].repeat(3, 1)

    of_rows(copy / "outputs" / "last.safetensors", more)
    with pytest.raises(UserError, match="more than there are"):
        Run(copy).target()


def edited(folder: Path, keys: list[Any], value: Any) -> Path:
    """A run folder whose result has another value at these keys, one within the other."""
    whole = at = json.loads((folder / "result.json").read_text())
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    (folder / "result.json").write_text(json.dumps(whole))
    return folder


WARNING = {"name": "n", "what": "w", "meaning": "m", "advice": "a"}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["calibration", "temperature"], 0.0),
        (["calibration", "temperature"], float("nan")),
        (["seconds", "total"], float("inf")),
        (["accuracy", "source"], float("nan")),
        (["estimated", "interval"], [0.0, float("nan")]),
        (["warnings"], [WARNING | {"what": ""}]),
        (["warnings"], [WARNING | {"advice": ""}]),
    ],
)
def test_figures_that_are_none_are_refused(keys: list[Any], value: Any, copy: Path) -> None:
    with pytest.raises(UserError, match=r"result\.json is damaged \("):
        Run(edited(copy, keys, value))


def test_a_result_with_a_number_too_large_for_one_is_refused(copy: Path) -> None:
    text = edited(copy, ["seconds", "total"], 12345.5).joinpath("result.json").read_text()
    (copy / "result.json").write_text(text.replace("12345.5", "1e999"))
    with pytest.raises(UserError, match="infinite or not a number"):
        Run(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_is_neither_read_nor_written(value: float, tmp_path: Path) -> None:
    row = {"stage": "adaptation", "step": 1, "loss": value}
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path).append_metrics(row)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged \(line 1,"):
        RunFolder(tmp_path).read_metrics()


def test_a_result_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path).write_json("result.json", {"accuracy": float("nan")})
    assert not (tmp_path / "result.json").exists()


def test_names_of_unreadable_images_that_are_no_text_or_end_lines_have_a_line_each(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_unreadable(["\udcff.png: broken", "a\nb\u2028.png: cut", "\udcff.png: broken"])
    assert RunFolder(tmp_path).read_unreadable() == ["\\udcff.png: broken", "a\\nb\\u2028.png: cut"]


def test_the_chosen_evaluations_weights_are_left_alone(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (2, 4):
        folder.write_weights(f"evaluation-{step}", torch.nn.Linear(step, 1))
    folder.keep_weights("evaluation-4", "selected")
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["selected.safetensors"]
    folder.read_weights("selected", torch.nn.Linear(4, 1))


@pytest.mark.parametrize("name", ["weights/last.safetensors", "outputs/last.safetensors"])
def test_a_file_of_another_run_is_not_taken_for_this_ones(name: str, own_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(own_run.path, tmp_path / "run"), device="cpu", precision="fp32")
    shutil.copy(run.path / name.replace("last", "source" if "weights" in name else "source_only"), run.path / name)
    with pytest.raises(UserError, match="is not the file that the run wrote"):
        run.load_classifier("last") if "weights" in name else run.outputs("last")


def test_of_two_runs_that_begin_at_once_each_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process makes a folder of the same name after this one has looked for it."""
    recipe, rename, path = load_recipe("synth2digits"), os.rename, tmp_path / "run"

    def late(made: Path, wanted: Path) -> None:
        if not path.exists():
            path.mkdir()
            (path / "recipe.toml").write_text("of the other")
        rename(made, wanted)

    monkeypatch.setattr(os, "rename", late)
    assert RunFolder.create(path, recipe, {}, named=False).path == tmp_path / "run-2"
    assert (path / "recipe.toml").read_text() == "of the other"
    shutil.rmtree(path)
    with pytest.raises(UserError, match="another process has just begun a run in"):
        RunFolder.create(path, recipe, {})


def test_a_folder_that_another_process_is_filling_is_not_filled_twice(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(UserError, match="another process begins a run in"):
        RunFolder.create(tmp_path, load_recipe("synth2digits"), {})


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_recipe("synth2digits"), {})
    folder.path.rename(tmp_path / "moved")
    for write in (lambda: folder.write_text("a.txt", ""), lambda: folder.append_metrics({"stage": "a", "step": 1})):
        with pytest.raises(UserError, match="was deleted or moved while it was written to; put it back"):
            write()
    assert not folder.path.exists()


def test_whoever_may_read_a_run_may_read_its_tensors(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", load_recipe("synth2digits"), {})
    folder.write_text("a.txt", "")
    folder.write_weights("last", torch.nn.Linear(1, 1))
    files = folder.path / "a.txt", folder.path / "weights" / "last.safetensors"
    assert len({file.stat().st_mode for file in files}) == 1
