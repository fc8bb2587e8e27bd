"""UNIT as translation: Liu, Breuel, Kautz, "Unsupervised Image-to-Image Translation Networks", NIPS 2017. No classifier.

Images of two domains, no labels. With codes z_i ~ q_i(z | x_i) = N(E_i(x_i), I), which are maps, streams x^{i->j} = G_j(z_i), and
discriminators D_i, the two players of the alternating game minimise

    D:     lambda_0  sum_i  -log D_i(x_i) - log(1 - D_i(x^{j->i}))                                            eq. 4
    E, G:  lambda_0  sum_i  -log D_i(x^{j->i})                                                               eq. 4
           lambda_1  sum_i  KL(q_i(z_i | x_i) || N(0, I))     lambda_2  sum_i  |x_i - x^{i->i}|               eq. 3
           lambda_3  sum_i  KL(q_j(z | x^{i->j}) || N(0, I))  lambda_4  sum_i  |x_i - x^{i->j->i}|            eq. 5

with lambda = 10, 0.1, 100, 0.1, 100; distances and divergences are means over an image's or a code's numbers. Eq. 5 holds the
first divergence once more, with lambda_3: in all the paper has lambda_1 + lambda_3 of it (`mean_kl_weight = 0.2`, recipe
`translate-paper`); the default is half of that. Without the cycle (`mean_cycle_weight = mean_cycle_kl_weight = 0`) this is the
shared-latent model alone. Without tied layers (`tied_layers = 0`) it still has the VAEs; the paper's "no weight sharing", which
is CycleGAN, has none, no reconstructions, and domains that share nothing at the beginning either: `tied_layers = 0`,
`variational = false`, `start_alike = false`, and weights of 0 for the reconstruction and both divergences.
"""

from __future__ import annotations

import copy

import torch
from pydantic import AliasChoices, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.adversarial import AdversarialSettings, add_adversaries
from uda.methods.base import Shape
from uda.methods.translating import Translating
from uda.models.backbones import Classifier
from uda.models.discriminators import patch_discriminator
from uda.models.layers import SOURCE, TARGET, draw_weights
from uda.models.spatial import SpatialEncoders, SpatialGenerators
from uda.models.translators import Posterior, Translator
from uda.players import Players
from uda.runtime import Runtime


class UNITTranslationSettings(AdversarialSettings):
    """The weights are the paper's; the width is a quarter of the release's."""

    name: str = "unit_translation"
    width: PositiveInt = 16
    """of the first layer of each network; 64 in the release"""
    blocks: NonNegativeInt = 4
    """residual blocks of each encoder and each generator"""
    tied_layers: NonNegativeInt = 1
    """how many of them, next to the code, are one for both domains; 0: none"""
    variational: bool = True
    """whether codes are drawn around what the encoders say, as a VAE's are, or are just that"""
    start_alike: bool = True
    """whether the networks of both domains begin with the same weights, so that codes correspond at first"""
    discriminator_depth: PositiveInt = 5
    """layers of stride 2; 6 in the release"""
    code_scale: PositiveFloat = 4.0
    """how many times as large as instance norm makes them codes are, beside noise of variance 1: the networks can learn to make
    them so, and need thousands of steps for it"""

    adversarial_weight: NonNegativeFloat = 10.0
    mean_kl_weight: NonNegativeFloat = Field(default=0.1, validation_alias=AliasChoices("mean_kl_weight", "kl_weight"))
    """this and the next three are of means over a code's or an image's numbers; elsewhere such weights are of sums"""
    mean_reconstruction_weight: NonNegativeFloat = Field(
        default=100.0, validation_alias=AliasChoices("mean_reconstruction_weight", "reconstruction_weight")
    )
    mean_cycle_kl_weight: NonNegativeFloat = Field(
        default=0.1, validation_alias=AliasChoices("mean_cycle_kl_weight", "cycle_kl_weight")
    )
    mean_cycle_weight: NonNegativeFloat = Field(default=100.0, validation_alias=AliasChoices("mean_cycle_weight", "cycle_weight"))

    learning_rate: NonNegativeFloat = 1e-4


