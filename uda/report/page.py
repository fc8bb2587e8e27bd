"""Pages: ``report.html``, one file that tells what a run did, and the comparison of several."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from uda.atomic import atomic_write
from uda.console import duration
from uda.evaluation.calibration import reliability
from uda.evaluation.diagnostics import to_look_at
from uda.evaluation.evaluator import Examples
from uda.evaluation.outputs import Outputs
from uda.evaluation.results import Checked, Result, Row, evaluations
from uda.report import plots
from uda.report.grids import picture
from uda.report.tables import checked_rows, estimated_rows, further_rows, meanings, recommended, spread
from uda.runs.run import Run

SHOWN = 24  # images of each domain on the page about two of them
MAPPED = 300  # images of each domain in a feature map: t-SNE of them takes seconds


@dataclass(frozen=True)
class Material:
    """All that the page of one run is made of.

    Attributes:
        result: what ``result.json`` holds.
        environment: what ``environment.json`` holds.
        recipe: the resolved recipe, as TOML.
        rows: of the adaptation, from ``metrics.jsonl``.
        outputs: of the classifiers ``"source_only"`` and ``"last"``; of a run without a classifier, none.
        examples: target images worth a look; of a run without a classifier, none.
        translations: the picture of translations, a PNG, where the method makes some.
        checked: what labels of a few target images say, where somebody has given them.
    """

    result: Result
    environment: dict[str, Any]
    recipe: str
    rows: list[Row]
    outputs: dict[str, Outputs]
    examples: Examples | None
    translations: bytes | None
    checked: Checked | None = None


def material_of(run: Run) -> Material:
    """What the page of a finished run is made of, read back.

    Raises:
        UserError: where a file is missing or damaged.
    """
    return Material(
        run.result,
        run.environment,
        run.recipe.to_toml(),
        [row for row in run.metrics if row["stage"] == "adaptation"],
        {name: run.outputs(name) for name in ("source_only", "last")} if run.recipe.classifies else {},
        run.examples if run.recipe.classifies else None,
        run.translations,
        run.checked,
    )


def write_report(material: Material, out: Path) -> Path:
    """Writes the page of one run; returns its path."""
    result, classifies = material.result, bool(material.outputs)
    values: dict[str, Any] = {
        "result": result, "setting": material.environment, "recipe": material.recipe,
        "losses": plots.draw_losses(material.rows),
        "seconds": {name: duration(value) for name, value in result["seconds"].items()},
        "translations": _uri(material.translations) if material.translations else None,
    }  # fmt: skip
    if (translation := result.get("translation")) is not None:
        values["further"] = further_rows(translation)
    if classifies:
        values |= _about_the_classifier(material)
    template = _environment().get_template("run.html.j2" if classifies else "translation.html.j2")
    with atomic_write(out) as path:
        path.write_text(template.render(**values), encoding="utf-8", errors="backslashreplace")
    return out


def _about_the_classifier(material: Material) -> dict[str, Any]:
    result, outputs = material.result, material.outputs
    labelled, classes, evaluated = "confusion" in result, result["classes"], evaluations(material.rows)
    return {
        "labelled": labelled,
        "meanings": meanings(result),
        "advice": _advice(result, material.checked),
        "checked": material.checked,
        "estimated": [*estimated_rows(result), *checked_rows(material.checked)],
        "open_set": list(result.get("open_set", {}).items()),
        # One point is no curve.
        "evaluations": plots.draw_evaluations(evaluated, result["selection"]["selected_step"]) if len(evaluated) > 1 else [],
        "per_class": plots.draw_classes(classes, *result["per_class"].values()) if labelled else None,
        "confusion": _shares(result["confusion"]) if labelled else None,
        "calibration": _calibration(outputs, result) if labelled else None,
        "features": [
            plots.draw_map(title, *places, len(classes))
            for name, title in {"source_only": "before", "last": "after"}.items()
            if (places := placed(outputs[name])) is not None
        ],
        "colours": plots.class_colours(len(classes)),
        "examples": _examples(material.examples) if material.examples else [],
    }


def write_comparison(groups: list[dict[str, Any]], out: Path) -> Path:
    """Writes a page about what `uda.report.compare.compare` returns; returns its path."""
    tested = all("last" in group for group in groups)
    page = _environment().get_template("comparison.html.j2").render(
        groups=groups,
        tested=tested,
        several=any("agreement" in group for group in groups),
        checked=any("checked" in group for group in groups),
        recommended=recommended,
        spread=spread,
        seconds=[duration(group["seconds"]["mean"]) for group in groups],
        picture=plots.draw_groups(groups) if tested else None,
    )  # fmt: skip
    with atomic_write(out) as path:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return out


def write_inspection(seen: dict[str, Any], out: Path) -> Path:
    """Writes the page about two domains, of which `seen` is what `uda.training.inspect.inspect` returns; returns its path."""
    sides = {"source": seen["source"], "target": seen["target"]}
    pictures = {name: [_picture(image) for image in side.images[:SHOWN]] for name, side in sides.items()}
    page = _environment().get_template("inspection.html.j2").render(seen=seen, sides=sides, pictures=pictures)
    with atomic_write(out) as path:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return out


def question_page(state: dict[str, Any]) -> str:
    """The page that asks what is to be seen on images; `state` is what its script starts from (`uda.inference.answering`)."""
    return _environment().get_template("question.html.j2").render(state=state)


@cache
def _environment() -> Environment:
    place = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=place, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _advice(result: Result, checked: Checked | None) -> list[str]:
    """What to try next, as it follows from the run; the warnings' own advice comes first."""
    steps = [f"{warning['advice'][0].upper()}{warning['advice'][1:]}." for warning in result["warnings"]]
    accuracy, selected = result["accuracy"], result["selection"]["selected_step"]
    if selected < result["steps"]:
        steps.append(
            f"The label-free score was best at step {selected} of {result['steps']}: compare its predictions with the last "
            "step's (uda predict --which selected)."
        )
    if accuracy["last"] is None and checked is None:
        told = to_look_at(result["target"]["train"])
        steps.append(
            f"Look at {told} of the target with uda check RUN, which chooses and shows them: no estimate is worth as much."
        )
    elif (
        accuracy["last"] is not None
        and "open_set" not in result  # then the one is of known classes alone
        and abs(result["estimated"]["accuracy"] - accuracy["last"]) > 0.05
    ):
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


