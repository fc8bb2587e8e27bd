"""CoGAN: Liu, Tuzel, "Coupled Generative Adversarial Networks", NeurIPS 2016. UNIT's forerunner, without encoders.

Two generators, tied towards the noise, draw pairs of images G_1(z), G_2(z) of one content; two discriminators, tied above their
stems, judge them, and their trunk carries the class head. The players of the alternating game minimise

    D:  adversarial   sum_i  -log D_i(x_i) - log(1 - D_i(G_i(z)))                                        eq. 1
        class         cross-entropy of C_1(x_1) and the source labels                                    section 4
        pair class    KL(C_1(G_1(z)) || C_2(G_2(z))), C_1 left alone                                     ours
    G:  adversarial   sum_i  -log D_i(G_i(z))

C_2 = class head . trunk . stem_2 classifies the target. In the paper, that pairs share high-level features is all that carries it
over (`pair_class_weight = 0`), and stem_2, which only the adversarial game trains, drifts from what the class head reads; that a
pair is of one class says so to C_2 itself.
"""

from __future__ import annotations

import copy

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods import base
from uda.methods.adversarial import Adversaries, AdversarySettings
from uda.methods.base import update_bn
from uda.methods.unit import TiedDiscriminators, starting_point
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET
from uda.models.translators import TiedGenerators
from uda.players import update_ema
from uda.runtime import Runtime

TRAINING = base.TRAINING | {"steps": 600, "batch": 64, "target_batch": 64, "class_shares": "own", "evaluate_every": 100}


class Settings(AdversarySettings):
    """CoGAN's settings."""

    name: str = "cogan"
    width: PositiveInt = 32
    """of the generators' last layers; the published widths fall from 1,024 to 128"""
    noise_dim: PositiveInt = 100
    private_generator_layers: NonNegativeInt = 1
    warm_start: bool = True
    """whether D starts from the source classifier's weights, or afresh"""
    adversarial_weight: NonNegativeFloat = 0.02
    """of D; low, so that what stem_2 becomes is said by the classes of pairs rather than by the game"""
    class_weight: NonNegativeFloat = 1.0
    pair_class_weight: NonNegativeFloat = 1.0
    learning_rate: NonNegativeFloat = 2e-4
    weight_decay: NonNegativeFloat = 5e-4


class Method(Adversaries):
    """The two players and their alternating updates."""

    def __init__(
        self, settings: Settings, classifier: Classifier, shape: tuple[int, int, int], steps: int, runtime: Runtime
    ) -> None:
        s = settings
        start = starting_point(classifier, s.warm_start)
        self.generators = TiedGenerators(shape[0], shape[1], s.width, s.noise_dim, s.private_generator_layers)
        self.discriminators = TiedDiscriminators(start, coordinates=False, tied_trunk=True)
        self.student = self.discriminators.target_classifier()
        self.averaged = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.begin(s, steps, runtime, self.discriminators, self.generators)

    def prepare(self, target: Domain) -> None:
        """Learns the target's statistics of a network with batch norm."""
        update_bn(self.student, self.student, target, self.runtime)
        self.averaged.load_state_dict(self.student.state_dict())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D with G fixed, then one of G with D fixed; returns every loss, unweighted."""
        s, count = self.settings, len(batch.source)
        self.set_rate()
        with self.runtime.autocast():
            fakes = self._pairs(torch.randn(count, s.noise_dim, device=batch.source.device))
            by_1, by_2 = ([real, fake.detach()] for real, fake in zip((batch.source, batch.target_weak), fakes, strict=True))
            (real_1, fake_1), (real_2, fake_2) = self.discriminators(by_1, by_2)
            is_real = self.discriminators.real_head(real_1), self.discriminators.real_head(real_2)
            is_fake = self.discriminators.real_head(fake_1), self.discriminators.real_head(fake_2)
            logits = self.discriminators.class_head(real_1)
            taught, read = (self.discriminators.class_head(fake).float().log_softmax(1) for fake in (fake_1, fake_2))
        values = {
            "discriminator_adversarial": torch.stack(
                [losses.real_fake(judged, True) for judged in is_real] + [losses.real_fake(judged, False) for judged in is_fake]
            ).sum(),
            "class": losses.cross_entropy(logits, batch.source_labels),
            "pair_class": losses.kl_divergence(taught.detach(), read),
        }
        self.update_discriminators(
            s.adversarial_weight * values["discriminator_adversarial"]
            + s.class_weight * values["class"]
            + s.pair_class_weight * values["pair_class"]
        )

        with self.runtime.autocast():
            (fake_1,), (fake_2,) = self.discriminators([fakes[SOURCE]], [fakes[TARGET]])
            judged = self.discriminators.real_head(torch.cat([fake_1, fake_2]))
        # The mean over both domains at once, doubled, is the sum over i of the objective.
        values["generator_adversarial"] = 2 * losses.real_fake(judged, True)
        self.update_generators(values["generator_adversarial"])
        update_ema(self.averaged, self.student, s.averaging, self.done)
        self.done += 1
        return {name: value.detach() for name, value in values.items()}

    def _pairs(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.generators.tied(noise)
        return self.generators.private[SOURCE](hidden), self.generators.private[TARGET](hidden)

    def draw_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Pairs of one content, source and target: images (count, C, S, S) each, in -1..1, from torch's global generator."""
        with torch.no_grad(), self.runtime.autocast():
            source, target = self._pairs(torch.randn(count, self.settings.noise_dim, device=self.runtime.device))
            return source.float(), target.float()

    def classifier(self) -> nn.Module:
        """C_2 with weights averaged over the last steps."""
        return self.averaged

    def networks(self) -> nn.ModuleDict:
        return nn.ModuleDict({"generators": self.generators, "discriminators": self.discriminators, "averaged": self.averaged})
