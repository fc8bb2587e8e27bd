"""UNIT as domain adaptation: Liu, Breuel, Kautz, "Unsupervised Image-to-Image Translation Networks", NIPS 2017.

Domain 1 is the source (labelled), domain 2 the target (not). With codes z_i ~ q_i(z | x_i) = N(E_i(x_i), I), streams
x^{i->j} = G_j(z_i), and discriminators D_i = real/fake head . trunk . stem_i whose trunk is tied and also carries the
class head C_i, the two players of the alternating game minimise

    D:     adversarial   sum_i  -log D_i(x_i) - log(1 - D_i(x^{j->i}))                    eq. 4
           class         cross-entropy of C_1(x_1) and the source labels                  section 4.3
           feature       sum_i  |trunk(stem_1(x^{i->1})) - trunk(stem_2(x^{i->2}))|       section 4.3
           anchor (a)    information maximisation on C_2(x_2), and its mean teacher's pseudo-labels
           anchor (b)    cross-entropy of C_2(x^{1->2}) and the source labels
    E, G:  adversarial   sum_i  -log D_i(x^{j->i})
           VAE           sum_i  KL(q_i(z_i | x_i) || N(0, I)) + |x_i - x^{i->i}|          eq. 3
           cycle         sum_i  KL(q_j(z | x^{i->j}) || N(0, I)) + |x_i - x^{i->j->i}|    eq. 5
           anchor (b)    as above, on x^{1->2} as it is and augmented

The anchors are ours, and need no target label: the published objective leaves stem_2 to the adversarial and feature terms
alone, and it drifts. The step does no work twice: one pass through encoders and generators serves both players, and each
player makes one pass through each stem and one through the trunk.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.methods.adversarial import Adversaries, AdversarySettings
from uda.methods.base import update_bn
from uda.methods.translating import Translating
from uda.models.backbones import Backbone, Classifier
from uda.models.layers import SOURCE, TARGET, by_domain, convert_domain_batch_norm, draw_weights, widen_for_coordinates
from uda.models.translators import (
    Posterior,
    Streams,
    TiedEncoders,
    TiedGenerators,
    Translator,
    backbone_layers,
    convolutional_layers,
)
from uda.players import update_ema
from uda.runtime import Runtime
from uda.types import UnitInterval


class Settings(AdversarySettings):
    """UNIT's settings. Weights are the lambdas of the objective; a weight of 0 leaves its term out."""

    name: str = "unit"
    encoder: Literal["backbone", "convolutional"] = "backbone"
    """the source classifier's own network (so that codes know classes from the start), or the paper's convolutions"""
    width: PositiveInt = 16
    """base width of the generators, and of convolutional encoders"""
    code_dim: PositiveInt = 256
    """numbers in a code z"""
    private_encoder_layers: NonNegativeInt = 1
    """how many encoder layers, counted from the image, each domain has for itself; the rest are tied"""
    private_generator_layers: NonNegativeInt = 2
    """the same for the generators"""
    tied_trunk: bool = True
    """whether the discriminators share all layers above their stems"""
    coordinates: Literal["none", "encoder", "discriminator", "both"] = "encoder"
    """whose input gets two channels with each pixel's x and y"""
    posterior: Literal["unit", "learned"] = "unit"
    """variance of q(z|x): 1, as in the paper, or learned, as in the released code"""
    warm_start: bool = True
    """whether D (and backbone encoders) start from the source classifier's weights, or afresh"""

    adversarial_weight: NonNegativeFloat = 0.5
    adversarial_on_reconstructions: bool = False
    """whether x^{i->i} are judged real or fake too"""
    class_weight: NonNegativeFloat = 1.0
    feature_weight: NonNegativeFloat = 0.001
    feature_norm: losses.Norm = "l1"
    reconstruction_weight: NonNegativeFloat = 0.01
    reconstruction_norm: losses.Norm = "l1"
    kl_weight: NonNegativeFloat = 1e-4
    cycle_weight: NonNegativeFloat = 0.0
    cycle_kl_weight: NonNegativeFloat = 0.0

    information_weight: NonNegativeFloat = 1.5
    """anchor (a): information maximisation on real target images"""
    pseudo_label_weight: NonNegativeFloat = 1.0
    """anchor (a): pseudo-labels of the mean teacher"""
    confidence: UnitInterval = 0.9
    """the teacher's class counts when its probability is above this"""
    translated_class_weight: NonNegativeFloat = 1.0
    """anchor (b), for E and G: translated source images keep their class"""
    translated_class_augmented: bool = False
    """whether C_2 reads these images augmented, too, as it does real ones for anchor (a): then generators can hardly learn to
    deceive it, and the weight can be higher"""
    translated_class_weight_discriminator: NonNegativeFloat = 0.0
    """anchor (b), for D: C_2 learns from translated source images, which makes it more forgiving of bad ones"""


