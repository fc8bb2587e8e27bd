"""Source only: supervised training on labelled source images. It makes the source classifier, and is every method's baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import ConfigDict, NonNegativeFloat
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.models.backbones import Classifier
from uda.ranges import Share
from uda.runtime import Runtime


@dataclass(frozen=True)
class Settings:
    """How a source classifier is trained: AdamW under a one-cycle schedule (Smith and Topin 2018)."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str = "source_only"
    learning_rate: NonNegativeFloat = 3e-3
    """the peak of the cycle"""
    weight_decay: NonNegativeFloat = 0.05
    smoothing: Share = 0.1
    """label smoothing"""


class Method:
    """Trains the classifier that it is given, in place, on source images alone."""

    def __init__(
        self, settings: Settings, classifier: Classifier, shape: tuple[int, int, int], steps: int, runtime: Runtime
    ) -> None:
        self.settings, self.runtime = settings, runtime
        self.network = classifier
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=runtime.fused,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, settings.learning_rate, total_steps=steps)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One step down the cross-entropy of a source batch."""
        with self.runtime.autocast():
            logits = self.network(batch.source)
        loss = losses.cross_entropy(logits, batch.source_labels, self.settings.smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return {"class": loss.detach()}

    def classifier(self) -> nn.Module:
        return self.network

    def networks(self) -> nn.Module:
        return self.network

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
