"""Text for people: what others wrote (names of files and classes, notes, what decoders say), and numbers of things."""

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


def counted(number: int, noun: str) -> str:
    """``"1 image"``, ``"1,200 images"``; `noun` in the singular, its last word the one that changes."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
