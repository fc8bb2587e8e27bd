"""Features of a frozen body: images per second by uda, and by a plain loop in fp32 over the same files and network.

    export UDA_DATA=...   # a folder with office31/
    python benchmarks/features.py --backbone-weights tf_efficientnet_lite0.safetensors [--domain office31/webcam] [--rounds 3]

The plain loop is torchvision's ImageFolder, the network's own resizing and crop, and a DataLoader with a worker for each core, 32
images a batch. Both sides read the central view alone, and run in turn, in one process; the network is made before the clock
starts. Printed as Markdown: images per second of each round, and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import timm
import torch
from cells import where
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from uda.console import Display
from uda.data.load import find_frame, load_pair
from uda.data.names import data_roots
from uda.models.frozen import Body
from uda.recipe.load import resolve
from uda.runs.build import build_checked, published_frame
from uda.runs.cache import Cache
from uda.runtime import choose_runtime, cores
from uda.training.keep import Keeper

NAME = "tf_efficientnet_lite0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone-weights", type=Path, required=True)
    parser.add_argument("--domain", default="office31/webcam")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    own, plain = Own(given.domain, given.backbone_weights), Plain(given.domain)
    print("| round | uda | plain loop | ratio |\n|---|---|---|---|")
    ratios = []
    for number in range(given.rounds):
        sides = (own, plain) if number % 2 == 0 else (plain, own)  # who goes first changes from round to round
        rates = {side: side.count / seconds(side) for side in sides}
        ratios.append(rates[own] / rates[plain])
        print(f"| {number + 1} | {rates[own]:.0f} | {rates[plain]:.0f} | {ratios[-1]:.2f} |", flush=True)
    print(f"\nRatio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f}). {where()}")


def seconds(side: Own | Plain) -> float:
    began = time.perf_counter()
    side.read()
    return time.perf_counter() - began


class Own:
    """What `uda fit` does before a head is trained."""

    def __init__(self, domain: str, weights: Path) -> None:
        settings = {"data.source": domain, "data.target": domain, "classifier.backbone_weights": str(weights.absolute())}
        recipe = resolve("office31", settings).recipe
        roots, self.runtime = data_roots(None), choose_runtime()
        recipe = recipe.with_frame(find_frame(recipe.data, roots, True, published_frame(recipe.classifier)))
        self.data = recipe.data
        self.domain = load_pair(recipe.data, roots, Display(), True, look=False).source
        networks = build_checked(recipe, len(self.domain.classes), self.runtime)
        assert networks is not None
        assert networks.body is not None
        self.body: Body = networks.body
        self.count = len(self.domain)

    def read(self) -> None:
        with self.runtime.computing():
            Keeper(self.body, self.data, self.runtime, Display(), Cache(None)).keep(self.domain, self.data.views.all[:1])


class Plain:
    """A loop as one writes it."""

    def __init__(self, domain: str) -> None:
        self.network = timm.create_model(NAME, pretrained=False, num_classes=0).eval()
        transform = transforms.Compose(
            [
                transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224),
                transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )  # fmt: skip
        folder = next(root / domain for root in data_roots(None) if (root / domain).is_dir())
        images = ImageFolder(str(folder / "images" if (folder / "images").is_dir() else folder), transform)
        self.loader = DataLoader(images, 32, num_workers=cores())
        self.count = len(images)

    @torch.no_grad()
    def read(self) -> None:
        torch.cat([self.network(images) for images, _ in self.loader])


if __name__ == "__main__":
    main()