def _calibration(outputs: dict[str, Outputs], result: Result) -> list[str]:
    before, after = outputs["source_only"].test, outputs["last"].test
    assert before is not None
    assert after is not None
    temperature = result["calibration"]["temperature"]
    curves = {
        "before": reliability(*before),
        "after": reliability(*after),
        f"after, temperature {temperature:.2f}": reliability(after[0] / temperature, after[1]),
    }
    return [plots.draw_reliability(title, points) for title, points in curves.items()]


def placed(outputs: Outputs) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """t-SNE positions (n, 2) of source and target features, classes (of the target, as predicted), and which are the target's.

    None where all features are alike, as those of a network of dead units: t-SNE ends the process then.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    assert outputs.source_features is not None
    source, target = outputs.source_features[:MAPPED], outputs.target_features[:MAPPED]
    features = F.normalize(torch.cat([source, target]).float(), dim=1).numpy()
    if np.ptp(features, axis=0).max() < 1e-6:
        return None
    features = PCA(min(30, *features.shape), random_state=0).fit_transform(features)
    perplexity = min(30, (len(features) - 1) / 3)
    where = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
    labels = torch.cat([outputs.source[1][:MAPPED], outputs.target_logits[:MAPPED].argmax(1)]).numpy()
    return where, labels, np.arange(len(where)) >= len(source)


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _examples(examples: Examples) -> list[dict[str, Any]]:
    """The images that the run kept as telling, each with what it was taken for, and how surely."""
    return [
        {"uri": _picture(image), "label": int(label), "predicted": int(predicted), "confidence": float(confidence)}
        for image, label, predicted, confidence in zip(*examples, strict=True)
    ]


def _picture(image: Tensor) -> str:
    """uint8 (C, H, W) as the address of a PNG."""
    out = io.BytesIO()
    picture(image).save(out, "PNG")
    return _uri(out.getvalue())
