"""Ctrl-C, SIGTERM and SIGHUP, in places that would swallow them. Each in a process of its own, which has no other handlers."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

BEGIN = "import os, signal, time\nfrom uda import signals\nfrom uda.errors import Terminated\n"
SWALLOWING = f"import os\ntry:\n    os.kill(os.getpid(), {int(signal.SIGINT)})\nexcept BaseException:\n    pass\n"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has other signals")


def run(code: str, folder: Path) -> tuple[int, str, str]:
    (folder / "swallowing.py").write_text(SWALLOWING)
    (folder / "main.py").write_text(BEGIN + code)
    ended = subprocess.run(
        [sys.executable, folder / "main.py"], env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_a_stop_during_an_import_ends_the_process_at_once(tmp_path: Path) -> None:
    assert run("signals.listen()\nimport swallowing\nprint('swallowed')", tmp_path) == (130, "", "uda: stopped\n")


@pytest.mark.parametrize(
    "swallowed",
    ["import swallowing", "class Thing:\n  def __del__(self): os.kill(os.getpid(), signal.SIGINT)\nThing()"],
    ids=["import", "del"],
)
def test_a_stop_during_a_run_waits_until_it_is_heard(swallowed: str, tmp_path: Path) -> None:
    wait = "try:\n  time.sleep(5)\n  print('swallowed')\nexcept KeyboardInterrupt:\n  print('heard')"
    code = "signals.listen()\nwith signals.patient():\n" + "\n".join(f" {line}" for line in f"{swallowed}\n{wait}".splitlines())
    assert run(code, tmp_path) == (0, "heard\n", "")


def test_an_echo_of_a_signal_is_not_a_second_one(tmp_path: Path) -> None:
    code = """signals.listen()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Terminated:
    os.kill(os.getpid(), signal.SIGTERM)
    print('in order')"""
    assert run(code, tmp_path) == (0, "in order\n", "")


def test_what_was_forked_does_not_listen(tmp_path: Path) -> None:
    code = """signals.listen()
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGINT)
    print('reads on', flush=True)
    os._exit(0)
os.wait()"""
    assert run(code, tmp_path) == (0, "reads on\n", "")


def test_handlers_are_put_back(tmp_path: Path) -> None:
    ask = "signal.getsignal(signal.SIGINT)"  # who runs tests in the background has Ctrl-C ignored
    code = f"before = {ask}\nwith signals.listening(): pass\nprint({ask} is before)"
    assert run(code, tmp_path) == (0, "True\n", "")


def test_a_terminal_that_closes_is_heard_as_sigterm_is(tmp_path: Path) -> None:
    code = """signal.signal(signal.SIGHUP, signal.SIG_DFL)
signals.listen()
try:
    os.kill(os.getpid(), signal.SIGHUP)
except Terminated:
    print('in order')"""
    assert run(code, tmp_path) == (0, "in order\n", "")


def test_a_terminal_that_closes_is_nothing_to_who_ignores_it(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nsignals.listen()\nos.kill(os.getpid(), signal.SIGHUP)\nprint('goes on')"
    assert run(code, tmp_path) == (0, "goes on\n", "")


def test_a_stop_while_it_forks_is_heard_after_that(tmp_path: Path) -> None:
    """Python swallows what is raised by a callback of a fork."""
    code = f"""import multiprocessing
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), {int(signal.SIGTERM)}))
with signals.listening():
    try:
        multiprocessing.get_context("fork").Process(target=int).start()
        time.sleep(5)
        print("swallowed")
    except Terminated:
        print("heard")"""
    assert run(code, tmp_path) == (0, "heard\n", "")
