"""Tables of results, for a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from uda.evaluation.results import Checked, Judged, Result, Translations
from uda.evaluation.unknown import OpenSet
from uda.text import counted

MEANINGS = {
    "source": "the source classifier on source test images",
    "source_only": "the same classifier on target test images, before adaptation",
    "refined": "the same, trained on with the source images augmented, before adaptation",
    "last": "the adapted classifier after the last step, on target test images",
    "selected": "the step with the best label-free score",
    "oracle": "the best step by target labels: only to compare with papers",
    "estimated": "last, as far as can be told without target labels",
    "estimated before": "source_only, told in the same way",
}

SEEN = {
    "all": "the source classifier on the source images that it was trained on",
    "perhaps": "the source classifier on every tenth source image, which its weights may have been trained on",
}
"""what `source` means where the classifier has seen the images before"""


def meanings(result: Result) -> dict[str, str]:
    """What each accuracy of a run is, by its name."""
    seen = result["source"].get("seen")
    return MEANINGS if seen is None else {**MEANINGS, "source": SEEN[seen]}


def result_table(result: Result) -> Table:
    """A run's accuracies, each with what it means, under the names of the data they were taken on."""
    source, target = result["source"], result["target"]
    tested = counted(target["test"], "test image") if target["test"] else "no labelled test images"
    tested = tested if "accuracy" in result else tested.replace(" labelled", "")
    table = Table(
        title=f"{result['recipe']}: {result['method']}, seed {result['seed']}",
        caption=f"source: {source['note']}\ntarget: {target['note']}, {tested}",
        title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    table.add_column("accuracy" if "accuracy" in result else "translation")
    table.add_column("", justify="right")
    table.add_column("what it is", style="dim")
    if "accuracy" in result:
        means = meanings(result)
        for name, value in result["accuracy"].items():
            if value is not None:
                table.add_row(name, f"{value:.4f}", means[name], style="bold" if name == "last" else None)
        for row in estimated_rows(result):
            table.add_row(*row)
    for name, told in result.get("open_set", {}).items():
        table.add_row(f"{name}, open set", f"{told['harmonic_mean']:.4f}", open_set_told(told))
    if (translation := result.get("translation")) is not None:
        if "class_consistency" in translation:
            table.add_row(
                "class consistency", f"{translation['class_consistency']:.4f}",
                _told(translation, "source", "an evaluation classifier", "target"),
            )  # fmt: skip
        if "pixel_accuracy" in translation:
            table.add_row("pixel accuracy", f"{translation['pixel_accuracy']:.4f}", "pixels within 16 grey levels of the truth")
        if "feature_distance" in translation:
            table.add_row(
                "feature distance", f"{translation['feature_distance']:.1f}",
                f"of translated to real target images (Fréchet; untranslated: {translation['untranslated_distance']:.1f})",
            )  # fmt: skip
        for row in further_rows(translation):
            table.add_row(*row)
    return table


def open_set_told(told: OpenSet) -> str:
    """What a harmonic mean is of."""
    unknown = f"{told['unknown']:.3f} of {told['images']:,} unknown images found"
    return f"harmonic mean: {told['known']:.3f} of known classes right, {unknown}"


def estimated_rows(result: Result) -> list[tuple[str, str, str]]:
    """Name, figure and meaning of what is estimated without target labels, and what is recommended."""
    estimated = result["estimated"]
    found = [("estimated", estimated["accuracy"], estimated["interval"])]
    if "source_only" in estimated:  # runs from before the study have no such estimate
        found.append(("estimated before", estimated["source_only"], estimated["source_only_interval"]))
    of = ""
    if "named" in estimated:
        of = f"; of the {estimated['named']:.0%} of the target images that the adapted one names"
    elif "open_set" in result:  # nobody can leave these out without labels; `last` is of images of known classes alone
        of = "; of all target images, those of unknown classes, too"
    rows = [(name, f"{value:.2f}", f"{MEANINGS[name]}{of} ({low:.2f} .. {high:.2f})") for name, value, (low, high) in found]
    if "recommended" in result:
        rows.append(("recommended", result["recommended"], result["recommended_because"] + _contradicted(result)))
    return rows


def _contradicted(result: Result) -> str:
    """What labelled target test images say, where there are some and they say the opposite of what is recommended."""
    before, after, what = result["accuracy"]["source_only"], result["accuracy"]["last"], ""
    if "open_set" in result:
        before, after = (result["open_set"][name]["harmonic_mean"] for name in ("source_only", "last"))
        what = " of the harmonic mean"
    if before is None or after is None or before == after or (after > before) == (result["recommended"] == "adapted"):
        return ""
    return f"; the labelled target test images, which it does not read, say {100 * (after - before):+.1f}{what}"


def checked_rows(checked: Checked | None) -> list[tuple[str, str, str]]:
    """Name, figure and meaning of what a few labels say of both classifiers, where there are some."""
    if checked is None:
        return []
    names = {"adapted": ("checked", "last"), "source": ("checked before", "source_only")}
    return [
        (
            name,
            f"{checked['accuracy'][which]:.3f}",
            f"{of}, by the labels of {counted(checked['labels'], 'target image')} ({low:.3f} .. {high:.3f})",
        )
        for which, (name, of) in names.items()
        for low, high in [checked["interval"][which]]
    ]


def diversity_rows(translation: Translations) -> list[tuple[str, str, str]]:
    """Name, figure and meaning of how much translations of one image differ, each way, where they are drawn."""
    rows = []
    for name, way in (("diversity", translation), ("diversity, back", translation.get("backward", {}))):
        if "diversity" in way:
            beside = f" (two real images: {way['real_diversity']:.2f})" if "real_diversity" in way else ""
            if "real_lpips" in way:
                beside += f"; LPIPS {way['lpips']:.3f} ({way['real_lpips']:.3f})"
            told = f"distance of two drawn translations of one image, in features{beside}"
            rows.append((name, f"{way['diversity']:.2f}", told))
    return rows


def further_rows(translation: Translations) -> list[tuple[str, str, str]]:
    """Name, figure and meaning of all but the first figures of translations."""
    rows = []
    if "taught_consistency" in translation:
        agreed = translation["taught_agreement"]
        told = (
            f"translated source images that a network taught by the adapted classifier gives their class ({agreed:.3f} on target)"
        )
        rows.append(("class consistency, no labels", f"{translation['taught_consistency']:.4f}", told))
    return [*rows, *diversity_rows(translation), *backward_rows(translation)]


def backward_rows(translation: Translations) -> list[tuple[str, str, str]]:
    """Name, figure and meaning of what is known of the way back, and of reconstructions."""
    if "backward" not in translation:  # older runs did not look back
        return []
    back, error, rows = translation["backward"], translation["reconstruction_error"], []
    if "class_consistency" in back:
        told = _told(back, "target", "a judge of the source", "source")
        rows.append(("class consistency, back", f"{back['class_consistency']:.4f}", told))
    if "given_consistency" in back:
        told = "translated target images that a judge of the source gives the adapted classifier's class of their image"
        rows.append(("class consistency, back, no labels", f"{back['given_consistency']:.4f}", told))
    if "feature_distance" in back:
        told = f"of translated to real source images (untranslated: {back['untranslated_distance']:.1f})"
        rows.append(("feature distance, back", f"{back['feature_distance']:.1f}", told))
    told = f"of source images, as a share of a pixel's range; of target images {error['target']:.4f}"
    return [*rows, ("reconstruction error", f"{error['source']:.4f}", told)]


def _told(found: Judged, images: str, judge: str, home: str) -> str:
    """What a class consistency is, and what to hold it against; unless the source classifier judges, `judge` knows `home`."""
    beside = f" ({found['judge_accuracy']:.3f} on {home})" if "judge_accuracy" in found else ""
    if "untranslated_consistency" in found:
        judge, beside = "the source classifier", f" (untranslated: {found['untranslated_consistency']:.4f})"
    return f"translated {images} images that {judge} gives their class{beside}"


def spread(figure: dict[str, float] | None) -> str:
    """``"0.9851 (0.9847 .. 0.9855)"``: mean, lowest and highest over the seeds; of one run, its figure alone."""
    if figure is None:
        return ""
    if figure["lowest"] == figure["highest"]:
        return f"{figure['mean']:.4f}"
    return f"{figure['mean']:.4f} ({figure['lowest']:.4f} .. {figure['highest']:.4f})"


def comparison_table(groups: list[dict[str, Any]]) -> Table:
    """What `uda.report.compare.compare` returns, a row for each group of runs; a column that no group fills is left out.

    Intervals stand below their figures, so that it fits a terminal of 80 columns.
    """
    several = any(len(group["seeds"]) > 1 for group in groups)
    columns: dict[str, list[str]] = {
        name: [] for name in ("seeds", "source_only", "last", "estimated", "use", "checked", "to the first")
    }
    for group in groups:
        difference = group.get("difference")
        columns["seeds"].append(str(len(group["seeds"])) if several else "")
        columns["source_only"].append(_over(group.get("source_only")))
        columns["last"].append(_over(group.get("last"), group.get("interval"), 3))
        columns["estimated"].append(_over(group["estimated"], group["estimated_interval"], 2))
        columns["use"].append(recommended(group))
        columns["checked"].append(
            f"{group['checked']:.3f}\n[{_span(group['checked_interval'], 2)}]" if "checked" in group else ""
        )
        columns["to the first"].append(f"{difference['mean']:+.4f}\np {difference['p']:.3f}" if difference else "")
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("runs", overflow="fold", min_width=10)
    for name in filled:
        table.add_column(name, justify="right", no_wrap=True)
    for group, *cells in zip(groups, *filled.values(), strict=True):
        table.add_row(group["name"], *cells)
    captions = {
        "seeds": "Of several seeds: their mean, and the lowest and the highest.",
        "last": "Below last: where it lies in 95 of 100 draws of seeds and test images.",
        "estimated": "Estimated: last, without target labels, and where it lies in nine of ten runs of the study.",
        "use": "Use: the classifier that is recommended by that.",
        "checked": "Checked: last, by the labels that uda check was given.",
        "to the first": "To the first: difference of last, and p of a paired test on the same test images (not of seeds).",
    }
    table.caption = "\n".join(text for name, text in captions.items() if name in filled)
    return table


def _over(figure: dict[str, float] | None, interval: tuple[float, float] | None = None, digits: int = 3) -> str:
    """A mean over the seeds; below it the lowest and the highest, where they are several, and an interval."""
    if figure is None:
        return ""
    lines = [f"{figure['mean']:.4f}" if digits > 2 else f"{figure['mean']:.2f}"]
    if figure["lowest"] != figure["highest"]:
        lines.append(_span((figure["lowest"], figure["highest"]), digits + 1))
    return "\n".join([*lines, *([f"[{_span(interval, digits)}]"] if interval else [])])


def recommended(group: dict[str, Any]) -> str:
    """Which classifier a group's runs recommend; in how many of them, where they do not agree."""
    adapted, count = group["adapted"], len(group["seeds"])
    return "adapted" if adapted == count else "source" if not adapted else f"adapted in {adapted} of {count}"


def _span(interval: tuple[float, float] | None, digits: int) -> str:
    return f"{interval[0]:.{digits}f} .. {interval[1]:.{digits}f}" if interval else ""
