"""A page that asks a person what is to be seen on images: served to this machine alone, to whoever has its address.

The address holds a token, which every request must bring. Each answer is on disk before the page goes on, so a page that is
closed half-way goes on where it was.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from uda.data.files import ImageFiles, read
from uda.data.frame import open_image
from uda.errors import UserError
from uda.inference.check import NONE, UNSURE, Answers, Drawn, write_table
from uda.report.grids import picture
from uda.report.page import question_page
from uda.text import printable

SHOWN = 640  # pixels: the longest side of an image on the page
LONGEST = 10_000  # bytes of a request
KEYS = "1234567890abcdefghijklmnopqrstuvwxyz"


def keys_of(classes: tuple[str, ...]) -> list[str]:
    """The key for each class: its name, where all names are one key's; else one after the other; none where these do not last."""
    if all(len(name) == 1 and name in KEYS for name in classes):
        return list(classes)
    return list(KEYS[: len(classes)]) if len(classes) <= len(KEYS) else [""] * len(classes)


class AnswerServer(ThreadingHTTPServer):
    """Serves the page of the drawn images on a free port of the loopback interface.

    Args:
        drawn: the images.
        answers: what is known of them already; grows with every answer.
        table: where the answers are kept.

    Attributes:
        address: what to open.
        done: set once the person wants no more images.
    """

    daemon_threads = True

    def __init__(self, drawn: Drawn, answers: Answers, table: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.drawn, self.answers, self.table = drawn, answers, table
        self.token, self.done, self.lock = secrets.token_urlsafe(16), threading.Event(), threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def answer(self, row: int, label: str) -> None:
        """Keeps one answer; an empty label takes it back."""
        with self.lock:
            name = self.drawn.names[row]
            answers = {other: told for other, told in self.answers.items() if other != name} | ({name: label} if label else {})
            write_table(self.drawn, answers, self.table)
            self.answers.clear()
            self.answers.update(answers)

    def page(self) -> str:
        drawn = self.drawn
        state = {
            "classes": [*drawn.classes, NONE, UNSURE],
            "keys": [*keys_of(drawn.classes), "-", "?"],
            "fewest": drawn.fewest,
            "predicted": drawn.predicted,
            "names": drawn.names,
            "answers": [self.answers.get(name, "") for name in drawn.names],
        }
        return question_page(state)

    def image(self, row: int) -> bytes:
        """One drawn image as PNG: a file in its whole shape, at most `SHOWN` pixels a side; else as the networks see it."""
        images, position = self.drawn.target.images, self.drawn.positions[row : row + 1]
        if isinstance(images, ImageFiles):
            shown = open_image(images.source(int(position)), 3, SHOWN)
            shown.thumbnail((SHOWN, SHOWN))
        else:
            shown = picture(next(read(images, [position]))[0])
        out = io.BytesIO()
        shown.save(out, "PNG")
        return out.getvalue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a browser may leave in the middle of an image, and shows one that cannot be read as broken."""

    def serve(self) -> None:
        """Serves until the person wants no more images."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        try:
            self.done.wait()
        finally:
            self.shutdown()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: AnswerServer

    def do_GET(self) -> None:
        match self._path():
            case [""]:
                self._send(self.server.page().encode(), "text/html; charset=utf-8")
            case ["image", row] if self._drawn(row):
                self._send(self.server.image(int(row)), "image/png")
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        match self._path():
            case ["answer"] if self._is_answer(asked := self._body()):
                try:
                    self.server.answer(asked["row"], asked["label"])
                except UserError as error:
                    self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, printable(str(error)))
                else:
                    self._send(b"{}", "application/json")
            case ["done"]:
                self._send(b"{}", "application/json")
                self.server.done.set()
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def _path(self) -> list[str]:
        """What comes after the token; nothing for whoever does not know it, or comes by another name than this machine's."""
        token, _, rest = self.path.removeprefix("/").partition("/")
        own = self.headers.get("Host") == f"127.0.0.1:{self.server.server_port}"
        return rest.split("/") if own and secrets.compare_digest(token.encode(), self.server.token.encode()) else []

    def _drawn(self, row: str) -> bool:
        return row.isdecimal() and int(row) < len(self.server.drawn.names)

    def _is_answer(self, asked: Any) -> bool:
        known = isinstance(asked, dict) and self._drawn(str(asked.get("row"))) and isinstance(asked["row"], int)
        return known and asked.get("label") in ("", NONE, UNSURE, *self.server.drawn.classes)

    def _body(self) -> Any:
        try:
            return json.loads(self.rfile.read(max(0, min(int(self.headers.get("Content-Length", 0)), LONGEST))))
        except ValueError:
            return None

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
            "Content-Security-Policy": "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
        }  # fmt: skip
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the terminal is for what the person is told."""
