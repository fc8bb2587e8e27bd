"""One run in several processes: who takes part in it, and what they agree on.

``torchrun`` starts the processes and says to each, in its environment, which it is: its rank, 0..N - 1. All of them run the same
story on images of their own; the first alone writes and shows. A single process meets nobody: all that is here is then
nothing. `uda.collectives` is the same for tensors that take gradients.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from uda.errors import NotFinite, ProcessLost, Terminated, UserError

if TYPE_CHECKING:
    import torch
    from torch.distributed.distributed_c10d import Store

Value = TypeVar("Value")
Rows = TypeVar("Rows", "torch.Tensor", "tuple[torch.Tensor, ...]")
MEETING = 300.0
"""seconds in which all processes have to be there"""
WAITING = timedelta(days=1)
"""how long one waits for another that is still there: the first may compute for hours on its own"""
_stores: list[Store] = []
"""where the processes of this run met; empty until they have"""
_alone: list[None] = []
"""not empty while the first process computes what the others wait for"""


def world_size() -> int:
    """How many processes this run has."""
    return 1 if _alone or "RANK" not in os.environ else _told("WORLD_SIZE", 1)


def rank() -> int:
    """Which of them this is, 0..N - 1."""
    return _told("RANK", 0) if several() else 0


def local_rank() -> int:
    """Which of those on this machine it is."""
    return _told("LOCAL_RANK", rank()) if several() else 0


def _told(name: str, otherwise: int) -> int:
    """A number that torchrun says in the environment."""
    with suppress(ValueError):
        if (told := int(os.environ.get(name, otherwise))) >= (1 if name == "WORLD_SIZE" else 0):
            return told
    raise UserError(f"${name} is {os.environ[name]!r}, and no number that there can be; start with torchrun, or unset it")


def several() -> bool:
    """Whether this run has other processes."""
    return world_size() > 1


def first() -> bool:
    """Whether this process is the one that writes and shows."""
    return rank() == 0


def join() -> None:
    """Meets the other processes, if there are any and it has not yet: by gloo on a CPU, by NCCL on GPUs, each its own.

    Raises:
        UserError: where they do not all come.
    """
    if not several() or _stores:
        return
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    timeout = timedelta(seconds=MEETING)
    address, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    try:
        with_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's own, which outlives this process
        store = TCPStore(address, int(port), is_master=first() and not with_agent, timeout=timeout, wait_for_workers=False)
        met = PrefixStore(f"uda {os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}", store)
        _await_all(met)
    except (RuntimeError, ValueError):
        raise UserError(
            f"the {world_size()} processes of this run did not meet at {address or '?'}:{port or '?'} within {MEETING:.0f} s; "
            "start all of them with torchrun, or unset WORLD_SIZE"
        ) from None
    _stores.append(met)
    if torch.cuda.is_available() and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with meeting():
        dist.init_process_group(backend, store=met, rank=rank(), world_size=world_size(), timeout=WAITING)
    atexit.register(_leave)


def _leave() -> None:
    """Ends the meeting. Threads that put away what was exchanged need Python for it, and abort a process that ends first."""
    import torch.distributed as dist

    dist.destroy_process_group()
    time.sleep(0.1)


def _await_all(store: Store) -> None:
    """Looks again and again, so that a signal ends it, which a wait within torch does not hear."""
    store.set(f"here {rank()}", "")
    began = time.monotonic()
    while not store.check([f"here {other}" for other in range(world_size())]):
        if time.monotonic() - began > MEETING:
            raise ValueError
        time.sleep(0.02)


@contextmanager
def meeting() -> Iterator[None]:
    """While processes exchange something: an error of that is, as a rule, the death of one of them."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost("another process of this run has ended") from error


@contextmanager
def resumable(command: str) -> Iterator[None]:
    """Where there is something to go on from: says how, whatever ends the processes. torchrun ends the others where one dies."""
    try:
        yield
    except (ProcessLost, Terminated):
        if not several():
            raise
        raise ProcessLost(
            f"the run has ended early: one of its {world_size()} processes has died, or all were stopped; go on with: {command}"
        ) from None


def speaks() -> bool:
    """Whether this process is to say what ends the run: the first that asks is, so that what follows from it is not said."""
    if not _stores:
        return first()
    try:
        return _stores[0].add("said", 1) == 1
    except RuntimeError:
        return first()


def wait() -> None:
    """Until all processes have come here."""
    if several():
        import torch.distributed as dist

        with meeting():
            dist.barrier()


def agreed(value: Value) -> Value:
    """The first process's value, whatever the others', which come here as well: a plain value or a small CPU tensor."""
    return from_first(lambda: value)


@contextmanager
def alone() -> Iterator[None]:
    """While the others wait, what this process computes is its own: nothing of it is exchanged or shared out."""
    _alone.append(None)
    try:
        yield
    finally:
        _alone.pop()


def from_first(compute: Callable[[], Value]) -> Value:
    """What the first process computes `alone`, while the others wait for it. Numbers that are not finite end it in all alike."""
    if not several():
        return compute()
    import torch.distributed as dist

    held: list[Any] = [None, None]
    if first():
        with alone():
            try:
                held[0] = compute()
            except NotFinite as error:
                held[1] = str(error)
    with meeting():
        dist.broadcast_object_list(held, src=0)
    if held[1] is not None:
        raise NotFinite(held[1])
    value: Value = held[0]
    return value


def anywhere(flag: bool) -> bool:
    """Whether it is so in at least one process."""
    if not several():
        return flag
    import torch
    import torch.distributed as dist

    found = torch.tensor(int(flag))
    with meeting():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found)


def of_others(value: Value) -> list[Value]:
    """For the first process: the values of all others, in the order of their ranks; for these, and in a single process, none."""
    if not several():
        return []
    import torch.distributed as dist

    held: list[Any] | None = [None] * world_size() if first() else None
    with meeting():
        dist.gather_object(value, held)
    return held[1:] if held else []


@contextmanager
def in_turn() -> Iterator[None]:
    """The first process of each machine runs the block, then its others do: what one has downloaded or kept, these find."""
    if local_rank():
        wait()
    yield
    if not local_rank():
        wait()


def share(count: int, what: str) -> int:
    """How many of so many images are this process's.

    Raises:
        UserError: where they cannot be shared out evenly. A mean over processes would not be one over images then.
    """
    if count % world_size():
        near = max(1, round(count / world_size())) * world_size()
        raise UserError(f"{what} is {count}, which {world_size()} processes cannot share evenly; set it to {near}")
    return count // world_size()


def own(rows: Rows) -> Rows:
    """This process's rows of a batch (N, ...): every world-size-th, so that the first images of all are the first of each."""
    return rows[rank() :: world_size()]
