"""Strips of pictures by a finished run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uda import UserError
from uda.data.augment import to_float, to_pixels
from uda.data.folders import find
from uda.inference.strips import write_strip, write_style_strips
from uda.report.grids import picture
from uda.runs.run import Run


def pictures(strip: Path, row: int, count: int) -> np.ndarray:
    """The pictures in a row of a strip, (count, 64, 64), grey."""
    sheet = np.asarray(Image.open(strip).convert("L")).astype(int)[67 * row : 67 * row + 64, -67 * count :]
    return sheet.reshape(64, count, 67)[:, :, :64].transpose(1, 0, 2)


def test_a_strip_between_an_image_and_itself_does_not_jump(mapped_run: Run, folders: Path, tmp_path: Path) -> None:
    """All pictures of its lower row are drawn with one noise."""
    one = sorted((folders / "source").rglob("*.png"))[0]
    write_strip(mapped_run, one, one, tmp_path / "strip.png", stops=3)
    row = np.asarray(Image.open(tmp_path / "strip.png").convert("L"))[67:, -3 * 67 :].reshape(64, 3, 67)[:, :, :64].astype(int)
    for number in (1, 2):
        assert np.abs(row[:, number] - row[:, 0]).max() <= 1


@pytest.mark.parametrize("which", ["own_run", "styled_run", "mapped_run"])
def test_a_strip_has_a_row_for_each_domain(which: str, folders: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    one, other = sorted((folders / "target").iterdir())[:2]
    write_strip(request.getfixturevalue(which), one, other, tmp_path / "strip.png", "source", stops=4)
    strip = Image.open(tmp_path / "strip.png")
    assert strip.height == 2 * 64 + 3
    assert strip.width > 4 * 64


def test_between_two_styles_an_image_goes_from_the_one_to_the_other(styled_run: Run, folders: Path, tmp_path: Path) -> None:
    """Both ends are the translations in the styles of the two images, the middle that in the style between theirs."""
    one, other = sorted((folders / "target").iterdir())[:2]
    count = write_style_strips(styled_run, folders / "source", one, other, tmp_path / "strip.png", stops=3)
    shown = pictures(tmp_path / "strip.png", 1, 4)
    method, frame = styled_run.method(), styled_run.recipe.drawn_frame
    read = [to_float(next(find(path, labelled=False).decoded(frame))[1][:1]) for path in (folders / "source", one, other)]
    a, b = (method.styles(image, 1) for image in read[1:])
    expected = [read[0], *(method.translate(read[0], 0, 1, style) for style in (a, (a + b) / 2, b))]
    for now, image in zip(shown, expected, strict=True):
        drawn = picture(to_pixels(image)[0]).convert("L").resize((64, 64), Image.Resampling.NEAREST)
        assert np.abs(now - np.asarray(drawn).astype(int)).max() <= 1
    assert count == 12
    assert np.abs(pictures(tmp_path / "strip.png", 0, 4)[1] - pictures(tmp_path / "strip.png", 0, 4)[3]).max() > 0


def test_styles_are_read_by_methods_that_know_them(mapped_run: Run, folders: Path, tmp_path: Path) -> None:
    one, other = sorted((folders / "target").iterdir())[:2]
    with pytest.raises(UserError, match="reads no styles off images"):
        write_style_strips(mapped_run, folders / "source", one, other, tmp_path / "strip.png")
