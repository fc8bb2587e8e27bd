"""The command line as a user types it: what it prints, and one line with exit code 2 for every wrong input."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import CHECKOUT, NETS, SHORT
from tests.models.nets import SmallResNet
from uda import __version__
from uda.cli import main
from uda.errors import Terminated
from uda.inference.answering import AnswerServer
from uda.inference.check import draw, write_table
from uda.methods import METHODS
from uda.recipe import presets
from uda.recipe.load import load_recipe
from uda.runs.run import Run


def uda(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["uda", *words])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_help_and_recipes_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from uda.cli import main\n"
        "for words in ([], ['--version'], ['--help'], ['fit', '--help'], ['recipes'], ['recipes', 'show', 'svhn2mnist']):\n"
        "    sys.argv = ['uda', *words]\n"
        "    try: main()\n    except SystemExit: pass\n"
        "    assert 'torch' not in sys.modules, f'{words} imported torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_fit_help_names_the_profiles(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = uda(capsys, monkeypatch, "fit", "--help")
    assert code == 0
    assert "two CPU cores" in " ".join(out.split())
    assert "GPU" in out


def test_recipes_lists_all_and_show_prints_the_comments(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = uda(capsys, monkeypatch, "recipes")
    listed = [line.split()[0] for line in out.splitlines()[1:-2]]
    assert sorted(listed) == presets.names()
    assert listed.index("mnist2usps-dann") > listed.index("mnist2usps") > listed.index("mnist2mnistm")
    assert "\n  mnist2usps-dann" in out  # below its pair
    _, out, _ = uda(capsys, monkeypatch, "recipes", "show", "svhn2mnist")
    assert out == (presets.RECIPES / "svhn2mnist.toml").read_text()


def test_data_tells_what_is_here_and_what_would_be_downloaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    np.savez(tmp_path / "usps_test.npz", images=np.zeros((1, 16, 16), np.uint8), labels=[0], note="one black square")
    code, out, _ = uda(capsys, monkeypatch, "data", "--data-root", str(tmp_path))
    assert code == 0
    assert "one black square" in out
    assert "would be downloaded" in out
    assert "made on the spot" in out


def test_photographs_go_by_name_from_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folders: Path, tmp_path: Path
) -> None:
    roots = f"{tmp_path}{os.pathsep}{tmp_path / 'more'}"
    for place, folder in (("office31/amazon", "source"), ("more/office31/webcam/images", "test")):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(folders / folder)
    monkeypatch.chdir(folders)
    words = "--source", "office31/amazon", "--target", "office31/webcam", "--set", "data.size=32", "--precision", "fp32"
    code, out, err = uda(capsys, monkeypatch, "fit", "--dry-run", "--data-root", roots, *words)
    assert (code, err) == (0, "")
    assert "target: 96 images, Office-31 (Saenko et al., ECCV 2010), webcam, 10 of its 31 classes" in out
    _, out, _ = uda(capsys, monkeypatch, "data", "--data-root", roots)
    assert "\noffice31/webcam " in out
    assert "to be had at https://" in out


def test_without_a_word_it_says_what_one_may_come_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = uda(capsys, monkeypatch)
    assert code == 0
    for command in ("uda fit --recipe synth2digits", "uda fit --model", "uda predict RUN", "uda --help"):
        assert command in out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert uda(capsys, monkeypatch, "--version") == (0, f"uda {__version__}\n", "")


def test_a_dry_run_begins_with_what_was_given(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--recipe", str(tiny), "--seed", "3", "--set", "training.steps=2", "--dry-run"]
    _, out, _ = uda(capsys, monkeypatch, "fit", *words)
    assert "(from you: seed, training.steps); what was checked stands at the end" in out.splitlines()[0]


def test_a_dry_run_shows_origins_checks_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folders: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--model", f"{NETS}:SmallResNet", "--weights", str(folders / "net.pt"), "--set", "data.channels=1", "--dry-run"]
    images = ["--source", str(folders / "source"), "--target", str(folders / "target"), "--seed", "3"]
    code, out, err = uda(capsys, monkeypatch, "fit", *words, *images)
    assert (code, err) == (0, "")
    assert "seed = 3 # --seed" in out
    assert "channels = 1 # --set" in out
    assert "batch = 64 # recipe folders" in out
    for checked in ("device and precision: cpu", "source: 96 images", "target: 96 images", "net.pt fits it", "unit works on it"):
        assert checked in out
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.toml").write_text(out)  # what it prints is a recipe
    assert load_recipe(tmp_path / "mine.toml").seed == 3


@pytest.mark.parametrize("model", ["timm:resnet10t", "torchvision:squeezenet1_1"])
def test_a_dry_run_downloads_nothing(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["--recipe", "mnist2usps", "--data-root", str(tmp_path), "--model", model, "--set", "data.channels=3", "--dry-run"]
    code, out, err = uda(capsys, monkeypatch, "fit", *words)
    assert (code, err) == (0, "")
    assert "source: mnist, not here; would be downloaded" in out
    assert f"it starts from the published weights of {model}, which a run downloads unless it has them" in out
    assert not list(tmp_path.iterdir())


def test_a_network_without_published_weights_is_refused_before_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = uda(capsys, monkeypatch, "fit", "--recipe", "synth2digits", "--model", "timm:mixer_s16_224", "--dry-run")
    assert code == 2
    assert err.count("\n") == 1
    assert "--backbone-weights FILE" in err
    assert "--set classifier.pretrained=false" in err


def test_fit_says_what_the_network_starts_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    body = {f"backbone.{name}": value for name, value in SmallResNet().state_dict().items() if not name.startswith("fc")}
    torch.save(body, "body.pt")
    words = ["--model", f"{NETS}:SmallResNet", "--backbone-weights", "body.pt", "--method", "shot", "--out", "run"]
    few = ["--set", "training.steps=1", "--set", "classifier.steps=1"]
    said = "it starts from 42 tensors of body.pt, which has no head; one is made for 10 classes"
    code, out, err = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), *words, *few, "--dry-run")
    assert (code, err) == (0, "")
    assert said in out
    code, out, err = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), *words, *few)
    assert (code, err) == (0, "")
    assert said in out


def test_a_fit_ends_with_what_to_do_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    few = ["--set", "training.steps=1", "--set", "classifier.steps=1", "-o", str(tmp_path / "run")]
    _, out, _ = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), *few)
    run = tmp_path / "run"
    assert out.splitlines()[-1] == f"look at {run / 'report.html'}; then use it: uda predict {run} IMAGES"


def test_a_fit_without_target_labels_ends_with_how_to_see_how_good_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    images, run = tmp_path / "target.npz", tmp_path / "run"
    np.savez(images, images=np.random.default_rng(0).integers(0, 256, (24, 16, 16), dtype=np.uint8))
    few = ["--set", "training.steps=1", "--set", "classifier.steps=1", "--target", str(images), "-o", str(run)]
    _, out, _ = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), *few)
    seen = f"look at {run / 'report.html'}, and at every image to see how good it is (uda check {run})"
    assert out.splitlines()[-1] == f"{seen}; then use it: uda predict {run} IMAGES"


def test_seeds_need_no_folder_of_data_where_none_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UDA_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = [word for key in ("training.steps", "classifier.steps") for word in ("--set", f"{key}=1")]
    sizes = ["--set", "data.size=8", "--set", "training.batch=8", "--set", "classifier.batch=8", "--precision", "fp32"]
    words = ["--recipe", "synth2digits", "--method", "mcc", "--seeds", "2", *few, *sizes, "--out", "both"]
    code, _, err = uda(capsys, monkeypatch, "fit", *words)
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "both").glob("seed-*/result.json"))) == 2


def test_fit_prints_the_run_and_one_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    code, out, err = uda(
        capsys, monkeypatch, "fit", "--recipe", str(tiny), "--out", str(tmp_path / "run"), "--seed", "4", "--precision", "fp32"
    )
    assert (code, err) == (0, "")
    for part in (
        "seed 4",
        "cpu, fp32",
        "without labels",
        "source_only",
        "last",
        "selected",
        "oracle",
        "class consistency",
        "load_digits",
    ):
        assert part in out
    assert (tmp_path / "run" / "result.json").exists()


def test_own_images_and_network_from_fit_to_export(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folders: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(folders)
    settings = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    words = ["--model", f"{NETS}:SmallResNet", "--weights", "net.pt", "--source", "source", "--target", "target"]
    more = ["--target-test", "test", "--out", str(tmp_path / "run"), "--set", "data.channels=1", "--precision", "fp32"]
    code, out, err = uda(capsys, monkeypatch, "fit", *words, *more, *settings)
    assert (code, err) == (0, "")
    assert "stem up to conv1, head fc" in out
    monkeypatch.chdir(tmp_path)  # a run is found, and finds its images and network, from anywhere
    code, out, _ = uda(capsys, monkeypatch, "predict", "run", str(folders / "target"), "-o", "p.csv")
    assert (code, "96 images classified" in out) == (0, True)
    code, out, _ = uda(capsys, monkeypatch, "evaluate", "run", "--data", str(folders / "test"), "-o", "e.json", "--which", "last")
    assert code == 0
    assert (
        json.loads(Path("e.json").read_text())["accuracy"] == json.loads(Path("run/result.json").read_text())["accuracy"]["last"]
    )
    code, out, _ = uda(capsys, monkeypatch, "export", "run", "--format", "torch")
    assert (code, "checked on 64 target images" in out) == (0, True)


def test_check_asks_on_a_page_goes_on_and_judges(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_run: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(own_run.path, tmp_path / "run")
    start = 0

    def person(server: AnswerServer) -> None:
        """Agrees with ten predictions, then closes the terminal; the second time, with all that are left."""
        nonlocal start
        for row in range(start, 10 if start == 0 else 20):
            server.answer(row, server.drawn.predicted[row])
        start += 10
        if start == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(AnswerServer, "serve", person)
    monkeypatch.delenv("DISPLAY", raising=False)
    code, out, _ = uda(capsys, monkeypatch, "check", str(run), "--labels", "20")
    assert (code, "http://127.0.0.1:" in out, "10 of 20 are answered" in out) == (130, True, True)
    assert "by 10 labels" in out
    assert "this keeps these figures" in out
    assert not (run / "check.json").exists()
    code, out, err = uda(capsys, monkeypatch, "check", str(run), "--labels", "20")
    assert (code, err) == (0, "")
    kept = json.loads((run / "check.json").read_text())
    assert (kept["labels"], kept["accuracy"]["adapted"], kept["interval"]["adapted"][1]) == (20, 1, 1)
    assert "1.000" in out
    assert "estimate without labels" in out


def test_a_check_that_is_stopped_before_five_answers_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_run: Run, tmp_path: Path
) -> None:
    def person(server: AnswerServer) -> None:
        server.answer(0, server.drawn.predicted[0])
        raise KeyboardInterrupt

    run = shutil.copytree(own_run.path, tmp_path / "run")
    monkeypatch.setattr(AnswerServer, "serve", person)
    monkeypatch.delenv("DISPLAY", raising=False)
    code, out, _ = uda(capsys, monkeypatch, "check", str(run))
    assert (code, "too few answers: 1, and an interval takes 5" in out) == (130, True)


def test_a_check_of_fewer_labels_takes_all_that_were_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_run: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(own_run.path, tmp_path / "run")
    many = draw(own_run, 50, 0)
    write_table(many, dict(zip(many.names, many.predicted, strict=True)), run / "check.csv")
    kept = (run / "check.csv").read_bytes()
    monkeypatch.setattr(AnswerServer, "serve", lambda _: None)
    monkeypatch.delenv("DISPLAY", raising=False)
    code, out, err = uda(capsys, monkeypatch, "check", str(run), "--labels", "30")
    assert (code, err, "by 50 labels" in out) == (0, "", True)
    assert (run / "check.csv").read_bytes() == kept


def test_answers_that_do_not_count_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_run: Run, tmp_path: Path
) -> None:
    run, drawn = shutil.copytree(own_run.path, tmp_path / "run"), draw(own_run, 20, 0)
    answers = dict(zip(drawn.names, drawn.predicted, strict=True))
    answers.pop(drawn.names[10])
    write_table(drawn, answers, tmp_path / "t.csv")
    code, out, _ = uda(capsys, monkeypatch, "check", str(run), "--labels", "20", "--answers", str(tmp_path / "t.csv"))
    assert (code, f"fill in image 11, {drawn.names[10]}" in " ".join(out.split())) == (0, True)


@pytest.mark.skipif(sys.platform == "win32", reason="has another shell")
def test_a_closed_output_is_no_error() -> None:
    assert subprocess.run(f"{sys.executable} -m uda recipes >&-", shell=True, cwd=CHECKOUT).returncode == 0


def test_two_checks_of_a_run_do_not_replace_each_others_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_run: Run, tmp_path: Path
) -> None:
    run = shutil.copytree(own_run.path, tmp_path / "run")
    with Run(run).locked():
        code, _, err = uda(capsys, monkeypatch, "check", str(run))
    assert (code, "another process writes to" in err) == (2, True)


def test_check_by_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_run: Run, tmp_path: Path
) -> None:
    run, table = shutil.copytree(own_run.path, tmp_path / "run"), tmp_path / "t.csv"
    code, out, _ = uda(capsys, monkeypatch, "check", str(run), "--csv", str(table), "--labels", "20", "--seed", "3")
    assert (code, f"--answers {table}" in out) == (0, True)
    code, _, err = uda(capsys, monkeypatch, "check", str(run), "--answers", str(table), "--labels", "20", "--seed", "3")
    assert (code, "too few answers: 0" in err) == (2, True)
    table.write_text("".join(line + ("0" if n else "") + "\n" for n, line in enumerate(table.read_text().splitlines())))
    code, *_ = uda(capsys, monkeypatch, "check", str(run), "--answers", str(table), "--labels", "20", "--seed", "3")
    assert (code, json.loads((run / "check.json").read_text())["labels"]) == (0, 20)
    assert not (run / "check.csv").exists(), "what a page was told stays as it is"


def test_inspect_writes_a_page_and_gives_advice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folders: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = uda(capsys, monkeypatch, "inspect", "--source", str(folders / "source"), "--target", str(folders / "target"))
    assert (code, err) == (0, "")
    assert "uda check RUN" in out
    assert "target: 96 images" in out
    assert Path("inspect.html").stat().st_size > 10_000


def test_methods_are_listed_with_their_papers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = uda(capsys, monkeypatch, "methods")
    parts = {part.split()[0]: " ".join(part.split()) for part in re.split(r"\n(?=\S)", out)}
    assert set(METHODS) <= set(parts)
    assert parts["shot"].endswith("ICML 2020. Reads no source images.")
    assert parts["target_only"].endswith("Reads target labels in place of source images.")
    assert "NIPS 2017" in parts["unit"]
    assert parts["unit"].endswith("Makes images.")
    assert "Makes images" not in parts["dann"]


def test_data_sets_are_listed_all_or_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, out, _ = uda(capsys, monkeypatch, "data", "--data-root", str(tmp_path))
    assert {"mnist", "usps", "svhn", "digits"} <= {line.split()[0] for line in out.splitlines() if line[0] != " "}
    _, out, _ = uda(capsys, monkeypatch, "data", "usps", "--data-root", str(tmp_path))
    assert {line.split()[0] for line in out.splitlines()[1:] if line[0] != " "} == {"usps"}
    assert "not here" in out
    _, out, _ = uda(capsys, monkeypatch, "data", "visda-2017", "--data-root", str(tmp_path))
    assert "VisDA-2017 (Peng et al. 2017)" in out
    code, _, err = uda(capsys, monkeypatch, "data", "uspss")
    assert (code, "did you mean 'usps'" in err) == (2, True)


def test_another_method_brings_its_own_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    few = ["--set", "training.steps=2", "--set", "training.batch=8", "--set", "training.target_batch=8"]
    out = str(tmp_path / "run")
    code, *_ = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), "--method", "dann", "--out", out, *few)
    assert code == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["method"], result["steps"], "translation" in result) == ("dann", 2, False)


def test_several_seeds_are_run_compared_and_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--set", "training.steps=2", "--set", "classifier.steps=2", "--method", "dann", "--set", "training.batch=8"]
    code, out, _ = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), "--seeds", "2", "--seed", "3", "--out", "both", *few)
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "both").glob("seed-*")) == ["seed-3", "seed-4"]
    assert (tmp_path / "both" / "report.html").exists()
    code, out, _ = uda(capsys, monkeypatch, "compare", "both", "both/seed-4", "-o", "page.html")
    assert (code, "seed-4" in out, (tmp_path / "page.html").exists()) == (0, True, True)
    (tmp_path / "both" / "report.html").unlink()
    for folder in ("both", "both/seed-3"):
        code, out, _ = uda(capsys, monkeypatch, "report", folder)
        assert (code, out.strip()) == (0, f"{folder}/report.html")
        assert (tmp_path / folder / "report.html").exists()


def test_without_out_the_folder_is_named_after_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), "--set", "training.steps=1", "--set", "classifier.steps=1")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("tiny-unit-0-")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "--recipe", "svhn2minst"], "did you mean 'svhn2mnist'"),
        (["fit"], "--recipe NAME or --resume RUN"),
        (["fit", "--recipe", "{tiny}", "--set", "method.feature_nrom=l2"], "did you mean 'method.feature_norm'"),
        (["fit", "--recipe", "{tiny}", "--set", "nonsense"], "KEY=VALUE"),
        (["fit", "--recipe", "{tiny}", "--dry-run", "--weights", "nowhere.pt"], "no weights at"),
        (["fit", "--recipe", "{tiny}", "--dry-run", "--device", "tpu"], "not available here"),
        (["fit", "--recipe", "folders", "--dry-run", "--source", "{tmp}/nothing", "--target", "mnist"], "no images at"),
        (["fit", "--resume", "{tmp}", "--dry-run"], "leave out all other settings"),
        (["fit", "--recipe", "{tiny}", "--set", "method.name=unti"], "did you mean 'unit'"),
        (["fit", "--recipe", "{tiny}", "--method", "shto"], "did you mean 'shot'"),
        (["fit", "--recipe", "{tiny}", "--method", "mine.py:Mine"], "no file"),
        (["fit", "--recipe", "{tiny}", "--set", "selection.score=entrpy"], "score"),
        (["fit", "--recipe", "{tiny}", "--set", "classifier.backbone=stridde"], "did you mean 'strided'"),
        (["fit", "--recipe", "{tiny}", "--set", "classifier.backbone=resnet18"], "did you mean 'timm:resnet18'"),
        (["fit", "--recipe", "{tiny}", "--method", "SHOT"], "did you mean 'shot'"),
        (["fit", "--recipe", "mine.tml"], "a file that ends in .toml"),
        (["fit", "--recipe", "{tiny}", "--set", "data.size=5"], "need at least 8"),
        (["fit", "--recipe", "{tiny}", "--device", "tpu"], "not available here"),
        (["fit", "--recipe", "{tiny}", "--precision", "fp8"], "precision"),
        (["fit", "--recipe", "{tiny}", "--data-root", "/nowhere/at/all"], "not a folder"),
        (["fit", "--recipe", "{tiny}", "--out", "/proc/nothing/here"], "give another --out"),
        (["fit", "--resume", "{tmp}"], "not a run folder"),
        (["fit", "--resume", "{tmp}", "--seed", "3"], "leave out all other settings"),
        (["fit", "--source", "{tmp}/nothing", "--target", "mnist"], "no images at"),
        (["fit", "--source", "synth", "--target", "photos/scans"], "neither a folder here nor"),
        (["fit", "--source", "synth", "--target", "pacs/photo"], "PACS (Li et al., ICCV 2017) is to be had at https://"),
        (["fit", "--recipe", "folders", "--source", "mnist"], "give --target DIR"),
        (["fit", "--recipe", "{tiny}", "--model", "nets.py:Net"], "no file"),
        (["fit", "--recipe", "{tiny}", "--weights", "nowhere.pt"], "no weights at"),
        (["predict", "{tmp}", "{tmp}"], "not a run folder"),
        (["evaluate", "{tmp}", "--data", "mnist"], "not a run folder"),
        (["export", "{tmp}"], "not a run folder"),
        (["report", "{tmp}"], "not a run folder"),
        (["translate", "{tmp}", "{tmp}"], "not a run folder"),
        (["fit", "--recipe", "translate"], "give --source DIR --target DIR"),
        (["compare", "{tmp}", "{tmp}"], "not a run folder"),
        (["fit", "--recipe", "{tiny}", "--seeds", "0"], "give the number of seeds"),
        (["fit", "--recipe", "{tiny}", "--seeds", "2", "--out", "/proc/nothing/here"], "give another --out"),
        (["recipes", "show", "mnist2ups"], "did you mean 'mnist2usps'"),
        (["data", "--data-root", "/nowhere/at/all"], "not a folder"),
        (["check", "{tmp}"], "not a run folder"),
        (["check", "{tmp}", "--csv", "a.csv", "--answers", "a.csv"], "give one of them"),
        (["inspect", "--source", "{tmp}/nothing", "--target", "mnist"], "no images at"),
        (["inspect", "--source", "synth", "--target", "mnits"], "did you mean 'mnist'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [word.format(tiny=tiny, tmp=tmp_path) for word in words]
    code, _, err = uda(capsys, monkeypatch, *filled)
    assert code == 2
    assert err.count("\n") == 1
    assert said in err
    assert "Traceback" not in err


@contextlib.contextmanager
def signalled_in_adaptation(number: int, metrics: Path) -> Iterator[None]:
    """Sends this process a signal once a run has logged a step of adaptation, as a user does who presses Ctrl-C."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(0.02):
            if metrics.exists() and "adaptation" in metrics.read_text():
                os.kill(os.getpid(), number)
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_says_how_to_go_on_and_does(
    number: int, expected: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    tiny.write_text(tiny.read_text().replace("size = 16", "size = 8").replace("steps = 8", "steps = 100000"))
    words = ["--recipe", str(tiny), "--out", str(tmp_path / "run"), "--device", "cpu", "--precision", "fp32"]
    with signalled_in_adaptation(number, tmp_path / "run" / "metrics.jsonl"):
        code, out, _ = uda(capsys, monkeypatch, "fit", *words)
    assert code == expected
    assert f"uda fit --resume {tmp_path / 'run'}" in out
    assert (tmp_path / "run" / "checkpoint.pt").exists()


SMALL = {
    "adabn": ["--model", f"{NETS}:SmallResNet"],  # it wants batch norm
    "unit": ["--set", "method.width=8", "--set", "method.code_dim=16"],
    "unit_translation": ["--set", "method.width=4", "--set", "method.blocks=1", "--set", "method.discriminator_depth=2"],
    "drit": ["--set", "method.width=8"],
    "cogan": ["--set", "method.width=4"],
    "latent_mapping": ["--set", "method.width=4", "--set", "method.hidden=16"],
    "mic": ["--set", "augment.target.mask=0.5"],
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_through_fit_resume_predict_and_report(
    method: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, folders: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--method", method, "--out", "run", "--device", "cpu", "--precision", "fp32", *SMALL.get(method, [])]
    code, out, err = uda(capsys, monkeypatch, "fit", "--recipe", str(tiny), *words)
    assert (code, err) == (0, "")
    use = "translate" if method == "unit_translation" else "predict"
    assert f"uda {use} run IMAGES" in out, "it says what to do next"
    first = json.loads(Path("run/result.json").read_text())

    # As a kill between the last step and the result leaves it.
    Path("run/result.json").unlink()
    code, _, err = uda(capsys, monkeypatch, "fit", "--resume", "run")
    assert (code, err) == (0, "")
    assert json.loads(Path("run/result.json").read_text()) | {"seconds": None} == first | {"seconds": None}

    code, out, err = uda(capsys, monkeypatch, use, "run", str(folders / "target"), "-o", "out")
    assert (code, "96 images" in out) == (0, True), out + err
    Path("run/report.html").unlink()
    code, out, _ = uda(capsys, monkeypatch, "report", "run")
    assert code == 0
    assert Path("run/report.html").stat().st_size > 10_000


def test_an_error_of_ours_is_one_line_and_a_file_with_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(presets, "names", None)  # calling it is a mistake of ours
    code, _, err = uda(capsys, monkeypatch, "recipes", "show", "x")
    (kept,) = tmp_path.iterdir()
    assert (code, err.count("\n")) == (1, 1)
    assert f"TypeError: 'NoneType' object is not callable); its traceback is in {kept} (--debug shows it)" in err
    assert "presets.py" in kept.read_text()
    _, _, err = uda(capsys, monkeypatch, "recipes", "show", "x", "--debug")
    assert "Traceback" in err


@pytest.mark.parametrize(("stop", "expected"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_stop_outside_of_training_is_one_line(
    stop: type[BaseException], expected: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(name: str) -> None:
        raise stop

    monkeypatch.setattr(presets, "find", stopped)
    assert uda(capsys, monkeypatch, "recipes", "show", "x") == (expected, "", "uda: stopped\n")


def test_a_folder_that_is_gone_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = uda(capsys, monkeypatch, "predict", "run", "images")
    assert (code, err) == (2, "uda: the folder that this command runs in is gone; go to another one\n")
