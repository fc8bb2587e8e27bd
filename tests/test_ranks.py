"""One run in several processes: the same weights as in one, and an end in one line where a process dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conftest import domain, write_folder
from tests.two_processes import TRAINED, evaluated, free_port, start, weights_after
from uda import UserError, ranks
from uda.cli import main
from uda.collectives import average, gather

STEPS = 2  # the second one is taken with what the first has left in optimisers and averages


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    """What two processes have come to, by what they did."""
    out, port = tmp_path_factory.mktemp("two") / "found.pt", free_port()
    running = [start(rank, port, "-m", "tests.two_processes", str(out), str(STEPS), "double") for rank in range(2)]
    assert [process.wait(300) for process in running] == [0, 0]
    found: dict[str, dict[str, Tensor]] = torch.load(out, weights_only=True)
    return found


@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_come_to_the_weights_of_one(name: str, of_two: dict[str, dict[str, Tensor]]) -> None:
    for key, value in weights_after(name, STEPS, double=True).items():
        torch.testing.assert_close(of_two[name][key], value, atol=1e-8, rtol=0, msg=lambda text, key=key: f"{key}: {text}")


def test_images_that_are_shared_out_are_read_as_by_one_process(of_two: dict[str, dict[str, Tensor]]) -> None:
    logits, labels = evaluated(7)
    torch.testing.assert_close(of_two["evaluated"]["logits"], logits)
    assert torch.equal(of_two["evaluated"]["labels"], labels)


def test_a_gradient_that_one_process_lacks_counts_as_nothing(of_two: dict[str, dict[str, Tensor]]) -> None:
    assert float(of_two["missing"]["gradient"]) == 1.5


def test_a_batch_is_put_together_as_it_was_taken_apart(of_two: dict[str, dict[str, Tensor]]) -> None:
    assert of_two["gathered"]["rows"].tolist() == [0, 1, 2, 3, 4, 5]


def test_gradients_that_pass_a_gathered_batch_are_of_the_sum_of_all_losses(of_two: dict[str, dict[str, Tensor]]) -> None:
    # d (6 w)^2 / dw = 72 in each of two processes; the first has 0 and 2 of the six.
    assert float(of_two["gathered"]["gradient"]) == 2 * 2 * 6 * 2


def test_the_first_process_decides(of_two: dict[str, dict[str, Tensor]]) -> None:
    assert int(of_two["agreed"]["rank"]) == 7


def test_what_one_process_says_all_hear(of_two: dict[str, dict[str, Tensor]]) -> None:
    assert bool(of_two["anywhere"]["second"])


def test_the_first_process_is_handed_what_the_others_hold(of_two: dict[str, dict[str, Tensor]]) -> None:
    assert of_two["of_others"]["ranks"].tolist() == [1]


def test_a_single_process_gathers_nothing() -> None:
    part = torch.arange(3.0)
    average([part])
    assert gather(part) is part
    assert part.tolist() == [0, 1, 2]


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="64, which 3 processes cannot share evenly; set it to 63"):
        ranks.share(64, "training.batch")


def test_torchrun_is_for_fit_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for words in (["predict", "run", "images"], ["fit", "--recipe", "synth2digits", "--dry-run"]):
        monkeypatch.setattr(sys, "argv", ["uda", *words])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert "give this command without torchrun" in capsys.readouterr().err


def test_a_rank_that_is_no_number_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "abc")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["uda", "fit", "--recipe", "synth2digits"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


def test_processes_that_do_not_meet_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "MEETING", 1.0)
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the 2 processes of this run did not meet at 127"):
        ranks.join()


def words_of_a_fit(folder: Path, settings: dict[str, Any]) -> list[str]:
    """The command line of a run on drawn digits in folders, which are written."""
    for name, number in (("source", 0), ("target", 1)):
        write_folder(domain(name, 60, number), folder / name, name == "source")
    words = ["-m", "uda", "fit", "--source", str(folder / "source"), "--target", str(folder / "target")]
    words += ["--out", str(folder / "run"), "--precision", "fp32"]
    return words + [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes of all runs here keep things, each in a folder of its own."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> tuple[Path, list[str]]:
    """A run of two processes, with evaluations on the way, which the first makes alone: its folder, and what each said."""
    folder, port = tmp_path_factory.mktemp("finished"), free_port()
    words = words_of_a_fit(folder, FEW | {"training.steps": 4, "training.evaluate_every": 2})
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = [start(rank, port, *words, caches=caches, **told) for rank in range(2)]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return folder, said


def test_a_run_of_two_processes_comes_to_its_result_and_says_so_once(finished: tuple[Path, list[str]]) -> None:
    folder, said = finished
    assert sum(text.count("everything is in") for text in said) == 1
    result = json.loads((folder / "run" / "result.json").read_text())
    assert 0 < result["estimated"]["accuracy"] < 1
    assert len([line for line in (folder / "run" / "metrics.jsonl").read_text().splitlines() if '"scores"' in line]) == 2


def test_processes_of_other_settings_end_in_one_line(tmp_path: Path) -> None:
    port, words = free_port(), words_of_a_fit(tmp_path, FEW)
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [start(rank, port, *words, "--seed", str(rank), **told) for rank in range(2)]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [2, 2], said
    (line,) = "".join(said).splitlines()
    assert "do not have the same settings and images" in line
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, caches: Path, finished: tuple[Path, list[str]]
) -> tuple[Path, int, list[str]]:
    """A run of two processes, the second of which was killed in mid-training: its folder, the first's exit code and lines."""
    folder = tmp_path_factory.mktemp("killed")
    words = words_of_a_fit(folder, FEW)
    port = free_port()
    one, two = (start(rank, port, *words, caches=caches, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for rank in range(2))
    metrics, began = folder / "run" / "metrics.jsonl", time.monotonic()
    while (
        not (metrics.exists() and "adaptation" in metrics.read_text()) and time.monotonic() - began < 200 and one.poll() is None
    ):
        time.sleep(0.05)
    two.send_signal(signal.SIGKILL)
    said = one.communicate(timeout=120)[1]
    two.communicate()
    return folder / "run", one.returncode, said.splitlines()


FEW = {
    "method.name": "im", "classifier.steps": 2, "classifier.batch": 8, "training.batch": 8, "training.target_batch": 8,
    "training.steps": 4000, "training.log_every": 1, "training.evaluate_every": 4000,
}  # fmt: skip


def test_a_killed_process_ends_the_others_in_one_line(killed: tuple[Path, int, list[str]]) -> None:
    path, code, lines = killed
    assert code == 1
    assert [line for line in lines if line.startswith("uda:")] == [
        f"uda: the run has ended early: one of its 2 processes has died, or all were stopped; go on with: uda fit --resume {path}"
    ]


def test_a_source_classifier_that_the_first_process_has_kept_is_all_processes(killed: tuple[Path, int, list[str]]) -> None:
    """Whose caches it is not in."""
    assert "source classifier" not in (killed[0] / "metrics.jsonl").read_text()


def test_a_killed_run_says_no_more_than_that(killed: tuple[Path, int, list[str]]) -> None:
    assert not [line for line in killed[2] if line.startswith("Traceback")]
