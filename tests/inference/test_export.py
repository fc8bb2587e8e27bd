"""What is exported computes what the run's classifier computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from uda import UserError, fit
from uda.data.augment import to_float
from uda.inference.export import export
from uda.runs.run import Run


def test_torch_export_runs_on_any_batch(own_run: Run, tmp_path: Path) -> None:
    path, line = export(own_run, "torch", tmp_path / "c.pt2", "last")
    images = to_float(own_run.sample())[:5]
    assert torch.allclose(torch.export.load(path).module()(images * 0.5 + 0.5), own_run.classifier(images), atol=1e-4)
    assert "checked on 64 target images" in line


def test_onnx_runs_on_any_batch_and_says_what_it_is(own_run: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra uda-toolkit[onnx] is not installed")
    path, _ = export(own_run, "onnx", tmp_path / "c.onnx", "last")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 7):
        images = to_float(own_run.sample())[:count]
        (logits,) = session.run(None, {"images": (images * 0.5 + 0.5).numpy()})
        assert np.allclose(logits, own_run.classifier(images).detach().numpy(), atol=1e-3)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["classes"] == str(list(own_run.classes)).replace("'", '"')
    assert facts["input"] == "float32 (N, 1, 16, 16), 0..1"


@pytest.mark.parametrize("backbone", ["strided", "lenet", "unit"])
def test_our_own_nets_export(backbone: str, tiny: Path, tmp_path: Path) -> None:
    overrides = {"classifier.backbone": backbone, "classifier.width": 8, "data.size": 32}
    run = fit(tiny, out=tmp_path / "run", device="cpu", precision="fp32", overrides=overrides)
    assert export(run, "torch")[0] == tmp_path / "run" / "classifier.pt2"


def test_an_adapted_network_with_other_layers_exports_as_a_new_module(folders: Path, own_run: Run, tmp_path: Path) -> None:
    recipe = own_run.recipe.model_dump()
    recipe["method"]["coordinates"] = "both"
    from uda.recipe.schema import Recipe

    run = fit(Recipe.model_validate(recipe), out=tmp_path / "run", device="cpu", precision="fp32")
    assert not (run.path / "adapted.pt").exists()
    with pytest.raises(UserError, match=r"does not fit .* as it was written"):
        run.load_network()
    path, _ = export(run, "torch", which="last")
    images = to_float(run.sample())[:3]
    assert torch.allclose(torch.export.load(path).module()(images * 0.5 + 0.5), run.classifier(images), atol=1e-4)


def test_outputs_that_differ_are_not_kept(own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(module: nn.Module, images: torch.Tensor, path: Path, facts: dict[str, str]) -> torch.Tensor:
        path.write_bytes(b"wrong")
        return module(images) + 1

    monkeypatch.setattr("uda.inference.export._write_torch", wrong)
    with pytest.raises(UserError, match="differ from the classifier's by up to 1"):
        export(own_run, "torch", tmp_path / "c.pt2")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_no_numbers_are_not_kept(own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(module: nn.Module, images: torch.Tensor, path: Path, facts: dict[str, str]) -> torch.Tensor:
        logits: torch.Tensor = module(images)
        return logits.where(logits < logits.amax(1, keepdim=True), float("nan"))  # the largest is the same

    monkeypatch.setattr("uda.inference.export._write_torch", wrong)
    with pytest.raises(UserError, match="by up to nan"):
        export(own_run, "torch", tmp_path / "c.pt2")


def test_an_unknown_format_gets_the_nearest(own_run: Run) -> None:
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        export(own_run, "onxx")
