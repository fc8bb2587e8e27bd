"""Label propagation: Zhou et al., "Learning with Local and Global Consistency", NIPS 2003. For targets with unknown classes.

What the source classifier says of each target image, and how much it doubts that, spreads among images that lie together:

    y_0 = (p, H(p) / ln K),   y <- alpha x sum over the k nearest of w_j y_j + (1 - alpha) x y_0,   for some rounds
    w = softmax over the k nearest of cosine / temperature

Images that lie together so come to be of one class, or of none: one whose doubt has ended above 1/2 is of no known class
(`uda.evaluation.unknown`). That is done once, before the first step; the network then learns from it:

    total = cross-entropy(source) + weight x mean over the target of [ -log p(class that was found), of an image of a class
                                                                       cross-entropy(even shares, p), of one of no class ]

A known class that the source classifier doubts as a whole is so taken for an unknown one.

The nearest are of all target images, by features, and w is the paper's Gaussian of distances: features have length 1 here. Not in
the paper, which spreads a few known labels by a symmetric matrix (scikit-learn's LabelSpreading): doubt spreads, too, each image
listens to k others, whose weights have sum 1, and a network learns from it all.
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
from uda.players import Players

BLOCK = 1000
"""images whose neighbours are looked for at once"""
NO_CLASS = -1
"""of a target image: to be left unnamed"""


class LabelPropagationSettings(OptimizerSettings):
    """Label propagation's settings."""

    name: str = "label_propagation"
    weight: NonNegativeFloat = 1.0
    """of what is learned from the target"""
    neighbours: PositiveInt = 10
    """k: to how many others each image listens"""
    temperature: PositiveFloat = 0.03
    """of cosines: the lower, the more it listens to the very nearest"""
    alpha: float = Field(0.95, ge=0, lt=1)
    """how much it listens to them, instead of to the source classifier; the paper's 0.99 lets doubt leak into other classes"""
    rounds: PositiveInt = 100
    """how often all listen; after 100 rounds of 0.95 the end is nearer than a hundredth"""


class LabelPropagation(OneNetwork):
    """Target images are of the class that those around them are of, or of none."""

    Settings = LabelPropagationSettings
    settings: LabelPropagationSettings
    leaves_unknown = True
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
        found = [bank.neighbours(part, s.neighbours) for part in torch.arange(len(p), device=p.device).split(BLOCK)]
        cosines, nearest = (torch.cat(parts) for parts in zip(*found, strict=True))
        doubt = torch.special.entr(p).sum(1, keepdim=True) / math.log(p.shape[1])
        said = spread(torch.cat([p, doubt], 1), nearest, (cosines / s.temperature).softmax(1), s.alpha, s.rounds)
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


def spread(start: Tensor, nearest: Tensor, weights: Tensor, alpha: float, rounds: int) -> Tensor:
    """What N images say, (N, D), after rounds of listening to their k nearest, as much as `alpha`, and else to `start` (N, D).

    `nearest`: their positions, int64 (N, k); `weights`: how much each is listened to, (N, k), of sum 1 in a row. With these in a
    matrix S it nears (1 - alpha) (I - alpha S)^-1 start. Source: Zhou et al. 2003, section 2.
    """
    said = start
    if not nearest.numel():  # a single image
        return said
    for _ in range(rounds):
        heard = sum(weight[:, None] * said[others] for weight, others in zip(weights.T, nearest.T, strict=True))
        said = alpha * heard + (1 - alpha) * start
    return said
