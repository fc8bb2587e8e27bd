"""The page that asks, as a browser talks to it."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.conftest import CHECKOUT
from uda.inference.answering import AnswerServer, keys_of
from uda.inference.check import NONE, UNSURE, Drawn, draw, read_table
from uda.runs.run import Run


@pytest.fixture
def drawn(own_run: Run) -> Drawn:
    return draw(own_run, 6, 0)


@pytest.fixture
def server(drawn: Drawn, tmp_path: Path) -> Iterator[AnswerServer]:
    server = AnswerServer(drawn, {}, tmp_path / "check.csv")
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server
    server.done.set()
    thread.join(10)
    assert not thread.is_alive()


def ask(server: AnswerServer, path: str, body: object = None, host: str | None = None) -> tuple[int, bytes]:
    """One request below the address; a POST where there is a body."""
    place = urlsplit(server.address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    content = reply.status, reply.read()
    connection.close()
    return content


def below(server: AnswerServer, path: str) -> str:
    return urlsplit(server.address).path + path


def test_it_listens_to_this_machine_alone(server: AnswerServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_nothing_is_served_without_the_token(server: AnswerServer) -> None:
    for path in ("/", "/image/0", "/" + "x" * len(server.token) + "/", "*"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/answer", {"row": 0, "label": NONE})[0] == 404
    assert server.answers == {}


def test_nothing_is_served_under_another_machines_name(server: AnswerServer) -> None:
    assert ask(server, below(server, ""), host="example.org")[0] == 404


def test_the_page_holds_all_that_it_needs(server: AnswerServer, drawn: Drawn) -> None:
    status, page = ask(server, below(server, ""))
    text = page.decode()
    state = json.loads(text.split('id="state">')[1].split("</script>")[0])
    assert status == 200
    assert state["predicted"] == drawn.predicted
    assert state["answers"] == [""] * 6
    assert state["classes"] == [*drawn.classes, NONE, UNSURE]
    assert "http://" not in text
    assert "https://" not in text


def test_images_come_whole_and_as_png(server: AnswerServer, drawn: Drawn) -> None:
    status, content = ask(server, below(server, "image/2"))
    expected = Image.open(drawn.target.images.path(int(drawn.positions[2]))).convert("RGB")  # type: ignore[union-attr]
    assert status == 200
    assert Image.open(io.BytesIO(content)).tobytes() == expected.tobytes()
    assert ask(server, below(server, "image/6"))[0] == 404
    assert ask(server, below(server, "image/x"))[0] == 404


def test_every_answer_is_kept_at_once_and_can_be_taken_back(server: AnswerServer, drawn: Drawn) -> None:
    assert ask(server, below(server, "answer"), {"row": 0, "label": "3"})[0] == 200
    assert read_table(drawn, server.table) == {drawn.names[0]: "3"}
    assert ask(server, below(server, "answer"), {"row": 1, "label": NONE})[0] == 200
    assert ask(server, below(server, "answer"), {"row": 0, "label": ""})[0] == 200
    assert read_table(drawn, server.table) == {drawn.names[1]: NONE}


@pytest.mark.parametrize("asked", [{"row": 6, "label": "3"}, {"row": 0, "label": "x"}, {"row": "0", "label": "3"}, [], "x", None])
def test_what_is_no_answer_is_not_kept(asked: object, server: AnswerServer) -> None:
    assert ask(server, below(server, "answer"), asked)[0] == 404
    assert not server.table.exists()


def test_it_goes_on_where_it_was(server: AnswerServer, drawn: Drawn, tmp_path: Path) -> None:
    ask(server, below(server, "answer"), {"row": 0, "label": "3"})
    again = AnswerServer(drawn, read_table(drawn, server.table), server.table)
    assert '"answers": ["3", "", "", "", "", ""]' in again.page()
    again.server_close()


def test_class_names_are_text_and_no_markup(drawn: Drawn, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    server = AnswerServer(replace(drawn, classes=(evil, *drawn.classes[1:])), {}, tmp_path / "check.csv")
    assert evil not in server.page()
    assert "<script>alert" not in server.page()
    server.server_close()


def test_done_ends_it(drawn: Drawn, tmp_path: Path) -> None:
    server = AnswerServer(drawn, {}, tmp_path / "check.csv")
    thread = threading.Thread(target=server.serve)
    thread.start()
    assert ask(server, below(server, "done"), {})[0] == 200
    thread.join(10)
    assert not thread.is_alive()


def test_keys() -> None:
    assert keys_of(tuple("0123456789")) == list("0123456789")
    assert keys_of(("bike", "mug")) == ["1", "2"]
    assert len(set(keys_of(tuple(map(str, range(31)))))) == 31
    assert keys_of(tuple(map(str, range(65)))) == [""] * 65


def browse(server: AnswerServer, size: tuple[int, int], keys: list[str]) -> list[dict[str, Any]]:
    """What a real browser shows at first, and after each key; `size` in pixels."""
    pytest.importorskip("PyQt6.QtWebEngineWidgets", reason="PyQt6-WebEngine is not installed", exc_type=ImportError)
    script = CHECKOUT / "tests" / "inference" / "browser.py"
    words = [sys.executable, str(script), server.address, *map(str, size), *keys]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize("size", [(390, 844), (1280, 800)], ids=["phone", "desktop"])
def test_a_browser_answers_by_keyboard_alone_and_all_fits_the_screen(
    size: tuple[int, int], server: AnswerServer, drawn: Drawn
) -> None:
    seen = browse(server, size, ["Enter", "3", "-", "Backspace", "5", "Enter", "Enter", "Enter", "Enter"])
    assert [shown["count"] for shown in seen] == [f"{n} of 6" for n in (0, 1, 2, 3, 2, 3, 4, 5, 6, 6)]
    assert all(shown["picture"] and shown["reachable"] for shown in seen if shown["asking"])
    assert all(shown["width"] == size[0] and shown["overflow"] <= 0 and not shown["lost"] for shown in seen)
    predicted = drawn.predicted
    assert list(read_table(drawn, server.table).values()) == [predicted[0], "3", "5", *predicted[3:]]
    assert not seen[-1]["asking"]
    assert server.done.wait(5)


def test_an_image_that_cannot_be_told_has_a_key(server: AnswerServer, drawn: Drawn) -> None:
    browse(server, (1280, 800), ["?"])
    assert read_table(drawn, server.table) == {drawn.names[0]: UNSURE}


def test_it_can_be_finished_once_there_are_enough_answers(server: AnswerServer) -> None:
    keys = ["Enter"] * 5 + ["Tab"] * 14 + ["Enter"]  # from the answer over ten classes, two other answers and Back
    seen = browse(server, (390, 844), keys)
    assert [shown["early"] for shown in seen[:6]] == [""] * 5 + ["Finish with 5"]
    assert (seen[-1]["asking"], seen[-1]["ended"]) == (False, "5 of 6 images have an answer")
    assert server.done.wait(5)


def test_a_page_that_was_closed_half_way_goes_on(server: AnswerServer, drawn: Drawn) -> None:
    assert browse(server, (1280, 800), ["Enter", "3"])[-1]["count"] == "2 of 6"
    assert browse(server, (1280, 800), [])[0]["count"] == "2 of 6"


def test_the_page_says_where_an_answer_is_lost(server: AnswerServer) -> None:
    server.answer = refuse  # type: ignore[method-assign]
    after = browse(server, (1280, 800), ["Enter"])[-1]
    assert (after["lost"], after["count"]) == (True, "0 of 6")


def refuse(row: int, label: str) -> None:
    raise OSError("no space left on the disk")


def test_an_answer_that_could_not_be_written_is_not_counted(
    server: AnswerServer, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uda.inference.answering.write_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.answer(0, "3")
    assert server.answers == {}
