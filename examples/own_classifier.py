"""Your own classifier on your own images, from a trained .pt file to an ONNX file, offline and in about two minutes.

    python examples/own_classifier.py [FOLDER] [--steps 400]

The first half makes what you would bring: a labelled source folder (drawn street numbers), an unlabelled target folder (scanned
handwriting), a network in a file of yours, and weights that a plain PyTorch loop has trained. The second half is `uda`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Grayscale, ToTensor

import uda
from uda.console import Display
from uda.data.datasets.synthetic import load_handwritten_digits, load_street_digits
from uda.inference.export import export
from uda.inference.predict import write_predictions

NETS = """
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.conv3(x)).flatten(1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)
"""


def make_folders(folder: Path) -> None:
    """source/CLASS/*.png, target/*.png without classes, and target_test/CLASS/*.png to see how good it became."""
    source, target, test = (
        load_street_digits("train", 32, 1),
        load_handwritten_digits("train", 32, 1),
        load_handwritten_digits("test", 32, 1),
    )
    for name, domain in (("source", source), ("target", target), ("target_test", test)):
        for number, (image, label) in enumerate(zip(domain.images, domain.labels, strict=True)):
            place = folder / name if name == "target" else folder / name / str(int(label))
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(place / f"{number:05d}.png")


def train(folder: Path, steps: int) -> None:
    """What you did long ago: nets.py, trained on the source by a plain loop, saved as net.pt."""
    (folder / "nets.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    from nets import Net  # type: ignore[import-not-found]

    torch.manual_seed(0)
    net = Net()
    images = ImageFolder(str(folder / "source"), Compose([Grayscale(), ToTensor()]))
    loader = torch.utils.data.DataLoader(images, 128, shuffle=True, num_workers=2)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    done = 0
    while done < steps:
        for x, y in loader:
            loss = F.nll_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    torch.save(net.state_dict(), folder / "net.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("own_classifier"))
    parser.add_argument("--steps", type=int, default=400, help="of the adaptation")
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    display = Display()
    make_folders(folder)
    train(folder, steps=max(20, given.steps // 2))

    # On the command line: uda fit --model nets.py:Net --weights net.pt --source source --target target --target-test target_test
    run = uda.fit(
        "folders",
        out=folder / "run",
        display=display,
        data__source=str(folder / "source"),
        data__target=str(folder / "target"),
        data__target_test=str(folder / "target_test"),  # only the evaluator reads it; leave it out where you have no labels
        classifier__backbone=f"{folder / 'nets.py'}:Net",
        classifier__weights=str(folder / "net.pt"),
        classifier__refine_steps=min(150, given.steps),
        training__steps=given.steps,
    )

    # The adapted weights go straight back into your own code ...
    from nets import Net

    net = Net().eval()
    net.load_state_dict(torch.load(folder / "run" / "adapted.pt", weights_only=True))

    # ... or be used from here.
    count = write_predictions(run, folder / "target", folder / "predictions.csv", "last", display)
    with (folder / "predictions.csv").open() as file:
        first = next(csv.DictReader(file))
    image = ToTensor()(Image.open(folder / "target" / first["path"]))[None]
    assert int(net(image).argmax()) == int(first["class"])
    print(f"{count} images classified; {first['path']} is a {first['class']}")
    path, comparison = export(run, "onnx")
    print(f"{path}: {comparison}")
    print(f"before {run.accuracy['source_only']:.3f}, after {run.accuracy['last']:.3f}")


if __name__ == "__main__":
    main()
