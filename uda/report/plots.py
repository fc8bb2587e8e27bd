"""Pictures of a run, written into its folder."""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from uda.models.layers import SOURCE, TARGET
from uda.runs import RunFolder, whole

INK, MUTED = "#1f2430", "#6b7280"
ACCENTS = ("#2563eb", "#d97706", "#059669", "#be185d")


def _save(folder: RunFolder, name: str, figure: Figure) -> None:
    with whole(folder.path / name) as path:
        figure.savefig(path, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def draw_translations(folder: RunFolder, method: Any, source: Tensor, target: Tensor) -> None:
    """``translations.png``: rows source, its reconstruction, source -> target, target, its reconstruction, target -> source.

    `source` and `target`: float images (n, C, S, S) in -1..1 on the method's device.
    """
    rows = [
        ("source", source),
        ("reconstruction", method.translate(source, SOURCE, SOURCE)),
        ("source \u2192 target", method.translate(source, SOURCE, TARGET)),
        ("target", target),
        ("reconstruction", method.translate(target, TARGET, TARGET)),
        ("target \u2192 source", method.translate(target, TARGET, SOURCE)),
    ]
    count = len(source)
    figure, axes = plt.subplots(len(rows), 1, figsize=(0.72 * count + 1.6, 0.76 * len(rows)), squeeze=False)
    for axis, (label, images) in zip(axes[:, 0], rows, strict=True):
        pixels = ((images.float().clamp(-1, 1) + 1) / 2).cpu().permute(0, 2, 3, 1).numpy()
        gap = np.ones((pixels.shape[1], 2, pixels.shape[3]))
        strip = np.concatenate([part for image in pixels for part in (image, gap)][:-1], 1)
        axis.imshow(strip.squeeze(-1) if strip.shape[-1] == 1 else strip, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_ylabel(label, rotation=0, ha="right", va="center", color=INK, fontsize=10, labelpad=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.subplots_adjust(hspace=0.06)
    _save(folder, "translations.png", figure)


# Which losses share a panel of the curves: each entry's title, and the losses (of those a method has) that it shows.
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("class losses", ("class", "translated_class", "generator_class")),
    ("entropy of target predictions, and of their mean (nats)", ("target_entropy", "target_marginal_entropy")),
    ("pseudo-labels", ("pseudo_label",)),
    ("adversarial", ("discriminator_adversarial", "generator_adversarial")),
    ("reconstruction and cycle (sum over pixels)", ("reconstruction", "cycle")),
    ("KL of the codes", ("kl", "cycle_kl")),
    ("feature matching", ("feature",)),
)
NO_LOSSES = {"stage", "step", "seconds", "scores", "target_test_accuracy", "target_mean_entropy"}


def draw_curves(folder: RunFolder, rows: list[dict[str, Any]]) -> None:
    """``curves.png``: accuracy and label-free score at each look, then the losses over the steps of the adaptation."""
    looks = [row | row["scores"] for row in rows if "scores" in row]
    named = set().union(*(row.keys() for row in rows))
    panels = [(title, [name for name in names if name in named]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names]
    shown = {name for _, names in PANELS for name in names} | NO_LOSSES
    panels += [(name.replace("_", " "), [name]) for name in sorted(named - shown)]
    grid = (len(panels) + 3) // 2
    figure, axes = plt.subplots(grid, 2, figsize=(10, 2.3 * grid), layout="constrained")
    flat = list(axes.flat)
    if "target_test_accuracy" in named:
        _curve(flat[0], "accuracy on target test images (for your eyes only)", looks, ["target_test_accuracy"])
    else:
        _curve(flat[0], "mean entropy on target images (nats)", looks, ["target_mean_entropy"])
    scores = list(looks[0]["scores"])
    _curve(flat[1], "label-free score: " + " and ".join(scores).replace("_", " "), looks, scores)
    for axis, (title, names) in zip(flat[2:], panels, strict=False):
        _curve(axis, title, rows, names)
    for axis in flat[2 + len(panels) :]:
        axis.set_visible(False)
    for axis in flat:
        axis.set_xlabel("step", fontsize=8, color=MUTED)
    _save(folder, "curves.png", figure)


def _curve(axis: Any, title: str, rows: list[dict[str, Any]], names: list[str]) -> None:
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    for name, colour in zip(names, ACCENTS, strict=False):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(
            *zip(*points, strict=True),
            color=colour,
            linewidth=1.4,
            marker="o" if len(points) < 20 else None,
            markersize=3,
            label=name,
        )
    if len(names) > 1:
        axis.legend(fontsize=7, frameon=False)
    axis.tick_params(labelsize=8, colors=MUTED)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.5)


def draw_confusions(folder: RunFolder, result: dict[str, Any]) -> None:
    """``confusion.png``: target test images by true class (rows) and predicted class, before and after, in percent of the row."""
    classes = result["classes"]
    figure, axes = plt.subplots(1, 2, figsize=(0.5 * len(classes) * 2 + 2.5, 0.5 * len(classes) + 1), layout="constrained")
    for axis, key, title in zip(axes, ("source_only", "last"), ("before adaptation", "after"), strict=True):
        matrix = np.array(result["confusion"][key], float)
        share = 100 * matrix / np.maximum(1, matrix.sum(1, keepdims=True))
        axis.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for row, column in zip(*np.nonzero(share >= 0.5), strict=True):
            value = share[row, column]
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color="white" if value > 55 else INK)
        axis.set_title(f"{title}: {result['accuracy'][key]:.1%}", fontsize=10, loc="left", color=INK)
        axis.set_xticks(range(len(classes)), classes, fontsize=8)
        axis.set_yticks(range(len(classes)), classes, fontsize=8)
        axis.set_xlabel("predicted", fontsize=8, color=MUTED)
        axis.set_ylabel("true", fontsize=8, color=MUTED)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    _save(folder, "confusion.png", figure)
