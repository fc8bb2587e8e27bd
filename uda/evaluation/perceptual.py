"""LPIPS (Zhang et al. 2018): how different two images look, by a network's features, weighted as people judge. Extra `lpips`."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from uda.data.augment import to_float

WEIGHTS = "squeezenet1_1-b8a52dc0.pth"  # torchvision's, by the name that it has in torch's cache
LEAST, PART = 32, 50  # pixels a side that the network has layers for; images that are looked at at once

Distance = Callable[[Tensor, Tensor], Tensor]


def perceptual_distance(device: torch.device) -> Distance | None:
    """LPIPS 0.1 on SqueezeNet, where the package is installed and SqueezeNet's weights are in torch's cache; else None.

    Returns:
        Two batches of uint8 images (N, C, H, W), of sides of at least `LEAST`, to the distance of each pair, (N,), 0 or more.
        Nothing is downloaded, and nothing that is loaded is executed.
    """
    weights = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    if importlib.util.find_spec("lpips") is None or not weights.is_file():
        return None
    from lpips import LPIPS

    with warnings.catch_warnings(action="ignore"):  # it asks torchvision for its network in an old way
        network = LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    features = torch.load(weights, map_location="cpu", weights_only=True)
    # slice2.3.squeeze.weight of LPIPS is features.3.squeeze.weight of SqueezeNet.
    trunk = {name: features[f"features.{name.partition('.')[2]}"] for name in network.net.state_dict()}
    network.net.load_state_dict(trunk)
    network.to(device).eval()

    @torch.no_grad()
    def distance(first: Tensor, second: Tensor) -> Tensor:
        parts = []
        for pair in zip(first.split(PART), second.split(PART), strict=True):
            a, b = (to_float(images.to(device)).expand(-1, 3, -1, -1) for images in pair)
            parts.append(network(a, b).flatten())
        return torch.cat(parts)

    return distance
