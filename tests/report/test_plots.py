from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from uda.report.plots import draw_confusions, draw_curves, draw_translations
from uda.runs import RunFolder


class Mirror:
    """Turns source images to white and target images to black."""

    def translate(self, images: torch.Tensor, origin: int, destination: int) -> torch.Tensor:
        return images if origin == destination else torch.full_like(images, 1.0 if origin == 0 else -1.0)


def picture(folder: RunFolder, name: str) -> np.ndarray:
    return matplotlib.image.imread(folder.path / name)[..., :3]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_translation_grid_has_its_six_rows_in_order(tmp_path: Path, channels: int) -> None:
    folder = RunFolder(tmp_path)
    draw_translations(folder, Mirror(), torch.full((5, channels, 16, 16), 0.5), torch.full((5, channels, 16, 16), -0.5))
    pixels = picture(folder, "translations.png")
    height, width, _ = pixels.shape
    middle = [pixels[int((row + 0.5) * height / 6), int(width * 0.75)].mean() for row in range(6)]
    assert middle == pytest.approx([0.75, 0.75, 1.0, 0.25, 0.25, 0.0], abs=0.02)


def test_curves_are_drawn_for_whatever_losses_a_method_has(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rows: list[dict[str, Any]] = [{"stage": "adaptation", "step": step, "seconds": 1.0, "class": 1 / step} for step in (1, 2, 3)]
    rows[-1] |= {"scores": {"entropy": 1.5}, "target_test_accuracy": 0.5}
    draw_curves(folder, rows)
    assert picture(folder, "curves.png").std() > 0.01


def test_confusions_show_the_share_of_each_row(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    matrices = {"source_only": [[1, 9], [0, 0]], "last": [[10, 0], [0, 0]]}
    draw_confusions(folder, {"classes": ["a", "b"], "confusion": matrices, "accuracy": {"source_only": 0.1, "last": 1.0}})
    assert picture(folder, "confusion.png").shape[1] > picture(folder, "confusion.png").shape[0]
