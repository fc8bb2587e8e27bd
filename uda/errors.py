"""The one error that a user is meant to read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_LISTED = 60  # names in one line


class UserError(ValueError):
    """Wrong input, said in one line that names what to do; the command line prints it and exits with code 2."""

    @classmethod
    def unknown(cls, kind: str, given: str, known: Iterable[str], other: str = "", cutoff: float = 0.5) -> UserError:
        """For a name that is not one of `known`; offers the nearest, and says what `other` may stand in its place.

        `cutoff`: how much alike it must be, 0..1.
        """
        names = sorted(known)
        cased = {name.casefold(): name for name in names}
        near = [
            cased[found]
            for part in (given, given.split(".")[-1])
            for found in get_close_matches(part.casefold(), list(cased), 1, cutoff)
        ]
        listed = f"choose one of: {', '.join(names)}" if len(names) <= MOST_LISTED else f"none of {len(names):,} names is like it"
        hint = f"did you mean {near[0]!r}?" if near else listed
        return cls(f"unknown {kind} {given!r}; {hint}" + (f" {'Or' if near else 'or'} give {other}" if other else ""))


class OwnCodeError(UserError):
    """What a user's own code raised or returned.

    Attributes:
        frames: where, in that code alone: lines of a traceback, perhaps none.
    """

    def __init__(self, message: str, frames: str = "") -> None:
        super().__init__(message)
        self.frames = frames


class OtherClasses(UserError):
    """A network has other outputs than there are classes."""


class ReaderKilled(UserError):
    """A process that reads images has been killed. torch raises it by a signal, wherever the main process happens to be."""

    @classmethod
    def of(cls, error: BaseException) -> ReaderKilled | None:
        """What torch has raised, said in our words; None for any other error."""
        if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
            return None
        return cls("a process that reads images was killed, perhaps for want of memory; free some, then resume")


class NoHome(UserError):
    """The system knows no home folder of this user, as in a container under a number that it has no name for."""


class NotFinite(UserError):
    """A loss, a weight or what a network returns is infinite or not a number."""


class ProcessLost(Exception):
    """Another process of the same run has ended, and this one cannot go on without it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which unwind as Ctrl-C does."""
