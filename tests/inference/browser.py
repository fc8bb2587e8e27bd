"""A real browser (Chromium, as Qt brings it) without a screen: opens a page, presses keys, and says what the page shows.

    python tests/inference/browser.py ADDRESS WIDTH HEIGHT KEY... [--picture FILE]

Each KEY is pressed once the page is still. Printed, as JSON: before the first key and after each, what `PROBE` finds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

os.environ |= {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1", "QT_LOGGING_RULES": "*=false"}

from PyQt6.QtCore import QEvent, Qt, QTimer, QUrl
from PyQt6.QtGui import QKeyEvent
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

PAUSE = 250  # milliseconds in which an answer is sent
WAITS = 200  # more pauses, in all, where answers or images are slow
NAMED = {"Enter": (Qt.Key.Key_Return, "\r"), "Backspace": (Qt.Key.Key_Backspace, "\b"), "Tab": (Qt.Key.Key_Tab, "\t")}
PROBE = """(() => {
  const at = (id) => document.getElementById(id), yes = at("yes").getBoundingClientRect(), image = at("image");
  return JSON.stringify({
    early: at("early").hidden ? "" : at("early").textContent, ended: at("ended").textContent,
    count: at("count").textContent, asking: !at("asked").hidden, lost: !at("lost").hidden, busy,
    picture: image.complete && image.naturalWidth > 0, reachable: yes.top >= 0 && yes.bottom <= innerHeight,
    width: innerWidth, overflow: document.documentElement.scrollWidth - innerWidth,
  });
})()"""


class Browser:
    """One page, and what it showed."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.keys, self.picture, self.seen, self.waits = list(given.keys), given.picture, list[object](), WAITS
        self.view = QWebEngineView()
        self.view.resize(given.width, given.height)
        self.view.loadFinished.connect(lambda _: QTimer.singleShot(PAUSE, self.look))
        self.view.load(QUrl(given.address))
        self.view.show()

    def look(self) -> None:
        page = self.view.page()
        assert page is not None
        page.runJavaScript(PROBE, self.go_on)

    def go_on(self, found: str) -> None:
        shown = json.loads(found)
        if self.waits and (shown["busy"] or (shown["asking"] and not shown["picture"])):
            self.waits -= 1
            QTimer.singleShot(PAUSE, self.look)
            return
        self.seen.append(shown)
        if self.picture and len(self.seen) == 1:
            self.view.grab().save(self.picture)
        if not self.keys:
            QApplication.quit()
            return
        name = self.keys.pop(0)
        key, text = NAMED.get(name, (ord(name[0].upper()), name))
        for kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
            event = QKeyEvent(kind, int(key), Qt.KeyboardModifier.NoModifier, text)
            QApplication.sendEvent(self.view.focusProxy(), event)
        QTimer.singleShot(PAUSE, self.look)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("keys", nargs="*")
    parser.add_argument("--picture")
    application = QApplication(sys.argv[:1])
    browser = Browser(parser.parse_args())
    application.exec()
    print(json.dumps(browser.seen))
