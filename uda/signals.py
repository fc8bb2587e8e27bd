"""Ctrl-C, SIGTERM and SIGHUP (a terminal that closes), from a command's first moment on.

Each is raised where something hears it, as an exception of its own.

Python raises what a signal's handler raises wherever it happens to be. Two places swallow that: a module that is being imported,
whose code may try something and catch all, and `__del__`, whose errors are printed and forgotten.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from uda.errors import Terminated

Handler = Callable[[int, FrameType | None], None]
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AGAIN = 0.02  # seconds until another try, where nothing would hear it
TWICE = 1.0  # seconds in which a second signal is the first one's echo: a wrapper passes on what the terminal has sent already
_heard: list[signal.Signals] = []
"""all of them, but for SIGHUP where that is ignored, as ``nohup`` has it"""
_listeners: list[int] = []
"""the process that listens: one that was forked from it a moment ago, to read images, has other things to do"""


def listen() -> None:
    """From now on all are heard. One that comes while a module is imported ends the process at once: nothing has begun yet."""
    _listeners[:] = [os.getpid()]
    ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    _heard[:] = STOPS[: 2 if ignored else None]
    _handle_by(_stop_at_once)


@contextmanager
def listening() -> Iterator[None]:
    """As `listen`, while it is open."""
    before = [signal.getsignal(number) for number in STOPS]
    listen()
    try:
        yield
    finally:
        for number, handler in zip(STOPS, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def patient() -> Iterator[None]:
    """While it is open, one that comes during an import waits until that is done: there is a run to be left in order."""
    if not _heard or signal.getsignal(_heard[0]) is not _stop_at_once:  # somebody else's process, or no main thread of ours
        yield
        return
    _handle_by(_stop)
    try:
        yield
    finally:
        if signal.getsignal(_heard[0]) is _stop:
            _handle_by(_stop_at_once)


def leave() -> None:
    """At a command's end: what comes now ends the process, without a word."""
    for number in _heard:
        signal.signal(number, signal.SIG_DFL)


def _handle_by(handler: Handler) -> None:
    for number in _heard:
        signal.signal(number, handler)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    if os.getpid() in _listeners and _runs(frame, _importing):
        with suppress(Exception):  # another write may be under way
            sys.stdout.flush()
            os.write(2, b"uda: stopped\n")
        os._exit(128 + number)
    _stop(number, frame)


def _stop(number: int, frame: FrameType | None) -> None:
    if os.getpid() not in _listeners:
        return
    if hasattr(signal, "setitimer") and any(_runs(frame, kind) for kind in (_importing, _finalizing, _forking)):
        signal.signal(signal.SIGALRM, lambda _, later: _stop(number, later))
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        return
    came = time.monotonic()

    def end(number: int, _: FrameType | None) -> None:
        if time.monotonic() - came > TWICE:
            os._exit(128 + number)

    _handle_by(end)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _runs(frame: FrameType | None, wanted: Callable[[FrameType], bool]) -> bool:
    """Whether a frame, or one that waits for it, is of a kind."""
    while frame is not None:
        if wanted(frame):
            return True
        frame = frame.f_back
    return False


def _importing(frame: FrameType) -> bool:
    return frame.f_code.co_filename == "<frozen importlib._bootstrap>"


def _finalizing(frame: FrameType) -> bool:
    return frame.f_code.co_name == "__del__"


def _forking(frame: FrameType) -> bool:
    """Python swallows what is raised while it forks, and a loader whose readers are not all there yet cannot be ended."""
    return frame.f_code.co_qualname in ("Popen._launch", "_MultiProcessingDataLoaderIter.__init__")
