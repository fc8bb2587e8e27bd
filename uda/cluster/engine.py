"""Ray, thinly used: a cluster, or this machine as one, and tasks that outlive the nodes they began on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from uda.errors import UserError
from uda.plugins import named
from uda.training.loop import Interrupted

ENGINES = "here", "ray"
TICK = 0.5
"""seconds between two looks at what has ended"""
STORE = 100 * 2**20
"""bytes of shared memory for what tasks return, on this machine: a few words each"""
AHEAD = 2
"""tasks that are handed over for each that can run, so that a worker that is done finds the next"""
RETRIES = 5
"""times that a task is run again whose process or node has died: nodes do at times, and a task that kills its own always does"""
Result = TypeVar("Result")


@contextmanager
def cluster(address: str | None, cpus: int = 1, gpus: float | None = None) -> Iterator[dict[str, float]]:
    """Holds a connection to Ray, on this machine where there is no `address`; yields what a task takes of a node.

    One that is held already serves here, too, and stays.

    Args:
        address: of a cluster's head, ``"auto"`` or ``HOST:PORT``.
        cpus: cores of a task, which are also its threads.
        gpus: its share of a GPU; left out, one where there is any.

    Raises:
        UserError: where Ray is not installed, nothing answers, or no node has what a task takes.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # a trial is no less urgent than the same run alone
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # which Ray counts apart, and does not bound
    try:
        import ray
    except ImportError:
        raise UserError("this needs Ray, which is not installed: pip install 'uda-toolkit[ray]'") from None
    # Without "local", Ray takes the address in $RAY_ADDRESS for its own.
    own: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": STORE}
    held = ray.is_initialized()
    try:
        if not held:
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except Exception as error:  # whatever it is: a slow machine makes Ray raise a bare one
        where = f"no Ray cluster answers at {address}" if address else "Ray does not start on this machine"
        raise UserError(f"{where} ({str(error).splitlines()[0]}); start one with: ray start --head") from None
    try:
        total = ray.cluster_resources()
        takes = {"num_cpus": float(cpus), "num_gpus": min(1.0, total.get("GPU", 0.0)) if gpus is None else gpus}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= takes["num_gpus"] for node in nodes):
            raise UserError(f"no node has {cpus} cores and {takes['num_gpus']:g} GPUs for one task; ask for fewer (cpus, gpus)")
        yield takes
    finally:
        if not held:
            ray.shutdown()


def check_engine(engine: str, address: str | None) -> None:
    """Whether there is such an engine, and an `address` goes with it."""
    if engine not in ENGINES:
        raise UserError.unknown("engine", engine, ENGINES)
    if address is not None and engine != "ray":
        raise UserError("--address is of a Ray cluster; add --engine ray")


def each(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    lost: Callable[[str], Result],
    engine: str,
    address: str | None,
    cpus: int = 1,
) -> Iterator[tuple[int, Result]]:
    """As `completed`, on a cluster; or one after another in this process."""
    if engine == "here" or not arguments:
        yield from ((number, function(*given)) for number, given in enumerate(arguments))
        return
    with cluster(address, cpus) as takes:
        yield from completed(function, arguments, takes, lost)


def completed(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    takes: dict[str, float],
    lost: Callable[[str], Result],
    tick: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Result]]:
    """Runs ``function(*arguments[n])`` for every n; yields (n, what it returned) as they end, in whatever order that is.

    A task whose node or process dies is run again, elsewhere, up to `RETRIES` times; what it had done must be found on disk.

    Args:
        function: a module's own, which workers import.
        arguments: of each task, in the order in which they begin.
        takes: what a task takes of a node, as `cluster` yields it.
        lost: makes of a line, which says why nothing came of a task, what is yielded in the place of what it would have returned.
        tick: called now and then while nothing ends.
    """
    import ray
    from ray.exceptions import RayError

    task = ray.remote(function).options(max_retries=RETRIES, retry_exceptions=[Interrupted], **takes)
    waiting, left = iter(enumerate(arguments)), len(arguments)
    running: dict[Any, int] = {}
    while left:
        slots = max(1, int(ray.cluster_resources().get("CPU", 0) // takes["num_cpus"]))
        while len(running) < AHEAD * slots and (one := next(waiting, None)) is not None:
            running[task.remote(*one[1])] = one[0]
        for done in ray.wait(list(running), timeout=TICK)[0]:
            number = running.pop(done)
            left -= 1
            try:
                ended = ray.get(done)
            except RayError as error:
                ended = lost(_why(error))
            yield number, ended
        tick()


def _why(error: Exception) -> str:
    """Why nothing came of a task, in one line. What Ray itself writes has colours and many lines."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    if isinstance(raised := getattr(error, "cause", None), BaseException):
        return f"an error of ours ({named(raised)})"
    plain = re.sub(r"\x1b\[[\d;]*m", "", named(error))
    if isinstance(error, NodeDiedError | OutOfMemoryError | WorkerCrashedError):
        return f"its process died {RETRIES + 1} times, perhaps for want of memory ({plain})"
    return f"Ray could not run it ({plain})"
