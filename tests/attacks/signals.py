"""Ctrl-C, SIGTERM to the process group and ``kill -9`` at random moments of a command: said, and gone on with to the same end.

``python -m tests.attacks.signals --out signals.jsonl --count 200``; a list that is there is gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.attacks.cases import write_data
from tests.attacks.harness import Outcome, Sent, attack, listed
from tests.attacks.kills import compare, content, import_what_is_imported
from tests.conftest import NETS
from uda.cli import main as uda_main
from uda.evaluation import study
from uda.training import loop

SECONDS = 600  # that a command may take on a busy machine
EXPECTED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
HOW = "go on with: uda "
STEPS = (
    "classifier.steps=12", "classifier.batch=16", "training.steps=16", "training.batch=8", "training.log_every=2",
    "training.evaluate_every=4",
)  # fmt: skip


def fit(*words: str, settings: tuple[str, ...] = ()) -> list[str]:
    where = ("--device", "cpu", "--precision", "fp32", "-o", "run")
    return ["fit", *words, *where, *(word for setting in (*STEPS, *settings) for word in ("--set", setting))]


def commands(data: Path) -> dict[str, list[str]]:
    """What is interrupted, as words of the command line."""
    tiny = ("--recipe", str(data / "tiny.toml"))
    own = ("--model", f"{NETS}:SmallResNet", "--weights", str(data / "net.pt"))
    folders = ("--source", str(data / "source"), "--target", str(data / "target"), "--target-test", str(data / "test"))
    lazily = ("data.memory=0", "data.channels=1", "classifier.refine_steps=6")
    translate = ("method.width=4", "method.blocks=1", "method.discriminator_depth=2")
    return {
        "ours": fit(*tiny, "--method", "dann"),
        "lazy": fit(*own, *folders, "--method", "dann", settings=lazily),
        "seeds": fit(*tiny, "--method", "mcc", "--seeds", "2"),
        "translate": fit(*tiny, "--method", "unit_translation", settings=translate),
    }


LISTENS = 0.1
"""seconds after which the child has come to where it listens: `imports` is about what comes before"""


@dataclass
class Whole:
    """A command that was left alone: what it wrote, and the seconds that it took."""

    content: dict[str, object]
    seconds: float


def wrong(sent: Sent, outcome: Outcome, place: Path, resumed: bool) -> str:
    """What is wrong with how an interrupted command ended; nothing where it was said as it has to be.

    Before it has looked at the run that it is to resume, it is said that it stopped, and no more.
    """
    said, begun = outcome.out + outcome.err, any(place.glob("run/*.toml"))
    if outcome.code != EXPECTED[sent.number]:
        return f"exit code {outcome.code}"
    if "Traceback" in said or "Exception ignored" in said:
        return "a traceback"
    if sent.number == signal.SIGKILL or (begun and HOW in said) or ((resumed or not begun) and outcome.err == "uda: stopped\n"):
        return ""
    return "not said how to go on" if begun else "said what is not so"


def go_on(words: list[str], outcome: Outcome, place: Path) -> Outcome:
    """What was said is done; where nothing could be said, the same command is given, and then what that says."""
    for _ in range(2):
        said = outcome.out + outcome.err
        _, found, path = said.rpartition("uda fit --resume ")
        outcome = attack(["fit", "--resume", path.split()[0]] if found else words, place, SECONDS)
        if outcome.code == 0:
            break
    return outcome


def one(number: int, words: list[str], whole: Whole, place: Path) -> dict[str, object]:
    """An attack: a signal at a moment, and the way to the end. A third of them interrupt the resumed run once more."""
    chance = random.Random(number)
    kind = chance.choice(list(EXPECTED))
    place.mkdir()
    log: list[str] = []
    outcome, current = None, words
    for _ in range(2 if chance.random() < 1 / 3 else 1):
        sent = Sent(kind, LISTENS + chance.random() * whole.seconds, kind != signal.SIGKILL)
        outcome = attack(current, place, SECONDS, sent)
        if outcome.code == 0:
            break
        log.append(wrong(sent, outcome, place, current is not words))
        if HOW not in outcome.out:
            break
        current = ["fit", "--resume", "run"]
    if outcome is None or not log:
        return {"signal": kind.name, "outcome": "ended before"}
    ended = outcome if outcome.code == 0 else go_on(words, outcome, place)
    log.append("" if ended.code == 0 else f"did not go on: {ended.code} {ended.err[-300:]}")
    if ended.code == 0 and (differing := compare(whole.content, content(place))) != "same":
        log.append(differing)
    bad = [each for each in log if each]
    row = {"signal": kind.name, "after": round(sent.after, 2), "times": len(log) - 1, "outcome": "; ".join(bad) or "same"}
    return row | {"err": outcome.err[-300:]} if bad else row


def undisturbed(words: list[str], place: Path) -> Whole:
    """A command that is left alone, after all that it imports has been imported here, for those that are forked later."""
    first = place.with_name(f"{place.name}-first")
    for folder in (first, place):
        folder.mkdir()

    def here() -> None:
        os.chdir(first)
        sys.argv = ["uda", *words]
        with suppress(SystemExit):
            uda_main()

    import_what_is_imported(here, first)
    outcome = attack(words, place, SECONDS)
    assert outcome.code == 0, outcome
    return Whole(content(place), outcome.seconds)


def prepare(root: Path) -> None:
    """Writes the data below `root`, and has this process begin nothing that a fork of it would wait for."""
    os.environ |= {"XDG_STATE_HOME": str(root / "state"), "UDA_DATA": str(root / "data")}
    write_data(root / "data")
    torch.set_num_threads(1)
    loop.SAVE_EVERY = 0.3
    study.shipped()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("signals.jsonl"))
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    rows = listed(given.out)
    with tempfile.TemporaryDirectory() as made, given.out.open("a") as log:
        root = Path(made)
        prepare(root)
        wholes: dict[str, Whole] = {}
        known = commands(root / "data")
        number = rows[-1]["number"] if rows else 0
        while sum(row["outcome"] != "ended before" for row in rows) < given.count:
            number += 1
            name = random.Random(-number).choice(list(known))
            if name not in wholes:
                wholes[name] = undisturbed(known[name], root / name)
            row = {"number": number, "command": name, **one(number, known[name], wholes[name], root / str(number))}
            rows.append(row)
            print(json.dumps(row), file=log, flush=True)
    counted = Counter(
        (row["command"], row["signal"], row["outcome"] == "same") for row in rows if row["outcome"] != "ended before"
    )
    print(f"{'command':<12}{'signal':<10}{'same':>6}{'other':>6}")
    for command, kind in sorted({key[:2] for key in counted}):
        print(f"{command:<12}{kind:<10}{counted[command, kind, True]:>6}{counted[command, kind, False]:>6}")
    sys.exit(any(not same for *_, same in counted))


if __name__ == "__main__":
    main()
