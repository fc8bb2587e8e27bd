"""Label propagation: Zhou et al., "Learning with Local and Global Consistency", NIPS 2003. For targets with unknown classes.

What the source classifier says of each target image, and how much it doubts that, spreads among images that lie together:

    y_0 = (p, H(p) / ln K),   y = what these say after some rounds of listening to the k nearest    `uda.neighbours`

Images that lie together so come to be of one class, or of none: one whose doubt has ended above 1/2 is of no known class
(`uda.evaluation.unknown`). That is done once, before the first step; the network then learns from it:

    total = cross-entropy(source) + weight x mean over the target of [ -log p(class that was found), of an image of a class
                                                                       cross-entropy(even shares, p), of one of no class ]

A known class that the source classifier doubts as a whole is so taken for an unknown one.

The nearest are of all target images, by features. Not in the paper: doubt spreads, too, and a network learns from it all.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.base import Method, OneNetwork, OptimizerSettings
from uda.methods.neighbours import NeighbourBank, inputs_of
from uda.neighbours import ALPHA, NEAREST, ROUNDS, TEMPERATURE, propagate
from uda.players import Players

NO_CLASS = -1
"""of a target image: to be left unnamed"""


class LabelPropagationSettings(OptimizerSettings):
    """Label propagation's settings."""

    name: str = "label_propagation"
    weight: NonNegativeFloat = 1.0
    """of what is learned from the target"""
    neighbours: PositiveInt = NEAREST
    """k: to how many others each image listens"""
    temperature: PositiveFloat = TEMPERATURE
    """of cosines: the lower, the more it listens to the very nearest"""
    alpha: float = Field(ALPHA, ge=0, lt=1)
    """how much it listens to them, instead of to the source classifier; the paper's 0.99 lets doubt leak into other classes"""
    rounds: PositiveInt = ROUNDS
    """how often all listen; after 100 rounds of 0.95 the end is nearer than a hundredth"""


class LabelPropagation(OneNetwork):
    """Target images are of the class that those around them are of, or of none."""

    Settings = LabelPropagationSettings
    settings: LabelPropagationSettings
    for_unknown = leaves_unknown = True
    default_training = Method.default_training.model_copy(update={"batch": 64, "target_batch": 64, "class_shares": "own"})

    found: Tensor
    """the class of each target image, int64 (N,), or `NO_CLASS`"""

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        bank = NeighbourBank(self.network.backbone.feature_dim, self.network.classes)
        bank.fill(self.outputs(inputs_of(target)))
        self.found = self.propagate(bank)

    def propagate(self, bank: NeighbourBank) -> Tensor:
        """The class of each of a bank's N images, or `NO_CLASS`: int64 (N,)."""
        s, p = self.settings, bank.probabilities
        doubt = torch.special.entr(p).sum(1, keepdim=True) / math.log(p.shape[1])
        said = propagate(torch.cat([p, doubt], 1), bank.features, s.neighbours, s.temperature, s.alpha, s.rounds)
        return said[:, :-1].argmax(1).masked_fill(said[:, -1] > 0.5, NO_CLASS)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        _, _, source_logits, target_logits = self.read(batch)
        class_loss = losses.cross_entropy(source_logits, batch.source_labels)
        found = self.found[batch.target_positions]
        log_p = F.log_softmax(target_logits, 1)
        propagated = F.nll_loss(log_p, found, ignore_index=NO_CLASS, reduction="sum") / len(found)
        no_class = -(log_p.mean(1) * (found == NO_CLASS)).mean()
        return {
            "class": class_loss,
            "propagated_class": propagated,
            "no_class": no_class,
            "target_entropy": losses.entropy(target_logits),
            "total": class_loss + self.settings.weight * (propagated + no_class),
        }
