"""Are the objectives tested? Changes one of their terms at a time, and runs the tests on what comes of it.

    python tests/mutants.py [--only dann] [--jobs 2]

A mutant is one module in a copy of the package, with one change:

    sign    a + b becomes a - b or -a + b, a - b becomes a + b or -a - b, and -a becomes a
    drop    a term of a sum, or a value that is handed out by name, is multiplied by 0
    weight  weight * a becomes a
    flip    real_fake(a, True) becomes real_fake(a, False), and the other way round; so do other calls and tuples that end so

It is killed where its tests fail: tests/test_losses.py for a loss, tests/methods/test_NAME.py for a method. Prints how many were
made and killed in each file, and each survivor; ends with 1 where fewer than 95 % are killed. Not a test itself: it takes a
quarter of an hour, and is for whoever changes an objective.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

CHECKOUT = Path(__file__).resolve().parent.parent
NEEDED = 0.95
SECONDS = 180  # for the tests of one mutant; one that makes them hang is killed
TESTS = {
    "losses": ["test_losses"],
    "players": ["test_players"],
    "base": ["methods/test_drit", "methods/test_latent_mapping"],
    "target_only": ["methods/test_source_only"],
    "dirt_t": ["methods/test_vada"],
}
"""of modules whose tests are not methods/test_NAME"""
OBJECTIVES = {
    "players": {"linear_decay", "update_ema", "step_sharpness_aware"},
    "base": {"self_training"},
    "cdan": {"forward", "adversarial"},
    "dann": {"losses", "adversarial", "backward", "ramp"},
    "fixmatch": {"losses", "log_share"},
    "drit": {"mode_seeking", "losses", "_update_translator", "_update_discriminators", "_generator_class", "_draw"},
    "latent_mapping": {"losses", "update_vaes", "_update_mapping", "_pair_terms", "_is_pair", "forward"},
    "mcd": {"class_loss", "discrepancy", "step", "forward"},
    "neighbours": {"fill", "update", "nearest"},
    "shot": {"losses", "make_centroids"},
    "unit": {"_update_discriminators", "_update_generators"},
    "unit_translation": {"step", "mean_distance", "mean_divergence"},
    "vada": {"losses", "smoothness", "unit"},
}
"""functions that compute an objective; in uda/losses.py all do, in a method that is not here `losses` and `step`"""
EQUIVALENT = {
    ("adabn", "0 * (torch.zeros(()))"): "nothing is trained, and its loss is 0",
    ("latent_mapping", "0 * (zero)"): "the sum begins with 0",
    ("latent_mapping", "-(1) - (domain)"): "of a list of two, counted from its end, the same one",
}
"""changes that no test can see: (module, what it became) and why"""


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    module: str
    line: int
    kind: str
    before: str
    after: str
    source: str
    """the whole module, changed"""


def is_sum(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)


def is_list(node: ast.AST) -> bool:
    return isinstance(node, ast.List | ast.Tuple | ast.ListComp)


def hands_out(node: ast.Assign | ast.AugAssign) -> bool:
    """Whether it adds to a sum or a list, or puts a value under a name."""
    return isinstance(node.op, ast.Add) if isinstance(node, ast.AugAssign) else isinstance(node.targets[0], ast.Subscript)


def is_flag(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def changes(node: ast.AST) -> Iterator[tuple[str, ast.expr, str]]:
    """What a node can become: the kind of the change, the expression that is replaced, and the source in its place."""
    if isinstance(node, ast.BinOp) and is_sum(node):
        left, right = ast.unparse(node.left), ast.unparse(node.right)
        now, other = ("+", "-") if isinstance(node.op, ast.Add) else ("-", "+")
        lists = is_list(node.left) or is_list(node.right)
        if not lists:
            yield "sign", node, f"{left} {other} ({right})"
        yield "drop", node, f"{left} {now} 0 * ({right})"
        if not is_sum(node.left):  # else it is a sum of terms that are changed one by one
            if not lists:
                yield "sign", node, f"-({left}) {now} ({right})"
            yield "drop", node, f"0 * ({left}) {now} ({right})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node, ast.unparse(node.operand)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Attribute | ast.Constant):
        yield "weight", node, ast.unparse(node.right)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield "drop", value, f"0 * ({ast.unparse(value)})"
    elif isinstance(node, ast.Assign | ast.AugAssign) and hands_out(node):
        yield "drop", node.value, f"0 * ({ast.unparse(node.value)})"
    last = node.args[-1:] if isinstance(node, ast.Call) else node.elts[-1:] if isinstance(node, ast.Tuple) else []
    for flag in last:
        if is_flag(flag):
            yield "flip", flag, str(not ast.literal_eval(flag))


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a module."""
    text = path.read_bytes()
    starts = [0, *(number + 1 for number, byte in enumerate(text) if byte == ord("\n"))]
    wanted = OBJECTIVES.get(path.stem, {"losses", "step"})
    made: dict[tuple[int, int, str], Mutant] = {}
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef) or not (path.stem == "losses" or function.name in wanted):
            continue
        for node in (inner for statement in function.body for inner in ast.walk(statement)):
            for kind, old, new in changes(node):
                begin, end = starts[old.lineno - 1] + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset  # type: ignore
                source = (text[:begin] + b"(" + new.encode() + b")" + text[end:]).decode()
                before = ast.unparse(old)
                made.setdefault((begin, end, new), Mutant(path.stem, old.lineno, kind, before, new, source))
    return sorted(made.values(), key=lambda mutant: mutant.line)


