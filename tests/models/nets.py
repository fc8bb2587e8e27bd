"""Networks as users write them: none knows of this project."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.short = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.short(x))


class SmallResNet(nn.Module):
    """Batch norm, skip connections, pooling as a function."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = Block(8, 16)
        self.layer2 = Block(16, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


class LogSoftmaxNet(nn.Module):
    """Ends in log-probabilities; functional pooling and dropout; flattens by hand, so it wants 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.fc1, self.fc2 = nn.Linear(576, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.dropout(F.relu(self.fc1(x.view(len(x), -1))), 0.5, self.training)
        return F.log_softmax(self.fc2(x), 1)


class DropoutNet(nn.Module):
    """A convolution, dropout as a function, and the mean of the map: 16 x 16 in colour."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 16, 3, 2), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.conv1(x)), 0.5, self.training)
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))


class OwnPreprocessing(nn.Module):
    """Standardises in its own forward, with buffers, before anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.3]).view(1, 1, 1, 1))
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x - self.mean))


class NoHead(nn.Module):
    """Nothing that could be taken for a class head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class OneReLU(nn.Module):
    """One ReLU module for all its layers; a name for each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(1, 8, 3, 2), nn.Conv2d(8, 16, 3, 2), nn.ReLU()
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(self.relu(x - 0.5)))
        return self.fc(self.relu(self.conv2(x)).mean((2, 3)))


class TwoHeads(nn.Module):
    """The mean of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.first, self.second = nn.Linear(8, 10), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return (self.first(x) + self.second(x)) / 2


def squeezing(relu: bool) -> nn.Module:
    """Ends as SqueezeNet does: a convolution to a map for each class, a ReLU in place perhaps, and each map's average."""
    body = nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(inplace=True)
    head = nn.Sequential(
        nn.Dropout(0.5), nn.Conv2d(16, 10, 1), *([nn.ReLU(inplace=True)] if relu else []), nn.AdaptiveAvgPool2d((1, 1))
    )
    return nn.Sequential(*body, head, nn.Flatten())


def small_resnet() -> nn.Module:
    return SmallResNet()


def needs_an_argument(width: int) -> nn.Module:
    return nn.Linear(width, 10)


def no_network() -> str:
    return "no network"
