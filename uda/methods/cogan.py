"""CoGAN: Liu, Tuzel, "Coupled Generative Adversarial Networks", NeurIPS 2016. UNIT's forerunner, without encoders.

Two generators, tied towards the noise, draw pairs of images G_1(z), G_2(z) of one content; two discriminators, tied above their
stems, judge them, and their trunk carries the class head. The players of the alternating game minimise

    D:  adversarial   sum_i  -log D_i(x_i) - log(1 - D_i(G_i(z)))                                        eq. 1
        class         cross-entropy of C_1(x_1) and the source labels                                    section 4
        feature       |trunk(stem_1(G_1(z))) - trunk(stem_2(G_2(z)))|^2                                  the release
        pair class    KL(C_1(G_1(z)) || C_2(G_2(z))), C_1 left alone                                     ours
    G:  adversarial   sum_i  -log D_i(G_i(z))

C_2 = class head . trunk . stem_2 classifies the target. No label reaches stem_2: with the adversarial game alone it drifts from
what the class head reads. The authors' release (`cogan_pytorch` of github.com/mingyuliutw/CoGAN) holds it by the features of a
pair (`feature_weight`), whose distance is a sum over a feature vector's numbers and a mean over the batch, and moves D alone. We
hold it by the class of a pair (`pair_class_weight`), which is said to C_2 itself.

The release's weights are in `recipes/mnist2usps-cogan-paper.toml`: 10 for the class, 0.01 for features, and 1 for adversarial
terms that are means over i, for either player, so that sums weigh 1/2.

Behind a frozen body, which is part of D then, pairs are small images, and so are the real ones beside them; C_1 reads whole ones.
"""

from __future__ import annotations

import copy

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.adversarial import AdversarialSettings, add_adversaries
from uda.methods.base import Read, Shape, TrainingSettings
from uda.methods.translating import PairDrawing
from uda.methods.unit import TiedDiscriminators, starting_point
from uda.models.backbones import Classifier
from uda.models.layers import SOURCE, TARGET, draws_noise
from uda.models.translators import TiedGenerators
from uda.players import Players
from uda.runtime import Runtime


class CoGANSettings(AdversarialSettings):
    """CoGAN's settings."""

    name: str = "cogan"
    width: PositiveInt = 32
    """of the generators' last layers; the published widths fall from 1,024 to 128"""
    noise_dim: PositiveInt = 100
    private_generator_layers: NonNegativeInt = 1
    """last layers that each domain has for itself: 1, a 1x1, changes intensities alone; 2 strokes, too, as the release's 6x6"""
    drawn_batch: PositiveInt | None = None
    """how many pairs are drawn in a step, where a body is frozen; left out: as many as there are source images in a batch"""
    warm_start: bool = True
    """whether D starts from the source classifier's weights, or afresh"""
    adversarial_weight: NonNegativeFloat = 0.02
    """of D; low, so that what stem_2 becomes is said by the classes of pairs rather than by the game"""
    adversarial_weight_generator: NonNegativeFloat = 1.0
    """of G; Adam divides such a factor out, but for the weight decay beside it. 0.5: the release's mean, of the sum over i"""
    class_weight: NonNegativeFloat = 1.0
    feature_weight: NonNegativeFloat = 0.0
    """of D: the squared distance of a drawn pair's features; 0.01 in the release"""
    pair_class_weight: NonNegativeFloat = 1.0
    learning_rate: NonNegativeFloat = 2e-4
    weight_decay: NonNegativeFloat = 5e-4