def place(module: str, root: Path) -> Path:
    """The file of a module."""
    inside = root / "uda" / f"{module}.py"
    return inside if inside.exists() else root / "uda" / "methods" / f"{module}.py"


def tests_of(module: str) -> list[str]:
    return [f"tests/{name}.py" for name in TESTS.get(module, [f"methods/test_{module}"])]


def warm_up() -> None:
    """Imports once what takes long, so that all children have it; what is to change they import themselves."""
    sys.path.insert(0, str(CHECKOUT))
    for name in ("hypothesis", "pytorch_metric_learning.losses", "torch._dynamo", "uda.methods", "uda.training.fit", "pytest"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] in ("uda", "tests")]:
        del sys.modules[name]
    sys.path.pop(0)


def start(copy: Path, module: str, source: str | None) -> int:
    """A child that runs a module's tests in a copy of the checkout; ends with pytest's exit status."""
    child = os.fork()
    if child:
        return child
    import pytest

    def give_up(number: int, frame: FrameType | None) -> None:
        os._exit(9)

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    if source is not None:
        file = place(module, copy)
        file.write_text(source)
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    status = pytest.main(["-x", "--assert=plain", "--tb=no", "-p", "no:cacheprovider", *tests_of(module)])
    os._exit(int(status))


def run(mutants: list[Mutant], jobs: int, root: Path) -> list[Mutant]:
    """Those that survive. Each job has a copy of its own to change."""
    free = [root / str(job) for job in range(jobs)]
    for copy in free:
        for part in ("uda", "tests", "recipes"):
            shutil.copytree(CHECKOUT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(copy, quiet=2)
    for module in sorted({mutant.module for mutant in mutants}):
        _, status = os.waitpid(start(free[0], module, None), 0)
        if status:
            raise SystemExit(f"{' '.join(tests_of(module))} fail as they are; mend them first")
    busy: dict[int, tuple[Path, Mutant]] = {}
    survivors, waiting = [], mutants[::-1]
    while waiting or busy:
        while waiting and free:
            copy, mutant = free.pop(), waiting.pop()
            busy[start(copy, mutant.module, mutant.source)] = copy, mutant
        child, status = os.wait()
        copy, mutant = busy.pop(child)
        shutil.copy(place(mutant.module, CHECKOUT), place(mutant.module, copy))
        free.append(copy)
        if status == 0:
            survivors.append(mutant)
            print(f"survives: {describe(mutant)}", flush=True)
        print(f"{len(waiting) + len(busy)} left ", end="\r", file=sys.stderr, flush=True)
    return survivors


def describe(mutant: Mutant) -> str:
    file = place(mutant.module, CHECKOUT).relative_to(CHECKOUT)
    return f"{file}:{mutant.line}  {mutant.kind}\n    {mutant.before}\n    {mutant.after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", metavar="MODULE", help="such as: losses dann")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    sys.dont_write_bytecode = True  # a mutant's would be taken for the original's
    paths = [place("losses", CHECKOUT), place("players", CHECKOUT), *sorted((CHECKOUT / "uda" / "methods").glob("[!_]*.py"))]
    mutants = [mutant for path in paths if not given.only or path.stem in given.only for mutant in mutants_of(path)]
    known = [mutant for mutant in mutants if (mutant.module, mutant.after) in EQUIVALENT]
    mutants = [mutant for mutant in mutants if mutant not in known]
    warm_up()
    with tempfile.TemporaryDirectory() as root:
        survivors = run(mutants, given.jobs, Path(root))
    made, alive = (Counter(mutant.module for mutant in each) for each in (mutants, survivors))
    for module, count in made.items():
        print(f"{module:20}{count - alive[module]:5} of {count:4} killed")
    share = 1 - len(survivors) / max(1, len(mutants))
    print(f"{'all':20}{len(mutants) - len(survivors):5} of {len(mutants):4} killed, {share:.1%}")
    for mutant in known:
        print(f"equivalent: {describe(mutant)}\n    {EQUIVALENT[mutant.module, mutant.after]}")
    return int(share < NEEDED)


if __name__ == "__main__":
    raise SystemExit(main())
