"""Cities, drawn twice; and the real pairs, where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uda.data.datasets.city import MAP_COLOURS, draw_cities, load_city


def test_maps_have_flat_colours_and_views_have_not() -> None:
    aerial, maps = draw_cities(6, 0, 64)
    assert aerial.shape == maps.shape == (6, 3, 64, 64)
    colours = {tuple(pixel) for pixel in maps.permute(0, 2, 3, 1).reshape(-1, 3).tolist()}
    assert colours <= set(MAP_COLOURS)
    assert len(colours) >= 4
    assert len(aerial.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0)) > 1000


def test_a_view_shows_the_city_of_its_map() -> None:
    """Parks are green in both: where a map has park, its own view is greener than another city's view is there."""
    aerial, maps = draw_cities(40, 1, 64)
    park = (maps == torch.tensor(MAP_COLOURS[1], dtype=torch.uint8).view(1, 3, 1, 1)).all(1)
    green = aerial[:, 1].float() - aerial[:, 0].float()
    assert green[park].mean() > green.roll(1, 0)[park].mean() + 10


def test_training_cities_differ_between_domains_and_test_cities_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("uda.data.datasets.city.COUNTS", {"train": 4, "test": 4})
    drawn = {split: draw_cities(4, seed, 32)[1] for split, seed in (("test", 2), ("train", 1))}
    assert torch.equal(load_city("map", "test", (tmp_path,), 32, 3).images, drawn["test"])
    assert torch.equal(load_city("map", "train", (tmp_path,), 32, 3).images, drawn["train"])
    assert torch.equal(load_city("aerial", "test", (tmp_path,), 32, 3).images, draw_cities(4, 2, 32)[0])
    assert not torch.equal(load_city("aerial", "train", (tmp_path,), 32, 3).images, draw_cities(4, 1, 32)[0])


def test_real_pairs_are_cut_in_two_and_training_halves_are_of_different_files(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "maps" / split).mkdir(parents=True)
        for number in range(4):
            both = np.zeros((40, 80, 3), np.uint8)
            both[:, :40], both[:, 40:] = 10 * number, 200 + 10 * number
            Image.fromarray(both).save(tmp_path / "maps" / split / f"{number}.jpg", quality=100)
    levels = {
        (view, split): load_city(view, split, (tmp_path,), 32, 3).images.float().mean((1, 2, 3)).tolist()
        for view in ("aerial", "map")
        for split in ("train", "test")
    }
    assert levels["aerial", "test"] == pytest.approx([0, 10, 20, 30], abs=2)
    assert levels["map", "test"] == pytest.approx([200, 210, 220, 230], abs=2)
    assert levels["aerial", "train"] == pytest.approx([0, 10], abs=2)
    assert levels["map", "train"] == pytest.approx([220, 230], abs=2)
    assert "Isola" in load_city("map", "test", (tmp_path,), 32, 3).note