class CoGAN(PairDrawing):
    """The two players and their alternating updates."""

    Settings = CoGANSettings
    settings: CoGANSettings
    default_training = TrainingSettings(steps=600, batch=64, target_batch=64, evaluate_every=100)

    reads_pixels = True

    def __init__(
        self,
        settings: CoGANSettings,
        classifier: Classifier,
        shape: Shape,
        steps: int,
        runtime: Runtime,
        read: Read | None = None,
    ) -> None:
        super().__init__(settings, classifier, shape, steps, runtime, read)
        s = settings
        start = starting_point(classifier, s.warm_start)
        self.generators = TiedGenerators(shape[0], shape[1], s.width, s.noise_dim, s.private_generator_layers)
        self.discriminators = TiedDiscriminators(start, coordinates=False, tied_trunk=True)
        self.averaged = copy.deepcopy(self.discriminators.target_classifier()).requires_grad_(False).eval()

    def setup(self, target: Domain, players: Players) -> None:
        """Learns the target's batch-norm statistics, and makes an optimiser for each player."""
        super().setup(target, players)
        student = self.discriminators.target_classifier()
        self.update_bn(student, student, target)
        blank = torch.zeros(2, *self.shape, device=self.runtime.device)
        with self.runtime.autocast():
            self.noisy = self.settings.feature_weight > 0 and draws_noise(student.backbone, self.seen(blank))
        add_adversaries(players, self.settings, self.discriminators, self.generators)
        players.add_ema(self.averaged, student, self.settings.ema_decay)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D with G fixed, then one of G with D fixed; returns every loss, unweighted."""
        s, class_head, real_head = self.settings, self.discriminators.class_head, self.discriminators.real_head
        with self.runtime.autocast():
            source, target = batch.pixels(s.drawn_batch)
            fakes = [self.seen(drawn) for drawn in self._pairs(torch.randn(len(source), s.noise_dim, device=source.device))]
            by_1 = {"real": self.seen(source), "fake": fakes[SOURCE].detach()}
            by_2 = {"real": self.seen(target), "fake": fakes[TARGET].detach()}
            labelled = "real" if source is batch.source else "labelled"
            by_1.setdefault(labelled, batch.source)
            of_1, of_2 = self.discriminators(by_1, by_2)
            is_real, is_fake = ([real_head(features[name]) for features in (of_1, of_2)] for name in ("real", "fake"))
            logits = class_head(of_1[labelled])
            log_p_1, log_p_2 = (class_head(features["fake"]).float().log_softmax(1) for features in (of_1, of_2))
            if s.feature_weight and self.noisy:  # dropout is no distance
                of_1, of_2 = self.discriminators.matched({"fake": by_1["fake"]}, {"fake": by_2["fake"]})
        values = {
            "discriminator_adversarial": torch.stack(
                [losses.real_fake(judged, True) for judged in is_real] + [losses.real_fake(judged, False) for judged in is_fake]
            ).sum(),
            "class": losses.cross_entropy(logits, batch.source_labels),
            "pair_class": losses.kl_divergence(log_p_1.detach(), log_p_2),
        }
        total = (
            s.adversarial_weight * values["discriminator_adversarial"]
            + s.class_weight * values["class"]
            + s.pair_class_weight * values["pair_class"]
        )
        if s.feature_weight:
            values["feature"] = losses.distance(of_1["fake"], of_2["fake"], "l2")
            total = total + s.feature_weight * values["feature"]
        self.players.step("discriminators", total)

        with self.runtime.autocast():
            of_1, of_2 = self.discriminators({"fake": fakes[SOURCE]}, {"fake": fakes[TARGET]})
            judged = real_head(torch.cat([of_1["fake"], of_2["fake"]]))
        # The mean over both domains at once, doubled, is the sum over i of the objective.
        values["generator_adversarial"] = 2 * losses.real_fake(judged, True)
        self.players.step("generators", s.adversarial_weight_generator * values["generator_adversarial"])
        return self.advance(values)

    def _pairs(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.generators.tied(noise)
        return self.generators.private[SOURCE](hidden), self.generators.private[TARGET](hidden)

    @torch.no_grad()
    def draw_pairs(self, count: int) -> tuple[Tensor, Tensor]:
        with self.runtime.autocast():
            source, target = self._pairs(torch.randn(count, self.settings.noise_dim, device=self.runtime.device))
            return source.float(), target.float()

    def classifier(self) -> nn.Module:
        """C_2 with weights averaged over the last steps."""
        return self.averaged
