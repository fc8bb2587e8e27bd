"""What is done to text that others wrote."""

import pytest

from uda.text import counted, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\udcff", "\\udcff"),
        ("\u2028", "\\u2028"),
        ("größe 写真 [red]\u00a0\u3000'\\", "größe 写真 [red]\u00a0\u3000'\\"),
    ],
)
def test_what_is_not_to_be_seen_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_what_is_to_be_kept_stays() -> None:
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


@pytest.mark.parametrize(("number", "told"), [(0, "0 images"), (1, "1 image"), (1200, "1,200 images")])
def test_one_thing_is_told_in_the_singular(number: int, told: str) -> None:
    assert counted(number, "image") == told
