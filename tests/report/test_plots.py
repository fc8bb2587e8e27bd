import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from uda.report import plots


def rows() -> list[dict[str, Any]]:
    """A method's own losses, one of which is not there from the start, and two evaluations."""
    logged: list[dict[str, Any]] = [
        {"stage": "adaptation", "step": step, "seconds": 1.0, "class": 1 / step} for step in (1, 2, 3)
    ]
    logged[2]["discrepancy"] = 0.5
    for row in logged[1:]:
        row |= {"scores": {"entropy": 1.5}, "target_mean_entropy": 0.4, "target_test_accuracy": 0.5}
    return logged


DRAWN = {
    "losses": lambda: plots.draw_losses(rows()),
    "evaluations": lambda: plots.draw_evaluations(rows()[1:], 2),
    "classes": lambda: [plots.draw_classes(["a & b", 'the "c"', "d"], [0.5, 0.1, None], [0.9, 0.05, 1.0])],
    "reliability": lambda: [plots.draw_reliability("before", [(3, 0.5, 0.4), (9, 0.9, 1.0)])],
    "map": lambda: [plots.draw_map("after", np.random.default_rng(0).random((6, 2)), np.arange(6) % 3, np.arange(6) > 2, 3)],
}


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_are_well_formed_tell_what_they_show_and_take_the_pages_colours(name: str) -> None:
    for picture in DRAWN[name]():
        root = ET.fromstring(picture)
        assert root.get("role") == "img"
        assert len(root.get("aria-label", "")) > 10
        assert root.get("width") is None  # it fits the column that it is in
        assert not set(re.findall(r"#[0-9a-f]{6}", picture)) & plots.VARIABLES.keys()
        assert "var(--" in picture


def test_what_one_class_without_images_does_not_hide_the_others() -> None:
    (picture,) = DRAWN["classes"]()
    assert "a & b: 50% to 90%" in (ET.fromstring(picture).get("aria-label") or "")
    assert "d:" not in picture


def test_every_loss_is_in_one_panel() -> None:
    labels = [ET.fromstring(picture).get("aria-label") or "" for picture in plots.draw_losses(rows())]
    assert sum("class from 1 at step 1" in label for label in labels) == 1
    assert sum("discrepancy from 0.5 at step 3" in label for label in labels) == 1


def test_names_in_two_pictures_do_not_meet() -> None:
    def names(picture: str) -> set[str]:
        return set(re.findall(r'<clipPath id="([^"]+)"', picture))

    first, second = DRAWN["evaluations"]()[:2]
    assert names(first)
    assert not names(first) & names(second)
