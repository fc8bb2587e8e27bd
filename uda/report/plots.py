"""Plots of a run, as SVG for a page, in that page's colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

INK, MUTED = "#1f2430", "#6b7280"
ACCENTS = ("#2563eb", "#d97706", "#059669", "#be185d")
BEFORE, AFTER = ACCENTS[1], ACCENTS[0]
# A page says what these are in light and in dark; everything else in a picture keeps its colour.
VARIABLES = {INK: "--ink", MUTED: "--muted"} | {hue: f"--accent-{n}" for n, hue in enumerate(ACCENTS, 1)}
PANEL = (4.2, 1.9)  # inches: two side by side fill the page, one fills a phone


def svg(figure: Figure, what: str) -> str:
    """An inline SVG whose colours are the page's variables, with `what` as its text for those who cannot see it."""
    for axis in figure.axes:
        axis.set_facecolor("none")
        axis.tick_params(labelsize=8, colors=MUTED)
        for label in (axis.xaxis.label, axis.yaxis.label):
            label.set_color(MUTED)
        for spine in axis.spines.values():
            spine.set_color(MUTED)
    for written in figure.findobj(Text):
        assert isinstance(written, Text)
        written.set_parse_math(False)  # a class may be called $x
        written.set_usetex(False)  # whatever the user's own settings are
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": what}), warnings.catch_warnings():
        # Text stays text, which the reader's own fonts draw; names differ by picture.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Its own size in points would not shrink with a narrow page.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    words = what.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)


# Which losses share a panel of the curves: each entry's title, and the losses (of those a method has) that it shows.
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("class losses", ("class", "translated_class", "target_stem_class", "generator_class")),
    ("entropy of target predictions, and of their mean (nats)", ("target_entropy", "target_marginal_entropy")),
    ("pseudo-labels", ("pseudo_label",)),
    ("adversarial", ("discriminator_adversarial", "generator_adversarial")),
    ("reconstruction and cycle", ("reconstruction", "cycle")),
    ("KL of the codes", ("kl", "cycle_kl")),
    ("feature matching", ("feature",)),
)
NO_LOSSES = {"stage", "step", "seconds", "scores", "target_test_accuracy", "target_mean_entropy"}


def draw_evaluations(evaluations: list[dict[str, Any]], selected: int) -> list[str]:
    """Over the steps: accuracy on target test images, where it is known, mean entropy on the target, and each label-free score.

    A dashed line marks the selected step.
    """
    curves = {}
    if "target_test_accuracy" in evaluations[0]:
        curves["accuracy on target test images"] = [row["target_test_accuracy"] for row in evaluations]
    curves["mean entropy on the target (nats)"] = [row["target_mean_entropy"] for row in evaluations]
    for name in evaluations[0]["scores"]:
        curves[name.replace("_", " ")] = [row["scores"][name] for row in evaluations]
    steps = [row["step"] for row in evaluations]
    return [_curve(title, {title: list(zip(steps, values, strict=True))}, selected) for title, values in curves.items()]


def draw_losses(rows: list[dict[str, Any]]) -> list[str]:
    """The losses over the steps of the adaptation, one panel for those that belong together."""
    named = set().union(*(row.keys() for row in rows))
    panels = [(title, [name for name in names if name in named]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names]
    shown = {name for _, names in PANELS for name in names} | NO_LOSSES
    panels += [(name.replace("_", " "), [name]) for name in sorted(named - shown)]
    return [
        _curve(title, {name: [(row["step"], row[name]) for row in rows if name in row] for name in names})
        for title, names in panels
    ]


def _panel(size: tuple[float, float], left: float, right: float, bottom: float, top: float) -> tuple[Figure, Any]:
    """A figure of so many inches with margins of so many: to find margins that fit takes longer than all else of a page."""
    width, height = size
    figure = plt.figure(figsize=size)
    return figure, figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    )


def _curve(title: str, lines: dict[str, list[tuple[int, float]]], mark: int | None = None) -> str:
    """Lines of (step, value), and a dashed line at the step `mark`."""
    figure, axis = _panel(PANEL, left=0.45, right=0.1, bottom=0.25, top=0.25)
    if mark is not None:
        axis.axvline(mark, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    for (name, points), colour in zip(lines.items(), ACCENTS, strict=False):
        few = len(points) < 20
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, marker="o" if few else None, markersize=3, label=name)
    if len(lines) > 1:
        axis.legend(fontsize=7, frameon=False, labelcolor=MUTED)
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3, linewidth=0.5, color=MUTED)
    ends = "; ".join(
        f"{name} from {points[0][1]:.3g} at step {points[0][0]} to {points[-1][1]:.3g} at {points[-1][0]}"
        for name, points in lines.items()
    )
    return svg(figure, ends)


