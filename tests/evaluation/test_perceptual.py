"""LPIPS, where it is at hand."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import squeezenet1_1

from uda.evaluation import perceptual
from uda.evaluation.diversity import diversity
from uda.evaluation.perceptual import WEIGHTS, perceptual_distance

CPU = torch.device("cpu")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Torch's cache with a SqueezeNet in it, of drawn weights."""
    pytest.importorskip("lpips")
    torch.manual_seed(0)
    weights = squeezenet1_1(weights=None).state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / WEIGHTS)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return weights


def test_the_distance_is_that_of_the_paper(cached: dict[str, torch.Tensor]) -> None:
    """Squared differences of features of unit length at seven layers, weighted by channel, means over pixels, summed."""
    import lpips

    packaged = torch.load(Path(lpips.__file__).parent / "weights" / "v0.1" / "squeeze.pth", map_location="cpu", weights_only=True)
    network = squeezenet1_1(weights=None)
    network.load_state_dict(cached)
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    hidden = ((images / 127.5 - 1) - shift.view(3, 1, 1)) / scale.view(3, 1, 1)
    expected, ends = torch.zeros(2), (1, 4, 7, 9, 10, 11, 12)
    with torch.no_grad():
        for number, layer in enumerate(network.features):
            hidden = layer(hidden)
            if number in ends:
                a, b = F.normalize(hidden, dim=1).chunk(2)
                weight = packaged[f"lin{ends.index(number)}.model.1.weight"].view(-1, 1, 1)
                expected += ((a - b) ** 2 * weight).sum(1).mean((1, 2))
    distance = perceptual_distance(CPU)
    assert distance is not None
    assert torch.allclose(distance(images[:2], images[2:]), expected, rtol=1e-4)
    assert distance(images, images).tolist() == [0, 0, 0, 0]


def test_grey_images_are_read_as_colour(cached: dict[str, torch.Tensor]) -> None:
    distance = perceptual_distance(CPU)
    assert distance is not None
    grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    assert torch.allclose(distance(grey[:1], grey[1:]), distance(*grey.expand(-1, 3, -1, -1).chunk(2)))


def test_draws_are_compared_by_it_where_images_are_large_enough(cached: dict[str, torch.Tensor]) -> None:
    def found(side: int) -> dict[str, float]:
        real = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8)
        return diversity(real[:2], real, lambda images: torch.randint_like(images, 256), lambda images: images.flatten(1).float())

    large = found(32)
    assert large["lpips"] > 0 < large["real_lpips"]
    assert not {"lpips", "real_lpips"} & found(16).keys()


def test_without_weights_or_package_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert perceptual_distance(CPU) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / WEIGHTS).touch()
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda _: None)
    assert perceptual_distance(CPU) is None
