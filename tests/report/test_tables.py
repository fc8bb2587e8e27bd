"""Rows of the tables in terminal and report."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from uda.evaluation.results import read_result
from uda.report.tables import diversity_rows, estimated_rows, further_rows, meanings, result_table
from uda.runs.run import Run


def less_by_one(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A nested table without one of its keys, each in turn."""
    for key, value in given.items():
        yield {name: other for name, other in given.items() if name != key}
        if isinstance(value, dict):
            yield from (given | {key: less} for less in less_by_one(value))


def test_a_result_that_lacks_a_figure_is_shown_or_refused_when_it_is_read(own_run: Run) -> None:
    assert "feature_distance" in own_run.result["translation"]["backward"]
    for less in less_by_one(copy.deepcopy(own_run.result)):
        with suppress(ValueError):
            result_table(read_result(json.dumps(less).encode(), classifies=True))


def test_diversity_stands_beside_that_of_real_images_each_way() -> None:
    back = {"diversity": 1.5, "real_diversity": 4.25, "lpips": 0.125, "real_lpips": 0.5}
    forth, back = diversity_rows({"diversity": 2.0, "backward": back})
    assert forth == ("diversity", "2.00", "distance of two drawn translations of one image, in features")
    assert back[:2] == ("diversity, back", "1.50")
    assert back[2].endswith("in features (two real images: 4.25); LPIPS 0.125 (0.500)")
    assert diversity_rows({"feature_distance": 1.0, "backward": {}}) == []


def test_what_the_taught_network_reads_is_shown() -> None:
    taught = {"taught_consistency": 0.8, "taught_agreement": 0.9}
    ((name, figure, told),) = further_rows(taught)
    assert (name, figure) == ("class consistency, no labels", "0.8000")
    assert "(0.900 on target)" in told


def test_classes_of_the_way_back_are_shown_where_the_target_has_no_labels() -> None:
    error = {"source": 0.02, "target": 0.03}
    (name, figure, told), _ = further_rows({"backward": {"given_consistency": 0.7}, "reconstruction_error": error})
    assert (name, figure) == ("class consistency, back, no labels", "0.7000")
    assert "the adapted classifier's class" in told


def test_where_some_images_are_of_unknown_classes_the_estimate_is_said_to_count_them() -> None:
    result: Any = {"estimated": {"accuracy": 0.8, "interval": (0.7, 0.9)}}
    assert "unknown" not in estimated_rows(result)[0][2]
    assert "of all target images, those of unknown classes, too (0.70 .. 0.90)" in estimated_rows(result | {"open_set": {}})[0][2]


def test_an_estimate_of_named_images_says_how_many_these_are() -> None:
    result: Any = {"estimated": {"accuracy": 0.8, "interval": (0.7, 0.9), "named": 0.64}, "open_set": {}}
    assert "of the 64% of the target images that the adapted one names (0.70 .. 0.90)" in estimated_rows(result)[0][2]


def test_where_classes_are_unknown_labels_contradict_a_recommendation_by_the_harmonic_mean() -> None:
    told = {name: {"harmonic_mean": mean} for name, mean in (("source_only", 0.9), ("last", 0.7))}
    result: Any = {
        "estimated": {"accuracy": 0.8, "interval": (0.7, 0.9)}, "accuracy": {"source_only": 0.8, "last": 0.9},
        "recommended": "adapted", "recommended_because": "why", "open_set": told,
    }  # fmt: skip
    assert estimated_rows(result)[-1][2].endswith("say -20.0 of the harmonic mean")
    told["last"]["harmonic_mean"] = 0.95
    assert estimated_rows(result)[-1][2] == "why"


def test_the_source_accuracy_says_where_the_classifier_may_have_seen_the_images(own_run: Run) -> None:
    assert own_run.result["source"]["seen"] == "perhaps", "its weights were given, and a tenth of the folder is tested on"
    assert meanings(own_run.result)["source"].endswith("which its weights may have been trained on")


def test_and_where_it_was_trained_on_them(own_run: Run) -> None:
    whole = copy.deepcopy(own_run.result)
    whole["source"]["seen"] = "all"
    assert meanings(whole)["source"] == "the source classifier on the source images that it was trained on"
    del whole["source"]["seen"]
    assert meanings(whole)["source"] == "the source classifier on source test images"
