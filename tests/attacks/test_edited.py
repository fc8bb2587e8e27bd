"""Run folders that somebody has edited, cut or mixed up: each look at one works, or ends in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import uda
from tests.conftest import StopAfter
from uda import UserError
from uda.report.compare import compare, open_group
from uda.report.page import material_of, write_report
from uda.report.tables import comparison_table, result_table
from uda.runs.run import Run
from uda.training.fit import fit, resume
from uda.training.loop import Interrupted
from uda.training.seeds import fit_seeds, resume_seeds

WHERE = {"device": "cpu", "precision": "fp32"}
FEW = {"method.name": "dann", "classifier.steps": 2, "training.steps": 3, "training.batch": 8}
VALUES = [None, 7, "x", [["x"]], {"x": "y"}]


def look(path: Path) -> None:
    """Every kind of look at a finished run."""
    run = Run(path, **WHERE)
    result_table(run.result)
    write_report(material_of(run), path.with_suffix(".html"))
    comparison_table(compare([open_group(path)]))
    for which in ("last", "selected", "source"):
        run.load_classifier(which)
    run.sample()
    resume(path)


def changed(file: Path, others: list[Path]) -> Iterator[tuple[str, bytes | None]]:
    """Ways in which a file is another, with what it then holds; None: it is gone."""
    content = file.read_bytes()
    yield from {"gone": None, "empty": b"", "half": content[: len(content) // 2], "not text": b"\xff\xfe\x00" * 9}.items()
    yield from ((f"as {other.name}", other.read_bytes()) for other in others if other.suffix == file.suffix and other != file)
    if file.suffix == ".json":
        known = json.loads(content)
        for key in known:
            yield f"without {key}", json.dumps({name: value for name, value in known.items() if name != key}).encode()
            yield from ((f"{key} = {value}", json.dumps(known | {key: value}).encode()) for value in VALUES)
            if isinstance(known[key], dict):
                for inner in known[key]:
                    less = {name: value for name, value in known[key].items() if name != inner}
                    yield f"{key} without {inner}", json.dumps(known | {key: less}).encode()


def refused(do: Callable[[], Any]) -> str | None:
    """What is wrong with how something ends; None where it works or is refused in one line."""
    try:
        do()
    except UserError as error:
        return "many lines" if "\n" in str(error) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def wrong(folder: Path, do: Callable[[], Any], names: tuple[str, ...] = ()) -> dict[str, str]:
    """All changes of files of a folder that end badly. The folder is put back."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    found = {}
    for file in files:
        content = file.read_bytes()
        for way, new in changed(file, files) if not names or file.name in names else ():
            file.unlink() if new is None else file.write_bytes(new)
            if (said := refused(do)) is not None:
                found[f"{file.relative_to(folder)} {way}"] = said
            file.write_bytes(content)
    return found


def test_a_changed_finished_run_ends_in_one_line(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tiny, out=tmp_path / "run", overrides=FEW, report=False, **WHERE)
    monkeypatch.setattr("uda.report.compare.DRAWS", 5)
    assert wrong(tmp_path / "run", lambda: look(tmp_path / "run")) == {}


def test_a_changed_stopped_run_ends_in_one_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(tiny, out=tmp_path / "run", overrides=FEW, observers=[StopAfter(3)], **WHERE)
    kept, run = shutil.copytree(tmp_path / "run", tmp_path / "kept"), tmp_path / "run"

    def go_on() -> None:
        try:
            resume(run, report=False, observers=[StopAfter(1)])
        except Interrupted:
            shutil.copytree(kept, run, dirs_exist_ok=True)

    names = ("recipe.toml", "environment.json", "checkpoint.pt", "source.safetensors", "metrics.jsonl")
    assert wrong(run, go_on, names) == {}


def test_a_changed_folder_of_seeds_ends_in_one_line(tiny: Path, tmp_path: Path) -> None:
    group = fit_seeds(tiny, 1, out=tmp_path / "run", overrides=FEW, **WHERE)

    def look_at_seeds() -> None:
        compare([open_group(group.path)])
        resume_seeds(group.path)

    (group.path / "seed-notes").mkdir()
    assert wrong(group.path, look_at_seeds, ("seeds.json",)) == {}
    assert uda.load(group.path / "seed-0").result == group.runs[0].result
