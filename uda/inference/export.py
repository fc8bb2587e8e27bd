"""The adapted classifier for other programs: torch.export, or ONNX. What is written is run, and compared, before it is kept."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from uda.atomic import atomic_write
from uda.data.augment import to_float
from uda.errors import UserError
from uda.evaluation.evaluator import predict
from uda.runs.run import Run

FORMATS = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-3  # largest difference of a logit


class Deployed(nn.Module):
    """A network with its preprocessing: float images (N, C, S, S) in 0..1 to logits (N, K)."""

    def __init__(self, normalize: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.normalize, self.network = normalize, network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalize(images * 2 - 1))
        return logits


def deployed(run: Run, which: str = "last") -> nn.Module:
    """The run's classifier as one module, on the CPU in float32.

    A user's own network returns what it always returned (log-probabilities, perhaps).
    """
    try:
        network, normalize = run.load_network(which)
    except UserError:
        return Deployed(nn.Identity(), run.load_classifier(which)).cpu().float().eval()
    return Deployed(normalize, network).cpu().float().eval()


def export(run: Run, format: str, out: Path | None = None, which: str = "recommended") -> tuple[Path, str]:
    """Writes the classifier in a format, after running it on the run's sample of target images.

    Args:
        run: a finished run.
        format: ``"torch"`` (torch.export, read by `torch.export.load`) or ``"onnx"`` (needs the extra `onnx`).
        out: the file; left out, ``RUN/classifier.pt2`` or ``RUN/classifier.onnx``.
        which: ``"last"``, ``"selected"``, ``"source"`` or, of the first and the third, the ``"recommended"`` one.

    Returns:
        The file, and a line that says how its outputs compare.

    Raises:
        UserError: for an unknown format, a missing extra, or outputs that differ.
    """
    if format not in FORMATS:
        raise UserError.unknown("format", format, FORMATS)
    out = out or run.path / f"classifier{FORMATS[format]}"
    module, sample = deployed(run, which), run.sample()
    images = to_float(sample) * 0.5 + 0.5
    with torch.no_grad():
        expected = module(images)
    facts = {
        "classes": json.dumps(list(run.classes)),
        "input": f"float32 (N, {images.shape[1]}, {images.shape[2]}, {images.shape[3]}), 0..1",
        "run": run.path.name,
    }
    with run.locked() if out.parent == run.path else nullcontext(), atomic_write(out) as path:
        try:
            got = (_write_torch if format == "torch" else _write_onnx)(module, images, path, facts)
        except (RuntimeError, AssertionError, torch.onnx.OnnxExporterError) as error:
            raise UserError(f"this network cannot be exported ({(str(error).splitlines() or ['no reason given'])[0]})") from error
        worst = float((got.detach() - expected).abs().max())
        if not worst <= TOLERANCE or not torch.equal(got.argmax(1), expected.argmax(1)):
            raise UserError(f"the exported file's outputs differ from the classifier's by up to {worst:.2g}; nothing was written")
    own = predict(run.load_classifier(which), sample.to(run.runtime.device), run.runtime).cpu()
    agree = int((own.argmax(1) == expected.argmax(1)).sum())
    note = run.note_on(which)
    return out, (f"{note}; " if note else "") + (
        f"checked on {len(images)} target images: outputs within {worst:.1g} of the module's, all classes the same; "
        f"{agree} of {len(images)} images get the class that the run gave them in {run.runtime.precision}"
    )


def _write_torch(module: nn.Module, images: Tensor, path: Path, facts: dict[str, str]) -> Tensor:
    program = torch.export.export(module, (images[:2],), dynamic_shapes=({0: torch.export.Dim("N")},))
    content = io.BytesIO()  # where the disk is full, the writer in C++ would end the process
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)  # of networks on a GPU
        torch.export.save(program, content, extra_files=dict(facts))
    path.write_bytes(content.getvalue())
    with path.open("rb") as file:
        logits: Tensor = torch.export.load(file).module()(images)
        return logits


def _write_onnx(module: nn.Module, images: Tensor, path: Path, facts: dict[str, str]) -> Tensor:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise UserError(
            f"ONNX needs packages that are not here ({error.name}); pip install onnx onnxscript onnxruntime"
        ) from error
    program = torch.onnx.export(
        module,
        (images[:2],),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    assert program is not None
    program.model.metadata_props.update(facts)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