def starting_point(classifier: Classifier, warm: bool) -> Classifier:
    """A copy of the source classifier with statistics by domain; without `warm` its weights are drawn afresh."""
    start = copy.deepcopy(classifier)
    convert_domain_batch_norm(start)
    if not warm:
        draw_weights(start)
    return start


class TiedDiscriminators(nn.Module):
    """D_1 and D_2: private stems, one trunk (or two), one real/fake head and one class head."""

    def __init__(self, classifier: Classifier, coordinates: bool, tied_trunk: bool) -> None:
        super().__init__()
        backbone, self.class_head = classifier.backbone, classifier.head
        if coordinates:
            backbone.stem = widen_for_coordinates(backbone.stem)
        self.stems = nn.ModuleList([backbone.stem, copy.deepcopy(backbone.stem)])
        self.trunks = nn.ModuleList([backbone.trunk] if tied_trunk else [backbone.trunk, copy.deepcopy(backbone.trunk)])
        self.feature_dim = backbone.feature_dim
        self.real_head = nn.Linear(backbone.feature_dim, 1)

    def forward(self, by_1: list[Tensor], by_2: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Trunk features (N, D) of batches of images that D_1 reads, and of those that D_2 reads: one pass for all."""
        read = torch.cat(by_1), torch.cat(by_2)
        rows = (len(read[SOURCE]), SOURCE), (len(read[TARGET]), TARGET)
        hidden = [by_domain(self.stems[row[1]], read[row[1]], row) for row in rows]
        if len(self.trunks) == 2:
            features = torch.cat([by_domain(self.trunks[row[1]], hidden[row[1]], row) for row in rows])
        else:
            features = by_domain(self.trunks[0], torch.cat(hidden), *rows)
        parts = list(features.split([len(images) for images in (*by_1, *by_2)]))
        return parts[: len(by_1)], parts[len(by_1) :]

    def target_classifier(self) -> Classifier:
        """C_2 = class head . trunk . stem_2, made of the same modules."""
        return Classifier(Backbone(self.stems[TARGET], self.trunks[-1], self.feature_dim), self.class_head)


class Method(Translating, Adversaries):
    """The two players and their alternating updates."""

    def __init__(
        self, settings: Settings, classifier: Classifier, shape: tuple[int, int, int], steps: int, runtime: Runtime
    ) -> None:
        s, (channels, size, _) = settings, shape
        start = starting_point(classifier, s.warm_start)
        if s.encoder == "backbone":
            layers, features = backbone_layers(start.backbone), start.backbone.feature_dim
        else:
            layers, features = convolutional_layers(channels, size, s.width), 8 * s.width
        self.encoders = TiedEncoders(
            layers, features, s.code_dim, s.private_encoder_layers, s.posterior == "learned", s.coordinates in ("encoder", "both")
        )
        self.generators = TiedGenerators(channels, size, s.width, s.code_dim, s.private_generator_layers)
        self.discriminators = TiedDiscriminators(start, s.coordinates in ("discriminator", "both"), s.tied_trunk)
        self.student = self.discriminators.target_classifier()
        # Weights averaged over the last steps: the teacher, and the translator.
        self.trained = nn.ModuleList([self.student, Translator(self.encoders, self.generators)])
        self.averaged = copy.deepcopy(self.trained).requires_grad_(False).eval()
        self.teacher, translator = self.averaged
        self.translator = cast(Translator[TiedEncoders, TiedGenerators], translator)
        self.begin(s, steps, runtime, self.discriminators, self.encoders, self.generators)

    def prepare(self, target: Domain) -> None:
        """Learns the target's statistics of a network with batch norm, for D_2 and E_2 alike."""

        def read(images: Tensor) -> None:
            self.student(images)
            self.encoders.encode(images, TARGET)

        update_bn(nn.ModuleList([self.student, self.encoders]), read, target, self.runtime)
        self.averaged.load_state_dict(self.trained.state_dict())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D with E, G fixed, then one of E, G with D fixed; returns every loss, unweighted."""
        self.set_rate()
        with self.runtime.autocast():
            posterior = self.encoders(batch.source, self._translated_target(batch))
            streams = self.generators(posterior.sample())
        values = self._update_discriminators(batch, Streams(*(stream.detach() for stream in streams)))
        values |= self._update_generators(batch, posterior, streams)
        update_ema(self.averaged, self.trained, self.settings.averaging, self.done)
        self.done += 1
        return {name: value.detach() for name, value in values.items()}

    @staticmethod
    def _translated_target(batch: Batch) -> Tensor:
        """As many target images as there are source images, as they are: the domain that translations are to look like.

        The anchors read the augmented ones, all of them: more than are translated, since those cost little.
        """
        return batch.target_weak[: len(batch.source)]

    def _update_discriminators(self, batch: Batch, streams: Streams) -> dict[str, Tensor]:
        s = self.settings
        # Each discriminator reads real images and translations, and what else a term asks for: reconstructions, anchor images.
        asked = s.feature_weight > 0 or s.adversarial_on_reconstructions
        anchored = s.information_weight > 0 or s.pseudo_label_weight > 0
        by_1 = [batch.source, streams.target_source, *([streams.source_source] if asked else [])]
        by_2 = [self._translated_target(batch), *([batch.target] if anchored else []), streams.source_target]
        by_2 += [streams.target_target] if asked else []
        with self.runtime.autocast():
            (real_1, fake_1, *same_1), (real_2, *rest) = self.discriminators(by_1, by_2)
            anchor = rest.pop(0) if anchored else real_2
            fake_2, *same_2 = rest
            source_logits, target_logits, translated_logits = map(self.discriminators.class_head, (real_1, anchor, fake_2))
            teacher_logits = self.teacher(batch.target_weak) if s.pseudo_label_weight else target_logits
            judged_1, judged_2 = (
                ([fake_1, *same_1], [fake_2, *same_2]) if s.adversarial_on_reconstructions else ([fake_1], [fake_2])
            )
            is_real = [self.discriminators.real_head(real) for real in (real_1, real_2)]
            is_fake = [self.discriminators.real_head(torch.cat(fakes)) for fakes in (judged_1, judged_2)]
        values = {
            "discriminator_adversarial": torch.stack(
                [losses.real_fake(logits, True) for logits in is_real] + [losses.real_fake(logits, False) for logits in is_fake]
            ).sum(),
            "class": losses.cross_entropy(source_logits, batch.source_labels),
            "target_entropy": losses.entropy(target_logits),
            "target_marginal_entropy": losses.marginal_entropy(target_logits),
            "pseudo_label": losses.pseudo_label(target_logits, teacher_logits, s.confidence),
            "translated_class": losses.cross_entropy(translated_logits, batch.source_labels),
        }
        total = (
            s.adversarial_weight * values["discriminator_adversarial"]
            + s.class_weight * values["class"]
            + s.information_weight * (values["target_entropy"] - values["target_marginal_entropy"])
            + s.pseudo_label_weight * values["pseudo_label"]
            + s.translated_class_weight_discriminator * values["translated_class"]
        )
        if s.feature_weight:
            # The pairs (x^{1->1}, x^{1->2}) and (x^{2->2}, x^{2->1}): one content, two domains.
            pairs = (same_1[0], fake_2), (same_2[0], fake_1)
            values["feature"] = torch.stack([losses.distance(a, b, s.feature_norm) for a, b in pairs]).sum()
            total = total + s.feature_weight * values["feature"]
        self.update_discriminators(total)
        return values

    def _update_generators(self, batch: Batch, posterior: Posterior, streams: Streams) -> dict[str, Tensor]:
        s, judged = self.settings, self.settings.adversarial_on_reconstructions
        seen = []
        if s.translated_class_augmented:
            seen = [self.runtime.arrange(batch.augment(streams.source_target.float()))]
        with self.runtime.autocast():
            (fake_1, *same_1), (fake_2, *same_2) = self.discriminators(
                [streams.target_source, *([streams.source_source] if judged else [])],
                [streams.source_target, *seen, *([streams.target_target] if judged else [])],
            )
            translated = [fake_2, *([same_2.pop(0)] if seen else [])]
            is_real = self.discriminators.real_head(torch.cat([fake_1, *same_1, fake_2, *same_2]))
            translated_logits = self.discriminators.class_head(torch.cat(translated))
        # Means over both domains at once, doubled, are the sums over i of the objective.
        originals = torch.cat([batch.source, self._translated_target(batch)])
        rebuilt = torch.cat([streams.source_source, streams.target_target])
        values = {
            "generator_adversarial": 2 * losses.real_fake(is_real, True),
            "reconstruction": 2 * losses.distance(rebuilt, originals, s.reconstruction_norm),
            "kl": 2 * losses.kl_to_standard_normal(*posterior),
            "generator_class": losses.cross_entropy(translated_logits, batch.source_labels.repeat(len(translated))),
        }
        total = (
            s.adversarial_weight * values["generator_adversarial"]
            + s.reconstruction_weight * values["reconstruction"]
            + s.kl_weight * values["kl"]
            + s.translated_class_weight * values["generator_class"]
        )
        if s.cycle_weight or s.cycle_kl_weight:
            with self.runtime.autocast():
                back = self.encoders(streams.target_source, streams.source_target)
                returned = self.generators(back.sample())
            # The first half of these codes was read off x^{2->1}, the second off x^{1->2}.
            cycled = torch.cat([returned.target_source, returned.source_target])
            values["cycle"] = 2 * losses.distance(cycled, originals, s.reconstruction_norm)
            values["cycle_kl"] = 2 * losses.kl_to_standard_normal(*back)
            total = total + s.cycle_weight * values["cycle"] + s.cycle_kl_weight * values["cycle_kl"]
        self.update_generators(total)
        return values

    def classifier(self) -> nn.Module:
        """The teacher: C_2 with weights averaged over the last steps."""
        return self.teacher

    def encode(self, images: Tensor, domain: int) -> Tensor:
        """E_domain(x), the code (N, D) without noise, of images (N, C, S, S) in -1..1."""
        with torch.no_grad(), self.runtime.autocast():
            return self.translator.encoders.encode(self.runtime.arrange(images), domain).mean

    def decode(self, codes: Tensor, domain: int, style: Tensor | None = None) -> Tensor:
        """G_domain(z): images (N, C, S, S) in -1..1, float32."""
        with torch.no_grad(), self.runtime.autocast():
            return self.translator.generators.decode(codes, domain).float()

    def networks(self) -> nn.ModuleDict:
        """All that is trained, and its average."""
        return nn.ModuleDict(
            {
                "encoders": self.encoders,
                "generators": self.generators,
                "discriminators": self.discriminators,
                "averaged": self.averaged,
            }
        )
