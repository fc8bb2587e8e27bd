"""A method of your own: a class in a file, named on the command line. This one matches the means of features.

    uda fit --recipe synth2digits --method examples/own_method.py:MeanMatching --set method.weight=0.5

`OneNetwork` brings the copy of the source classifier, its optimiser, batch-norm statistics by domain, saving and resuming; the
file adds settings and a loss. A `Batch` holds source images, their labels, and target images as augmented and as they are.
"""

from __future__ import annotations

from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.methods.base import OneNetwork, OptimizerSettings, TrainingSettings


class MeanMatchingSettings(OptimizerSettings):
    name: str = "mean_matching"
    weight: float = 1.0


class MeanMatching(OneNetwork):
    Settings = MeanMatchingSettings
    default_training = TrainingSettings(steps=400, batch=128, target_batch=128)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        source, target, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        distance = (source.float().mean(0) - target.float().mean(0)).square().sum()
        return {
            "class": class_loss,
            "distance": distance,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.weight * distance,
        }
