"""Text that others wrote: names of files and classes, notes, what decoders say."""

from __future__ import annotations

import unicodedata


def printable(text: str, keep: str = "") -> str:
    r"""The same where nothing in it moves a terminal's cursor, turns its direction or ends a line; else with that written out.

    Escape becomes ``\x1b``, a byte that is no UTF-8 ``\udcff``; spaces of every width stay.

    Args:
        text: of any origin.
        keep: letters that stay as they are, such as ``"\n"``.
    """
    return "".join(
        letter if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs" else repr(letter)[1:-1]
        for letter in text
    )
