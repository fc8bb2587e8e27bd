"""The short form of the fuzzer."""

from tests.attacks.fuzz import READERS, fuzz


def test_no_damaged_file_does_harm() -> None:
    report = fuzz(cases=60 * len(READERS), seed=1)
    assert report.bad == []
    for reader, ends in report.ends.items():
        assert ends["read"] > 0, f"no {reader} was left whole, so that nothing was tried"
        assert ends["refused"] > 0, f"no {reader} was damaged"
