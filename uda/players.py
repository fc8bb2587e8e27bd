"""What moves weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_ema(teacher: nn.Module, student: nn.Module, decay: float, done: int) -> None:
    """Moves the teacher's weights towards the student's by 1 - decay; faster at first, when there is little to remember."""
    decay = min(decay, (done + 1) / (done + 10))
    for mean, now in zip(teacher.parameters(), student.parameters(), strict=True):
        mean.lerp_(now, 1 - decay)
    for kept, new in zip(teacher.buffers(), student.buffers(), strict=True):
        kept.copy_(new)


def linear_decay(done: int, steps: int, share: float) -> float:
    """What the learning rate of a step is to be multiplied with: 1, then down in a straight line to 0 over the last `share`."""
    return min(1.0, (1 - done / steps) / max(1e-8, share))
