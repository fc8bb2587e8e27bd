"""Rows of the tables in terminal and report."""

from uda.report.tables import diversity_rows


def test_diversity_stands_beside_that_of_real_images_each_way() -> None:
    back = {"diversity": 1.5, "real_diversity": 4.25, "lpips": 0.125, "real_lpips": 0.5}
    forth, back = diversity_rows({"diversity": 2.0, "backward": back})
    assert forth == ("diversity", "2.00", "distance of two drawn translations of one image, in features")
    assert back[:2] == ("diversity, back", "1.50")
    assert back[2].endswith("in features (two real images: 4.25); LPIPS 0.125 (0.500)")
    assert diversity_rows({"feature_distance": 1.0, "backward": {}}) == []