def _before_and_after(
    names: Sequence[str], before: Sequence[float], after: Sequence[float], called: tuple[str, str], what: str, height: float
) -> tuple[Figure, Any]:
    """A line for each name, from a dot before to a dot after; `called`: the dots' names, `what`: the axis's, `height`: inches."""
    rows = range(len(names))
    figure, axis = plt.subplots(figsize=(PANEL[0] * 1.4, height * len(names) + 0.9), layout="constrained")
    axis.hlines(rows, before, after, color=MUTED, linewidth=1, zorder=1)
    for values, colour, label in ((before, BEFORE, called[0]), (after, AFTER, called[1])):
        axis.scatter(values, rows, color=colour, s=26, label=label, zorder=3)
    axis.set_yticks(rows, names)
    axis.invert_yaxis()
    axis.set_xlabel(what, fontsize=8)
    axis.legend(fontsize=8, frameon=False, labelcolor=MUTED, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
    axis.grid(axis="x", alpha=0.3, linewidth=0.5, color=MUTED)
    return figure, axis


def draw_classes(classes: Sequence[str], before: Sequence[float | None], after: Sequence[float | None]) -> str:
    """Accuracy of each class before and after, on one line each."""
    rows = [(name, b, a) for name, b, a in zip(classes, before, after, strict=True) if b is not None and a is not None]
    names, starts, ends = zip(*rows, strict=True)
    axis_name = "share of the class's target test images that are right"
    figure, _ = _before_and_after(names, starts, ends, ("before", "after"), axis_name, 0.26)
    words = "; ".join(f"{name}: {b:.0%} to {a:.0%}" for name, b, a in rows)
    return svg(figure, f"Accuracy by class, before and after: {words}")


def draw_reliability(title: str, points: list[tuple[int, float, float]]) -> str:
    """Accuracy over confidence; circles grow with the number of images, and the dashed line is perfect calibration.

    `points`: what `uda.evaluation.calibration.reliability` returns.
    """
    figure, axis = _panel((2.8, 2.9), left=0.5, right=0.1, bottom=0.45, top=0.25)
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    counts, confidence, right = zip(*points, strict=True)
    axis.plot(confidence, right, color=ACCENTS[0], linewidth=1)
    axis.scatter(confidence, right, s=[12 + 240 * count / sum(counts) for count in counts], color=ACCENTS[0], alpha=0.7)
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    axis.set_xlim(0, 1.1)  # the largest circle is at 1
    axis.set_ylim(0, 1.1)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    axis.set_xlabel("confidence", fontsize=8)
    axis.set_ylabel("share that is right", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    most = max(points)
    return svg(figure, f"Reliability {title}: of {most[0]} images with a confidence about {most[1]:.0%}, {most[2]:.0%} are right")


def class_colours(count: int) -> list[str]:
    """A colour for each class, as #rrggbb."""
    hues = matplotlib.colormaps["tab10" if count <= 10 else "turbo"]
    return [matplotlib.colors.to_hex(hues(k if count <= 10 else k / (count - 1))) for k in range(count)]


def draw_map(title: str, places: np.ndarray, labels: np.ndarray, of_target: np.ndarray, classes: int) -> str:
    """A map of features: a hollow circle for a source image, a full one for a target image, coloured by class.

    Shapes: positions (n, 2), classes (n,), and whether each is of the target (n,).
    """
    figure, axis = _panel((4.2, 4.2), left=0.05, right=0.05, bottom=0.05, top=0.25)
    for k, colour in enumerate(class_colours(classes)):
        source, target = places[(labels == k) & ~of_target], places[(labels == k) & of_target]
        axis.scatter(source[:, 0], source[:, 1], s=9, facecolors="none", edgecolors=colour, linewidths=0.6)
        axis.scatter(target[:, 0], target[:, 1], s=7, color=colour, linewidths=0)
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    return svg(
        figure, f"Features {title} in two dimensions (t-SNE), {(~of_target).sum()} source and {of_target.sum()} target images"
    )


def draw_groups(groups: list[dict[str, Any]]) -> str:
    """Accuracy on target test images, a line for each group: before, after, and the span of the seeds."""
    names = [group["name"] for group in groups]
    before, after = ([group[figure]["mean"] for group in groups] for figure in ("source_only", "last"))
    axis_name = "accuracy on target test images (band: lowest to highest seed)"
    figure, axis = _before_and_after(names, before, after, ("source only", "last"), axis_name, 0.4)
    for name, colour in (("source_only", BEFORE), ("last", AFTER)):
        lows, highs = [group[name]["lowest"] for group in groups], [group[name]["highest"] for group in groups]
        axis.hlines(range(len(groups)), lows, highs, color=colour, linewidth=5, alpha=0.45, zorder=2)
    words = "; ".join(f"{name}: {b:.2%} to {a:.2%}" for name, b, a in zip(names, before, after, strict=True))
    return svg(figure, f"Accuracy before and after: {words}")