def mean_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of |a - b|."""
    return (a.float() - b.float()).abs().mean()


def mean_divergence(codes: Tensor) -> Tensor:
    """KL(N(codes, I) || N(0, I)), a mean over the code's numbers."""
    return 0.5 * codes.float().square().mean()


class UNITTranslation(Translating):
    """The two players and their alternating updates."""

    Settings = UNITTranslationSettings
    settings: UNITTranslationSettings
    classifies = False
    any_shape = True

    def __init__(
        self, settings: UNITTranslationSettings, classifier: Classifier | None, shape: Shape, steps: int, runtime: Runtime
    ) -> None:
        super().__init__(settings, None, shape, steps, runtime)
        s, (channels, size, _) = settings, shape
        self.networks = Translator(
            SpatialEncoders(channels, size, s.width, s.blocks, s.tied_layers, s.code_scale),
            SpatialGenerators(channels, s.width, 4 * s.width, s.blocks, s.tied_layers),
        )
        if not s.start_alike:
            draw_weights(self.networks.encoders.private[TARGET])
            draw_weights(self.networks.generators.private[TARGET])
        self.translator = copy.deepcopy(self.networks).requires_grad_(False).eval()  # with averaged weights
        self.discriminators = nn.ModuleList(
            [patch_discriminator(channels, size, s.width, s.discriminator_depth) for _ in range(2)]
        )

    def setup(self, target: Domain, players: Players) -> None:
        super().setup(target, players)
        add_adversaries(players, self.settings, self.discriminators, self.networks)
        players.add_ema(self.translator, self.networks, self.settings.ema_decay)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D with E, G fixed, then one of E, G with D fixed; returns every loss, unweighted."""
        s = self.settings
        encoders, generators = self.networks.encoders, self.networks.generators
        real = batch.source, batch.target[: len(batch.source)]  # both as augmented: mirrored, for instance
        originals = torch.cat(real)
        with self.runtime.autocast():
            posterior = encoders(*real)
            streams = generators(self._codes(posterior))
        translated = streams.target_source, streams.source_target  # into each domain

        with self.runtime.autocast():
            judged = [
                self.discriminators[domain](torch.cat([real[domain], translated[domain].detach()])).chunk(2)
                for domain in (SOURCE, TARGET)
            ]
        adversarial = [losses.real_fake(a, True) + losses.real_fake(b, False) for a, b in judged]
        values = {"discriminator_adversarial": torch.stack(adversarial).sum()}
        self.players.step("discriminators", s.adversarial_weight * values["discriminator_adversarial"])

        with self.runtime.autocast():
            is_real = [self.discriminators[domain](translated[domain]) for domain in (SOURCE, TARGET)]
        # Means over both domains at once, doubled, are the sums over i of the objective.
        values |= {
            "generator_adversarial": torch.stack([losses.real_fake(logits, True) for logits in is_real]).sum(),
            "reconstruction": 2 * mean_distance(torch.cat([streams.source_source, streams.target_target]), originals),
            "kl": 2 * mean_divergence(posterior.mean),
        }
        total = (
            s.adversarial_weight * values["generator_adversarial"]
            + s.mean_reconstruction_weight * values["reconstruction"]
            + s.mean_kl_weight * values["kl"]
        )
        if s.mean_cycle_weight or s.mean_cycle_kl_weight:
            with self.runtime.autocast():
                back = encoders(*translated)  # the first half of these codes was read off x^{2->1}, the second off x^{1->2}
                returned = generators(self._codes(back))
            cycled = torch.cat([returned.target_source, returned.source_target])
            values["cycle"] = 2 * mean_distance(cycled, originals)
            values["cycle_kl"] = 2 * mean_divergence(back.mean)
            total = total + s.mean_cycle_weight * values["cycle"] + s.mean_cycle_kl_weight * values["cycle_kl"]
        self.players.step("generators", total)
        return self.advance(values)

    def _codes(self, posterior: Posterior) -> Tensor:
        return posterior.sample() if self.settings.variational else posterior.mean
