"""The network that all sides adapt: plain PyTorch, features of 256 numbers, no batch norm."""

from torch import Tensor, nn


class Net(nn.Module):
    """Float images (N, 3, 32, 32) in 0..1 to logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 5, 2, 2), nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(256, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
