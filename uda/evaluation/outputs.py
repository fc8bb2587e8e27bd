"""What a classifier says of images, and the plainest figures of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uda.neighbours import standardised


@dataclass(frozen=True)
class Outputs:
    """A classifier's outputs on samples of both domains, and on the target's labelled test images, where there are any.

    Attributes:
        target_features: of target training images, (M, D).
        target_logits: of the same, (M, K), float32.
        source_features: of held-out source images, (N, D); None where the source must not be read.
        source_logits: of the same, (N, K), float32.
        source_labels: of the same, (N,), int64.
        test_logits: of the target's test images, (T, K), float32, on the CPU; None where there are none.
        test_labels: of the same, (T,), int64. These are the only target labels, and no score or estimate reads them.
        unknown_logits: of test images of classes that the source does not have, (U, K), float32, on the CPU; None without any.
    """

    target_features: Tensor
    target_logits: Tensor
    source_features: Tensor | None = None
    source_logits: Tensor | None = None
    source_labels: Tensor | None = None
    test_logits: Tensor | None = None
    test_labels: Tensor | None = None
    unknown_logits: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises a ValueError where shapes contradict each other, as those of a file may."""
        classes = self.target_logits.shape[-1]
        if self.unknown_logits is not None and self.unknown_logits.shape[1:] != (classes,):
            raise ValueError(f"unknown_logits are {tuple(self.unknown_logits.shape)}, of {classes} classes")
        if self.test is None and (self.test_logits is not None or self.test_labels is not None):
            raise ValueError("test logits and labels belong together")
        for role in ("source", "test"):
            logits, labels = getattr(self, f"{role}_logits"), getattr(self, f"{role}_labels")
            if logits is not None and labels is not None and logits.shape != (len(labels), classes):
                raise ValueError(f"{role}_logits are {tuple(logits.shape)}, of {len(labels)} labels and {classes} classes")
        for role in ("source", "target"):
            features, logits = getattr(self, f"{role}_features"), getattr(self, f"{role}_logits")
            if features is not None and (logits is None or features.ndim != 2 or logits.shape != (len(features), classes)):
                raise ValueError(f"{role}_features are {tuple(features.shape)}, and do not belong to the logits")

    def check(self) -> None:
        """Whether these are what a classifier says: numbers of some images, and classes that there are.

        Raises:
            ValueError: where they are not, as those of a file may be.
        """
        classes = self.target_logits.shape[-1]
        if self.source_features is not None and self.source_features.shape[1:] != self.target_features.shape[1:]:
            raise ValueError("source_features and target_features are not of the same length")
        for name, value in vars(self).items():
            if value is None:
                continue
            if not value.numel():
                raise ValueError(f"there are no {name}")
            if name.endswith("labels"):
                good = value.dtype == torch.int64 and 0 <= int(value.min()) <= int(value.max()) < classes
            else:
                good = value.dtype in (torch.float16, torch.float32) and bool(value.isfinite().all())
            if not good:
                raise ValueError(f"{name} are none: {value.dtype}, or out of range")

    def kept(self) -> Outputs:
        """The same on the CPU, as a run folder keeps it: with features in float16, those beyond its range at its ends."""
        most = torch.finfo(torch.float16).max
        tensors = {name: value.cpu() for name, value in vars(self).items() if value is not None}
        return Outputs(
            **{name: value.clamp(-most, most).half() if name.endswith("features") else value for name, value in tensors.items()}
        )

    def of(self, rows: Tensor) -> Outputs:
        """The same with these of the M target images alone, bool (M,)."""
        return replace(self, target_features=self.target_features[rows], target_logits=self.target_logits[rows])

    @property
    def source(self) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and labels (N,) of the held-out source images, where they were read."""
        assert self.source_logits is not None
        assert self.source_labels is not None
        return self.source_logits, self.source_labels

    @property
    def standardised_features(self) -> tuple[Tensor, Tensor]:
        """Features of the source images (N, D), where they were read, and of the target's (M, D), each domain `standardised`."""
        assert self.source_features is not None
        return standardised(self.source_features), standardised(self.target_features)

    @property
    def test(self) -> tuple[Tensor, Tensor] | None:
        """Logits (T, K) and labels (T,) of the target's test images; None where there are none."""
        return None if self.test_logits is None or self.test_labels is None else (self.test_logits, self.test_labels)

    @property
    def test_accuracy(self) -> float | None:
        """The share of the target's test images that are right, 0..1; None where there are none."""
        return None if self.test is None else accuracy(*self.test)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of right classes, 0..1. Shapes: (N, K), (N,)."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """int64 (K, K): row = true class, column = predicted class. Shapes: (N, K), (N,)."""
    classes = logits.shape[1]
    return (labels * classes + logits.argmax(1)).bincount(minlength=classes * classes).view(classes, classes)


def per_class_accuracy(matrix: Tensor) -> list[float | None]:
    """The diagonal's share of each row of a confusion matrix; None for a class that never occurs."""
    return [row[k] / sum(row) if sum(row) else None for k, row in enumerate(matrix.tolist())]
