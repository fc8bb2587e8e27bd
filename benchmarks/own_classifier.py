"""A user's classifier on a user's folders: MNIST to USPS as PNGs, a network and a training loop that know nothing of uda.

    python benchmarks/own_classifier.py --network SmallResNet --seeds 0 1 2

Writes MNIST as CLASS/IMAGE.png, USPS as unlabelled PNGs and its test set as CLASS/IMAGE.png (from the arrays at $UDA_DATA);
trains the network for one epoch in plain PyTorch, once, and saves its state dict; then, for each seed, runs `uda fit`,
`uda export --format onnx` and `uda predict --precision fp32`, and compares what onnxruntime makes of the test images with the
predictions.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cells import where
from PIL import Image

NETS = '''
import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.short = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


class SmallResNet(nn.Module):
    """Batch norm and skip connections; 80,000 parameters, 64 features."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = Block(16, 32)
        self.layer2 = Block(32, 64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


class PlainNet(nn.Module):
    """Two convolutions, dropout, log-softmax; 1.2 million parameters, 128 features."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(self.dropout(x), 1)))
        return F.log_softmax(self.fc2(x), dim=1)
'''
MEAN, STD = 0.1307, 0.3081


def write_images(arrays: Path, folder: Path, labelled: bool) -> None:
    with np.load(arrays) as file:
        images, labels = file["images"], file["labels"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / (str(label) if labelled else f"{number // 1000:02d}")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:05d}.png")


def train(folder: Path, network: str) -> None:
    """One epoch of Adam on the labelled folder, without augmentation; bf16 and channels last, as the machine likes it."""
    from torchvision import datasets, transforms

    torch.manual_seed(0)
    spec = importlib.util.spec_from_file_location("nets", folder / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    net = getattr(nets, network)().to(memory_format=torch.channels_last)
    steps = [transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    images = datasets.ImageFolder(str(folder / "mnist"), transforms.Compose(steps))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for x, y in torch.utils.data.DataLoader(images, 128, shuffle=True, num_workers=1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(net.state_dict(), folder / f"{network}.pt")


def uda(folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "uda.cli", *words], check=True, cwd=folder)


def same_as_onnx(folder: Path, run: str) -> tuple[int, int]:
    """How many of the test images onnxruntime gives the class that `uda predict` gave, of how many."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / run / "classifier.onnx", providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    with (folder / f"{run}.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = [Image.open(folder / "usps_test" / row["path"]).resize((28, 28), Image.Resampling.BILINEAR) for row in rows]
    (logits,) = session.run(None, {"images": np.stack([np.asarray(image, np.float32)[None] / 255 for image in images])})
    return sum(classes[number] == row["class"] for number, row in zip(logits.argmax(1), rows, strict=True)), len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("SmallResNet", "PlainNet"), default="SmallResNet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/own_classifier"))
    given = parser.parse_args()
    folder, data = given.out.absolute(), Path(os.environ["UDA_DATA"])
    for name, labelled in (("mnist_train", True), ("usps_train", False), ("usps_test", True)):
        if not (folder / name.removesuffix("_train")).exists():
            write_images(data / f"{name}.npz", folder / name.removesuffix("_train"), labelled)
    (folder / "nets.py").write_text(NETS)
    if not (folder / f"{given.network}.pt").exists():
        train(folder, given.network)

    rows = []
    for seed in given.seeds:
        run = f"{given.network}-{seed}"
        if not (folder / run / "result.json").exists():
            uda(
                folder, "fit", "--model", f"nets.py:{given.network}", "--weights", f"{given.network}.pt", "--source", "./mnist",
                "--target", "./usps", "--target-test", "./usps_test", "--set", f"classifier.mean=[{MEAN}]",
                "--set", f"classifier.std=[{STD}]", "--seed", str(seed), "--out", run,
            )  # fmt: skip
        uda(folder, "export", run, "--format", "onnx")
        uda(folder, "predict", run, "./usps_test", "-o", f"{run}.csv", "--precision", "fp32")
        result = json.loads((folder / run / "result.json").read_text())
        same, count = same_as_onnx(folder, run)
        rows.append([result["accuracy"][name] for name in ("source_only", "refined", "last")] + [result["seconds"]["total"]])
        shares = " | ".join(f"{share:.4f}" for share in rows[-1][:3])
        print(f"| {given.network} | {seed} | {shares} | {same} of {count} | {rows[-1][3]:.0f} |", flush=True)
    means = [statistics.mean(column) for column in zip(*rows, strict=True)]
    print("\n| network | source_only | refined | last: mean (worst) | seconds |\n|---|---|---|---|---|")
    worst = min(row[2] for row in rows)
    print(f"| {given.network} | {means[0]:.4f} | {means[1]:.4f} | {means[2]:.4f} ({worst:.4f}) | {means[3]:.0f} |\n\n{where()}")


if __name__ == "__main__":
    main()
