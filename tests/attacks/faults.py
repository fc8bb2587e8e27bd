"""What a machine does to a run: each fault strikes in three phases, is said in one line, and the run goes on when it is mended.

A full disk, a read-only folder, no shared memory, data that vanish or change, a killed reader of images, a second process.
``python -m tests.attacks.faults --out faults.jsonl``, as root on Linux: what is mounted is mounted for this process alone.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.attacks.harness import Outcome, attack, forked, listed
from tests.attacks.kills import compare, content
from tests.attacks.signals import SECONDS, commands, prepare, undisturbed
from uda.cli import main as uda_main
from uda.training import fit, loop

PHASES = {"source": "refining", "adaptation": "adaptation", "finishing": ""}
"""what the names of their stages begin with; the last one has no steps"""
NOBODY = 65534
DISK, SHARED = 96, 32  # MiB
PRIVATE, RECURSIVE, NEW_MOUNTS = 1 << 18, 1 << 14, 0x20000  # of Linux


@dataclass(frozen=True)
class Scene:
    """Where a fault strikes: the folder that the command runs in, and the data that it reads."""

    place: Path
    data: Path

    def beside(self, name: str) -> Path:
        return self.place.with_name(f"{self.place.name}.{name}")


Act = Callable[[Scene], object]


def nothing(scene: Scene) -> None:
    pass


def fill(folder: Path) -> None:
    """Leaves no byte of its disk."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def empty(folder: Path) -> None:
    (folder / "filler").unlink()


def close(scene: Scene) -> None:
    for folder, _, _ in os.walk(scene.place):
        os.chmod(folder, 0o555)
    for file in scene.place.rglob("*.*"):
        if file.is_file():
            file.chmod(0o444)


def open_again(scene: Scene) -> None:
    for path in (scene.place, *scene.place.rglob("*")):
        path.chmod(0o755)


def hide(scene: Scene) -> None:
    for name in ("source", "target", "test"):
        os.rename(scene.data / name, scene.data / f"{name}-away")


def put_back(scene: Scene) -> None:
    for name in ("source", "target", "test"):
        os.rename(scene.data / f"{name}-away", scene.data / name)


def stop(scene: Scene) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def change(scene: Scene) -> None:
    """Another picture by an image's name."""
    chosen = sorted((scene.data / "target").iterdir())[0]
    shutil.copy(chosen, scene.beside("kept"))
    with Image.open(chosen) as picture:
        picture.transpose(Image.Transpose.ROTATE_180).save(chosen)


def change_back(scene: Scene) -> None:
    shutil.copy(scene.beside("kept"), sorted((scene.data / "target").iterdir())[0])


def kill_a_reader(scene: Scene) -> None:
    readers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    if readers:
        os.kill(int(readers[0]), signal.SIGKILL)


def let_in(scene: Scene) -> None:
    """Waits for the second process, which waits for this, to come and go."""
    scene.beside("struck").touch()
    while not scene.beside("came").exists():
        time.sleep(0.05)


def send_second(scene: Scene) -> None:
    """A second process, which comes when it is let in, and keeps how it ended."""
    if os.fork():
        return
    while not scene.beside("struck").exists():
        time.sleep(0.05)
    other = scene.beside("second")
    other.mkdir()
    outcome = attack(["fit", "--resume", str(scene.place / "run")], other, SECONDS)
    scene.beside("came").write_text("" if outcome.refused else f"the second one: {outcome}")
    os._exit(0)


@dataclass(frozen=True)
class Fault:
    """What is done, and by whom.

    Attributes:
        strike: in the command's own process, when the phase has come.
        mend: after the command has ended.
        before: before it begins.
        meanwhile: between its end and an attempt to go on, which is refused, too.
        nobody: whether the command runs as a user who is not root.
        ends: the exit codes that it may end with.
    """

    strike: Act
    mend: Act = nothing
    before: Act = nothing
    meanwhile: Act | None = None
    nobody: bool = False
    ends: tuple[int, ...] = (2,)


FAULTS = {
    "full disk": Fault(lambda scene: fill(scene.place), lambda scene: empty(scene.place)),
    "read-only folder": Fault(close, open_again, nobody=True),
    "full /dev/shm": Fault(lambda _: fill(Path("/dev/shm")), lambda _: empty(Path("/dev/shm")), ends=(0, 2)),
    "vanished data": Fault(hide, put_back),
    "changed data": Fault(stop, change_back, meanwhile=change, ends=(130,)),
    "killed reader": Fault(kill_a_reader, ends=(0, 2)),
    "second process": Fault(let_in, before=send_second, ends=(0,)),
}


