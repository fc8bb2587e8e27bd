import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.color import ColorSystem
from rich.console import Console
from rich.table import Table

from uda import console as display
from uda.console import Display, duration, next_steps
from uda.report.tables import result_table
from uda.text import printable


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (11_400, "3 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def watched(terminal: bool) -> tuple[Display, io.StringIO]:
    out = io.StringIO()
    return Display(console=Console(file=out, force_terminal=terminal, width=150, soft_wrap=True)), out


def test_without_a_terminal_progress_is_plain_lines_with_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PLAIN_EVERY", 0.0)
    shown, out = watched(terminal=False)
    with shown.stage("adaptation", 0, 4) as stage:
        stage.estimate(75)
        stage.update(2, "class 0.5")
        stage.update(3)
        stage.update(4, "class 0.4")
    lines = out.getvalue().splitlines()
    assert lines[0] == "  adaptation: 4 steps, about 1 min 15 s"
    assert lines[1].startswith("  adaptation 2/4  class 0.5")
    assert lines[1].endswith("left")
    assert lines[2] == "  adaptation 4/4  class 0.4"
    assert "\x1b" not in out.getvalue()


def test_plain_lines_are_rare() -> None:
    shown, out = watched(terminal=False)
    with shown.stage("adaptation", 0, 1000) as stage:
        for step in range(1, 1001):
            stage.update(step, "class 0.5")
    assert len(out.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_live_bar() -> None:
    shown, out = watched(terminal=True)
    with shown.stage("adaptation", 0, 4) as stage:
        stage.update(4, "class 0.4")
    assert "\x1b" in out.getvalue()
    assert "4/4" in out.getvalue()


def test_a_quiet_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Display(quiet=True)
    shown.say("something")
    with shown.stage("adaptation", 0, 1) as stage:
        stage.update(1, "class 0.4")
    assert capsys.readouterr().out == ""


def test_brackets_in_a_note_are_shown_as_they_are() -> None:
    shown, out = watched(terminal=False)
    shown.say("a note [bold] of a user's file")
    assert "[bold]" in out.getvalue()


HOSTILE = "a\x1b[2Jb\u202ec\udcff"


def escapes(terminal: bool, text: str) -> set[str]:
    """What a console is told that is no text, where text that others wrote is said, in a table, as its title and in a bar."""
    out = io.StringIO()
    console = display.new_console()
    console.file, console._force_terminal, console._color_system = out, terminal, None
    shown, table = Display(console=console), Table("head", title=text, caption=text)
    table.add_row(text)
    shown.say(text)
    shown.show(table)
    with shown.stage(text, 0, 1) as stage:
        stage.update(1, text)
    return set(re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|[^\n -~]", out.getvalue()))


@pytest.mark.parametrize("terminal", [False, True])
def test_text_that_others_wrote_moves_no_cursor(terminal: bool) -> None:
    """A terminal is told what it is told for harmless text of the same length, and nothing else."""
    assert escapes(terminal, HOSTILE) == escapes(terminal, "a" * len(printable(HOSTILE)))


def test_lines_of_ours_stay_lines_and_colours_colours() -> None:
    out = io.StringIO()
    console = display.new_console()
    console.file, console._force_terminal = out, True
    console._color_system = ColorSystem.STANDARD
    console.print("one\ntwo", style="red")
    assert out.getvalue().splitlines() == ["\x1b[31mone\x1b[0m", "\x1b[31mtwo\x1b[0m"]


def test_the_table_shows_the_notes_of_the_data_and_what_each_figure_is() -> None:
    data = {"name": "x", "note": "SVHN-10k, not SVHN", "train": 7501, "test": 2499}
    estimated = {"accuracy": 0.96, "interval": [0.95, 0.97], "by": "mean_confidence"}
    accuracy = {"source": 0.9, "source_only": 0.75, "last": 0.98, "selected": 0.97, "oracle": 0.99}
    result = {"recipe": "svhn2mnist", "method": "unit", "seed": 0, "source": data, "target": data, "accuracy": accuracy}
    result["estimated"] = estimated
    shown, out = watched(terminal=False)
    translation = {"class_consistency": 0.8123, "judge_accuracy": 0.985, "feature_distance": 12.34, "untranslated_distance": 56.7}
    shown.show(result_table(result | {"translation": translation}))
    text = out.getvalue()
    for part in (
        "SVHN-10k, not SVHN",
        "2,499 test images",
        "0.9800",
        "before adaptation",
        "only to compare",
        "0.8123",
        "0.985",
        "12.3",
        "56.7",
    ):
        assert part in text


def test_the_table_shows_what_the_source_classifier_says_of_translations_both_ways() -> None:
    data = {"name": "x", "note": "drawn", "train": 10, "test": 10}
    translation: dict[str, Any] = {
        "class_consistency": 0.61,
        "untranslated_consistency": 0.72,
        "feature_distance": 1.0,
        "untranslated_distance": 2.0,
    }
    translation["backward"] = {"class_consistency": 0.53, "untranslated_consistency": 0.44}
    translation["reconstruction_error"] = {"source": 0.05, "target": 0.06}
    shown, out = watched(terminal=False)
    shown.show(
        result_table({"recipe": "r", "method": "unit", "seed": 0, "source": data, "target": data, "translation": translation})
    )
    text = out.getvalue()
    for part in ("0.6100", "source images", "(untranslated: 0.7200)", "0.5300", "target images", "(untranslated: 0.4400)"):
        assert part in text
    assert text.count("class consistency") == 2


def test_output_that_nobody_reads_any_more_ends_no_work() -> None:
    """As `uda fit | head` leaves it."""
    code = "from uda.console import Display\nfor n in range(3000): Display().say('x' * 99)\nimport os; os.write(2, b'done')"
    work = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert work.stdout is not None
    assert work.stderr is not None
    work.stdout.readline()
    work.stdout.close()
    assert work.stderr.read() == b"done"
    assert work.wait(60) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="is of Linux")
@pytest.mark.parametrize(("lasting", "code"), [(True, 0), (False, 1)])
def test_output_that_cannot_be_written_ends_no_long_work(lasting: bool, code: int) -> None:
    said = f"from uda.console import Display\nDisplay(lasting={lasting}).say('x')\nimport os; os.write(2, b'done')"
    with open("/dev/full", "w") as full:
        work = subprocess.run([sys.executable, "-c", said], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (work.returncode, work.stderr == b"done") == (code, lasting)


def test_next_comes_what_tells_how_good_a_run_is_and_what_it_is_good_for() -> None:
    run, seen = Path("runs/my run"), f"look at {Path('runs/my run/report.html')}"
    use, check = "then use it: uda predict 'runs/my run' IMAGES", "to see how good it is (uda check 'runs/my run')"
    assert next_steps(run, classifies=True) == f"{seen}; {use}"
    assert next_steps(run, classifies=True, look_at="fifty images") == f"{seen}, and at fifty images {check}; {use}"
    assert next_steps(run, classifies=False) == f"{seen}; then use it: uda translate 'runs/my run' IMAGES"
