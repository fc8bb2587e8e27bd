"""``report.html``: one file that tells what a run did, made from the run folder alone."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from uda.atomic import atomic_write
from uda.console import duration
from uda.evaluation.calibration import reliability
from uda.evaluation.evaluator import Seen
from uda.evaluation.results import looks_of
from uda.report import plots
from uda.report.tables import MEANINGS, spread
from uda.runs.folder import RunFolder

MAPPED = 500  # images of each domain in a feature map: t-SNE of them takes seconds


def write_report(run: Path) -> Path:
    """Writes ``report.html`` into a finished run's folder, from what lies there; returns its path.

    Raises:
        UserError: where the folder is not a finished run's, or a file in it is damaged.
    """
    folder = RunFolder.open(run)
    result, setting, rows = folder.read_json("result.json"), folder.read_json("environment.json"), folder.read_metrics()
    rows = [row for row in rows if row["stage"] == "adaptation"]
    pictures = run / "translations.png"
    always = {
        "result": result, "setting": setting, "recipe": folder.recipe.to_toml(), "losses": plots.draw_losses(rows),
        "seconds": {name: duration(value) for name, value in result["seconds"].items()},
        "translations": _uri(pictures.read_bytes()) if pictures.exists() else None,
    }  # fmt: skip
    if not folder.recipe.classifies:
        folder.write_text("report.html", _environment().get_template("translation.html.j2").render(**always))
        return run / "report.html"
    seen = {name: folder.read_seen(name) for name in ("source_only", "last")}
    labelled = "confusion" in result
    looks = looks_of(rows)
    folder.write_text(
        "report.html",
        _environment().get_template("run.html.j2").render(
            **always,
            labelled=labelled,
            meanings=MEANINGS,
            advice=_advice(result),
            looks=plots.draw_looks(looks, result["selection"]["selected_step"]),
            per_class=plots.draw_classes(result["classes"], *result["per_class"].values()) if labelled else None,
            confusion=_shares(result["confusion"]) if labelled else None,
            calibration=_calibration(seen, result) if labelled else None,
            features=[
                plots.draw_map(title, *_placed(seen[name]), len(result["classes"]))
                for name, title in {"source_only": "before", "last": "after"}.items()
            ],
            colours=plots.class_colours(len(result["classes"])),
            examples=_examples(folder),
        ),
    )  # fmt: skip
    return run / "report.html"


def write_comparison(groups: list[dict[str, Any]], out: Path) -> Path:
    """Writes a page about what `uda.comparing.compare` returns; returns its path."""
    tested = all("last" in group for group in groups)
    page = _environment().get_template("comparison.html.j2").render(
        groups=groups,
        tested=tested,
        several=any("agreement" in group for group in groups),
        spread=spread,
        seconds=[duration(group["seconds"]["mean"]) for group in groups],
        picture=plots.draw_groups(groups) if tested else None,
    )  # fmt: skip
    with atomic_write(out) as path:
        path.write_text(page, encoding="utf-8")
    return out


def _environment() -> Environment:
    place = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=place, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _advice(result: dict[str, Any]) -> list[str]:
    """What to try next, as it follows from the run; the warnings' own advice comes first."""
    steps = [f"{warning['advice'][0].upper()}{warning['advice'][1:]}." for warning in result["warnings"]]
    accuracy, selected = result["accuracy"], result["selection"]["selected_step"]
    if selected < result["steps"]:
        steps.append(
            f"The label-free score was best at step {selected} of {result['steps']}: compare its predictions with the last "
            "step's (uda predict --which selected)."
        )
    if accuracy["last"] is None:
        steps.append(
            "Label a hundred target images, chosen at random, and run uda evaluate on them: no estimate is worth as much."
        )
    elif abs(result["estimated"]["accuracy"] - accuracy["last"]) > 0.05:
        steps.append(
            "The estimate without labels is far from the true accuracy here: do not trust it on other targets of this kind."
        )
    if "calibration_error" in result and result["calibration_error"]["last_calibrated"] > result["calibration_error"]["last"]:
        steps.append("The temperature made probabilities less true on these test images: the estimate that it rests on is off.")
    steps.append("Run several seeds (--seeds 3): one run's figure may be luck.")
    return steps


def _shares(matrices: dict[str, list[list[int]]]) -> dict[str, list[list[int | None]]]:
    """Confusion matrices in percent of the row; None for a class without images."""
    return {
        name: [[round(100 * count / sum(row)) if sum(row) else None for count in row] for row in matrix]
        for name, matrix in matrices.items()
    }


def _calibration(seen: dict[str, Seen], result: dict[str, Any]) -> list[str]:
    before, after = seen["source_only"].test, seen["last"].test
    assert before is not None
    assert after is not None
    temperature = result["calibration"]["temperature"]
    curves = {
        "before": reliability(before.logits, before.labels),
        "after": reliability(after.logits, after.labels),
        f"after, temperature {temperature:.2f}": reliability(after.logits / temperature, after.labels),
    }
    return [plots.draw_reliability(title, points) for title, points in curves.items()]


def _placed(seen: Seen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t-SNE positions (n, 2) of source and target features, classes (of the target, as predicted), and which are the target's."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    evidence = seen.evidence
    assert evidence.source_features is not None
    assert evidence.source_labels is not None
    source, target = evidence.source_features[:MAPPED], evidence.target_features[:MAPPED]
    features = F.normalize(torch.cat([source, target]).float(), dim=1).numpy()
    features = PCA(min(30, *features.shape), random_state=0).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    where = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    labels = torch.cat([evidence.source_labels[:MAPPED], evidence.target_logits[:MAPPED].argmax(1)]).numpy()
    return where, labels, np.arange(len(where)) >= len(source)


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _examples(folder: RunFolder) -> list[dict[str, Any]]:
    """The images that the run kept as telling, each with what it was taken for, and how surely."""
    from PIL import Image

    kept, shown = folder.read_examples(), []
    for image, label, predicted, confidence in zip(*kept, strict=True):
        pixels = image.permute(1, 2, 0).squeeze(-1).numpy()
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        shown.append(
            {"uri": _uri(out.getvalue()), "label": int(label), "predicted": int(predicted), "confidence": float(confidence)}
        )
    return shown