def strike_in(phase: str, act: Callable[[], object]) -> None:
    """From now on in this process, the act comes once, in that phase."""
    step, measure, left = loop.Progress.step, fit.measure, [None]

    def strike() -> None:
        if left:
            left.pop()
            act()

    def then_strike(self: loop.Progress, number: int, row: loop.Row) -> None:
        step(self, number, row)
        if PHASES[phase] and self.stage.name.startswith(PHASES[phase]) and number == 3:
            strike()

    def strike_then(*given: object) -> object:
        if not PHASES[phase]:
            strike()
        return measure(*given)  # type: ignore[arg-type]

    loop.Progress.step, fit.measure = then_strike, strike_then  # type: ignore[method-assign, assignment]


def one(fault: Fault, phase: str, words: list[str], whole: dict[str, object], scene: Scene) -> str:
    """``"same"``, or what is wrong with how a fault in a phase ended."""
    mount(scene.place, DISK)
    os.chown(scene.place, *(2 * [NOBODY if fault.nobody else 0]))

    def struck() -> None:
        if fault.nobody:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        strike_in(phase, lambda: fault.strike(scene))
        sys.argv = ["uda", *words]
        uda_main()

    fault.before(scene)
    outcome = forked(struck, scene.place, SECONDS)
    bad = [] if outcome.code in fault.ends and (outcome.code != 2 or outcome.refused) else [said(outcome)]
    resume = ["fit", "--resume", "run"]
    if fault.meanwhile is not None:
        fault.meanwhile(scene)
        refused = attack(resume, scene.place, SECONDS)
        bad += [] if refused.refused else [f"gone on with: {said(refused)}"]
    fault.mend(scene)
    if (came := scene.beside("came")).exists():
        bad += [came.read_text()] if came.read_text() else []
    if outcome.code != 0:
        ended = attack(resume, scene.place, SECONDS)
        bad += [] if ended.code == 0 else [f"did not go on: {said(ended)}"]
    differing = compare(whole, content(scene.place))
    return "; ".join(bad) or differing


def said(outcome: Outcome) -> str:
    return f"code {outcome.code}, {outcome.err[-400:]}"


def mount(place: Path, mebibytes: int) -> None:
    """A disk of its own, for this process and its children alone."""
    place.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, f"size={mebibytes}m".encode()):
        raise OSError(ctypes.get_errno(), errno.errorcode[ctypes.get_errno()], str(place))


def unshare() -> None:
    """From now on, what this process mounts is seen by nobody else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) or libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None):
        raise OSError(ctypes.get_errno(), "mounts of one's own take root, on Linux")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"))
    given = parser.parse_args()
    rows = listed(given.out)
    known = {(row["fault"], row["phase"]) for row in rows}
    unshare()
    mount(Path("/dev/shm"), SHARED)
    with tempfile.TemporaryDirectory() as made, given.out.open("a") as log:
        root = Path(made)
        root.chmod(0o755)
        for folder in ("state", "tmp"):
            (root / folder).mkdir()
            (root / folder).chmod(0o777)
        tempfile.tempdir = str(root / "tmp")  # where nobody may write, too
        prepare(root)
        words = commands(root / "data")["lazy"]
        whole = undisturbed(words, root / "whole").content
        for number, (name, phase) in enumerate((name, phase) for name in FAULTS for phase in PHASES):
            if (name, phase) in known:
                continue
            scene = Scene(root / str(number), root / "data")
            row = {"fault": name, "phase": phase, "outcome": one(FAULTS[name], phase, words, whole, scene)}
            rows.append(row)
            print(json.dumps(row), file=log, flush=True)
            unmount(scene.place)
    print(f"{'fault':<20}" + "".join(f"{phase:<14}" for phase in PHASES))
    for name in FAULTS:
        ends = {row["phase"]: "same" if row["outcome"] == "same" else "other" for row in rows if row["fault"] == name}
        print(f"{name:<20}" + "".join(f"{ends.get(phase, ''):<14}" for phase in PHASES))
    sys.exit(any(row["outcome"] != "same" for row in rows))


def unmount(place: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(place), 2)


if __name__ == "__main__":
    main()
