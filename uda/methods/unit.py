"""UNIT as domain adaptation: Liu, Breuel, Kautz, "Unsupervised Image-to-Image Translation Networks", NIPS 2017.

Domain 1 is the source (labelled), domain 2 the target (not). With codes z_i ~ q_i(z | x_i) = N(E_i(x_i), I), streams
x^{i->j} = G_j(z_i), and discriminators D_i = real/fake head . trunk . stem_i whose trunk is tied and also carries the
class head C_i, the two players of the alternating game minimise

    D:     adversarial       sum_i  -log D_i(x_i) - log(1 - D_i(x^{j->i}))                    eq. 4
           class             cross-entropy of C_1(x_1) and the source labels                  section 4.3
           feature           sum_i  |trunk(stem_1(x^{i->1})) - trunk(stem_2(x^{i->2}))|       section 4.3
           self-training     information maximisation on C_2(x_2), and its mean teacher's pseudo-labels
           translated class  cross-entropy of C_2(x^{1->2}) and the source labels, on x^{1->2} as it is and augmented
           target stem       cross-entropy of C_2(x_1) and the source labels, where translations alone do not hold stem_2
    E, G:  adversarial       sum_i  -log D_i(x^{j->i})
           VAE               sum_i  KL(q_i(z_i | x_i) || N(0, I)) + |x_i - x^{i->i}|          eq. 3
           cycle             sum_i  KL(q_j(z | x^{i->j}) || N(0, I)) + |x_i - x^{i->j->i}|    eq. 5
           translated class  as above
           and back          cross-entropy of C_1(x^{2->1}), the same way, and the class that the mean teacher is sure of
           statistics        sum_i  |means - means|^2 + |stds - stds|^2, over a batch, of pixels of x^{j->i} and of x_i, at half
                             the resolution

Self-training, the classes of translations, statistics and C_2(x_1) are ours, and need no target label: the published objective
leaves stem_2 to the adversarial and feature terms alone, and it drifts. Target images are translated as they are; source images
augmented, or with `source_weak` as they are, too, and the class head alone learns from augmented ones. Each distance is a sum
over an image's (or a feature vector's) numbers and a mean over the batch. Of eq. 5's two KL terms the translated code's alone is
computed: eq. 3 holds the other, so that the paper's weight of it, here, is lambda_1 + lambda_3.

The released code of the digit experiments differs from the paper, and both from our defaults; settings bring either back, and
`recipes/svhn2mnist-paper.toml` holds the release's. It judges reconstructions, too (`adversarial_on_reconstructions`), weighs D's
game half as much as that of E and G (`adversarial_weight_discriminator`), leaves out the 1/2 of the divergence, and learns sigma.

Where a body is frozen, D is that body with what is trained above it: stem_i reads what the body makes of an image. The class head
learns from what is kept of whole images; all that is compared with drawn images is brought to their side first, and both go
through the body, whose weights stay and whose gradients pass.

The step does no work twice: one pass through encoders and generators serves both players, and each player makes one pass
through each stem and one through the trunk. Where these draw noise in training (dropout), feature matching takes a pass of its
own without: one image read by two like stems is at no distance from itself.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.errors import UserError
from uda.methods.adversarial import AdversarialSettings, add_adversaries
from uda.methods.base import Read, Shape
from uda.methods.translating import Translating
from uda.models.backbones import Backbone, Classifier
from uda.models.identity import IdentityEncoders, IdentityGenerators
from uda.models.layers import (
    SOURCE,
    TARGET,
    by_domain,
    convert_domain_batch_norm,
    draw_gaussian,
    draw_weights,
    draw_xavier,
    draws_noise,
    read_grey,
    widen_for_coordinates,
    write_grey,
)
from uda.models.translators import (
    GeneratorPair,
    Posterior,
    Spread,
    Streams,
    TiedEncoders,
    TiedGenerators,
    Translator,
    backbone_layers,
    convolutional_layers,
)
from uda.players import Players
from uda.runtime import Runtime, evaluating
from uda.types import UnitInterval


class UNITSettings(AdversarialSettings):
    """UNIT's settings. Weights are the lambdas of the objective; a weight of 0 leaves its term out."""

    name: str = "unit"
    encoder: Literal["backbone", "convolutional", "pixels"] = "backbone"
    """the source classifier's own network (so that codes know classes from the start), the paper's convolutions, or, for
    photographs, maps of pixels, whose generators begin as the identity"""
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
    blocks: NonNegativeInt = 3
    """of encoders of pixels and their generators: residual blocks of each"""
    tied_layers: NonNegativeInt = 1
    """how many of them, next to the code, are one for both domains"""
    code_scale: PositiveFloat = 30.0
    """how many times as large as pixels (-1..1) codes of pixels begin, beside noise of variance 1"""
    drawn_batch: PositiveInt | None = None
    """how many source images of a batch are translated, and as many of the target; left out: all of the source"""
    source_weak: bool = False
    """whether source images are translated as they are, and only what the class head learns from is augmented; else G_1 learns to
    draw augmented ones"""
    posterior: Spread = "unit"
    """variance of q(z|x): 1, as in the paper, or learned; softplus, as the released code learns it"""
    slope: NonNegativeFloat = 0.1
    """of the LeakyReLU in convolutional encoders and in generators; 0.01 in the release"""
    grey_target: bool = False
    """whether the target, in a run in colour, is grey, and is read and drawn as one channel, as in the release"""
    initial_weights: Literal["layers", "published"] = "layers"
    """of networks that start afresh: as their layers are initialised, both domains alike; or as in the release, each its own"""
    warm_start: bool = True
    """whether D (and backbone encoders) start from the source classifier's weights, or afresh"""

    adversarial_weight: NonNegativeFloat = 0.5
    adversarial_weight_discriminator: NonNegativeFloat | None = None
    """for D, where it is to be another; half of it makes a mean, which the release has there, of the objective's sum over i"""
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
    """self-training: information maximisation on real target images"""
    pseudo_label_weight: NonNegativeFloat = 1.0
    """self-training: pseudo-labels of the mean teacher"""
    confidence: UnitInterval = 0.9
    """the teacher's class counts when its probability is above this"""
    self_training_from: UnitInterval = 0.0
    """the share of the steps after which these terms of D begin; where C_2 learns from translations, it is better by then"""
    translated_class_weight: NonNegativeFloat = 1.0
    """for E and G: translated source images keep their class"""
    translated_class_augmented: bool = False
    """whether C_2 reads these images augmented, too, as self-training reads real ones, and C_1 those that are translated back:
    then generators can hardly learn to deceive them, and the weights can be higher. C_2 learns from both, where it does so"""
    translated_pseudo_label_weight: NonNegativeFloat = 0.0
    """for E and G: translated target images keep the class that the teacher is sure of"""
    statistics_weight: NonNegativeFloat = 0.0
    """for E and G: pixels of translations, at half the resolution, vary from image to image as those of real images do: of its
    own G draws all of them light on dark, say, where real ones are either"""
    translated_class_weight_discriminator: NonNegativeFloat = 0.0
    """for D: C_2 learns from translated source images, which makes it more forgiving of bad ones"""
    target_stem_class_weight: NonNegativeFloat = 0.0
    """for D: C_2 learns from the labelled source images themselves, too, all that C_1 learns from: where domains are far apart,
    the first translations are too bad to hold the target's stem"""


def starting_point(classifier: Classifier, warm: bool) -> Classifier:
    """A copy of the source classifier with batch-norm statistics by domain; without `warm` its weights are drawn afresh."""
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
        real_head = nn.Linear(backbone.feature_dim, 1)
        # Dropout that belongs to the class head stands before this one, too.
        dropout = [copy.deepcopy(part) for part in self.class_head.modules() if isinstance(part, nn.Dropout)]
        self.real_head = nn.Sequential(*dropout, real_head) if dropout else real_head

    def forward(self, by_1: dict[str, Tensor], by_2: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Trunk features (N, D) of the images that D_1 reads and of those that D_2 reads, under their names: one pass for all."""
        read = torch.cat([*by_1.values()]), torch.cat([*by_2.values()])
        rows = (len(read[SOURCE]), SOURCE), (len(read[TARGET]), TARGET)
        hidden = [by_domain(self.stems[row[1]], read[row[1]], row) for row in rows]
        if len(self.trunks) == 2:
            features = torch.cat([by_domain(self.trunks[row[1]], hidden[row[1]], row) for row in rows])
        else:
            features = by_domain(self.trunks[0], torch.cat(hidden), *rows)
        parts = iter(features.split([len(images) for images in (*by_1.values(), *by_2.values())]))
        # The parts come in the order in which the images went in.
        return {name: next(parts) for name in by_1}, {name: next(parts) for name in by_2}

    def matched(self, by_1: dict[str, Tensor], by_2: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The features that feature matching compares: as `forward`, without the noise that layers draw in training."""
        with evaluating(self, gradients=True):
            return self.forward(by_1, by_2)

    def target_classifier(self) -> Classifier:
        """C_2 = class head . trunk . stem_2, made of the same modules."""
        return Classifier(Backbone(self.stems[TARGET], self.trunks[-1], self.feature_dim), self.class_head)


def translators(s: UNITSettings, shape: Shape, backbone: Backbone) -> tuple[TiedEncoders | IdentityEncoders, GeneratorPair]:
    """E and G, as the settings say; of the classifier's network where these ask for that."""
    channels, size, _ = shape
    if s.encoder == "pixels":
        options = s.width, s.blocks, s.tied_layers, s.code_scale
        return IdentityEncoders(channels, *options), IdentityGenerators(channels, *options)
    if s.encoder == "backbone":
        layers, features = backbone_layers(backbone), backbone.feature_dim
    else:
        layers, features = convolutional_layers(channels, size, s.width, s.slope), 8 * s.width
    encoders = TiedEncoders(
        layers, features, s.code_dim, s.private_encoder_layers, s.posterior, s.coordinates in ("encoder", "both")
    )
    return encoders, TiedGenerators(channels, size, s.width, s.code_dim, s.private_generator_layers, s.slope)


class UNIT(Translating):
    """The two players and their alternating updates."""

    Settings = UNITSettings
    settings: UNITSettings
    reads_pixels = True

    def __init__(
        self,
        settings: UNITSettings,
        classifier: Classifier,
        shape: Shape,
        steps: int,
        runtime: Runtime,
        read: Read | None = None,
    ) -> None:
        super().__init__(settings, classifier, shape, steps, runtime, read)
        s = settings
        start = starting_point(classifier, s.warm_start)
        if read is not None and s.encoder == "backbone":
            raise UserError('what follows a frozen body reads no images; set method.encoder to "pixels" or "convolutional"')
        if s.encoder == "pixels" and (s.grey_target or s.initial_weights == "published"):
            raise UserError('method.grey_target and published method.initial_weights want another method.encoder than "pixels"')
        self.encoders, self.generators = translators(s, shape, start.backbone)
        self.discriminators = TiedDiscriminators(start, s.coordinates in ("discriminator", "both"), s.tied_trunk)
        if s.grey_target:
            self._make_target_grey(shape[0])
        if s.initial_weights == "published":
            self._draw_published_weights()
        self.counted = slice(1 if s.grey_target else None)  # of the target's channels: those of a grey one are equal
        # With weights averaged over the last steps: the teacher, which classifies in the end, and the translator.
        self.teacher = copy.deepcopy(self.discriminators.target_classifier()).requires_grad_(False).eval()
        self.translator = copy.deepcopy(Translator(self.encoders, self.generators)).requires_grad_(False).eval()

    def _make_target_grey(self, channels: int) -> None:
        if not self.settings.private_encoder_layers or not self.settings.private_generator_layers:
            raise UserError("method.grey_target wants a first and a last layer of the target's own; give each domain one or more")
        encoders, generators, stems = self.encoders.private, self.generators.private, self.discriminators.stems
        encoders[TARGET] = read_grey(encoders[TARGET], channels)
        generators[TARGET] = write_grey(generators[TARGET], channels)
        if self.read_drawn is None:  # else it reads what a frozen body makes of images
            stems[TARGET] = read_grey(stems[TARGET], channels)

    def _draw_published_weights(self) -> None:
        """As the release draws them; biases of the code's layer from N(0, 0.002^2)."""
        if self.settings.warm_start:
            raise UserError(
                'method.initial_weights = "published" wants networks that start afresh: set method.warm_start = false'
            )
        assert isinstance(self.encoders, TiedEncoders)
        draw_xavier(self.discriminators)
        draw_gaussian(self.encoders)
        draw_gaussian(self.generators)
        nn.init.normal_(cast(nn.Linear, self.encoders.tied[-1]).bias, std=0.002)

    def setup(self, target: Domain, players: Players) -> None:
        """Learns the target's batch-norm statistics, for D_2 and E_2 alike, and makes an optimiser for each player."""
        super().setup(target, players)
        student = self.discriminators.target_classifier()

        def read(images: Tensor) -> None:
            student(images)
            if self.settings.encoder == "backbone":
                self.encoders.encode(images, TARGET)

        self.update_bn(nn.ModuleList([student, self.encoders]), read, target)
        blank = torch.zeros(2, *self.shape, device=self.runtime.device)
        with self.runtime.autocast():
            self.noisy = self.settings.feature_weight > 0 and draws_noise(student.backbone, self.seen(blank))
        add_adversaries(players, self.settings, self.discriminators, self.encoders, self.generators)
        players.add_ema(self.teacher, student, self.settings.ema_decay)
        players.add_ema(self.translator, Translator(self.encoders, self.generators), self.settings.ema_decay)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D with E, G fixed, then one of E, G with D fixed; returns every loss, unweighted."""
        # As many target images as there are source images, as they are: what translations are to look like. Self-training
        # reads the augmented ones, all of them: more than are translated, since those cost little.
        source, target = batch.pixels(self.settings.drawn_batch, self.settings.source_weak)
        target = target[: len(source)]
        with self.runtime.autocast():
            posterior = self.encoders(source, target)
            streams = self.generators(posterior.sample())
            drawn = self._drawn(streams)
        values = self._update_discriminators(batch, (source, target), streams, drawn)
        values |= self._update_generators(batch, (source, target), posterior, streams, drawn)
        return self.advance(values)

    def _drawn(self, streams: Streams) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What D_1 and D_2 read of what was drawn, by name; both players' passes begin with it."""
        by_1, by_2 = {"translated": streams.target_source}, {"translated": streams.source_target}
        if self.settings.feature_weight or self.settings.adversarial_on_reconstructions:
            by_1["reconstructed"], by_2["reconstructed"] = streams.source_source, streams.target_target
        seen_1, seen_2 = ({name: self.seen(images) for name, images in by.items()} for by in (by_1, by_2))
        return seen_1, seen_2

    def _update_discriminators(
        self,
        batch: Batch,
        real: tuple[Tensor, Tensor],
        streams: Streams,
        drawn: tuple[dict[str, Tensor], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        s = self.settings
        begun = self.done >= s.self_training_from * self.steps
        self_training = begun and (s.information_weight > 0 or s.pseudo_label_weight > 0)
        drawn_1, drawn_2 = ({name: seen.detach() for name, seen in of.items()} for of in drawn)
        fakes = ("translated", "reconstructed") if s.adversarial_on_reconstructions else ("translated",)
        with self.runtime.autocast():
            of_1, of_2 = self._read(batch, real, streams, (drawn_1, drawn_2), self_training)
            class_head, real_head = self.discriminators.class_head, self.discriminators.real_head
            source_logits, target_logits = class_head(of_1["labelled"]), class_head(of_2["augmented"])
            translated_logits = class_head(torch.cat([of_2["translated"], *_popped(of_2, "translated augmented")]))
            target_stem_logits = class_head(of_2["labelled"]) if s.target_stem_class_weight else None
            teacher_logits = self.teacher(batch.target_weak) if self_training and s.pseudo_label_weight else target_logits
            is_real = [real_head(features["real"]) for features in (of_1, of_2)]
            is_fake = [real_head(torch.cat([features[name] for name in fakes])) for features in (of_1, of_2)]
            if s.feature_weight and self.noisy:
                of_1, of_2 = self.discriminators.matched(drawn_1, drawn_2)
        labels = batch.source_labels[: len(real[SOURCE])]
        values = {
            "discriminator_adversarial": torch.stack(
                [losses.real_fake(logits, True) for logits in is_real] + [losses.real_fake(logits, False) for logits in is_fake]
            ).sum(),
            "class": losses.cross_entropy(source_logits, batch.source_labels),
            "target_entropy": losses.entropy(target_logits),
            "target_marginal_entropy": losses.marginal_entropy(target_logits, self.target_shares),
            "pseudo_label": losses.pseudo_label(target_logits, teacher_logits, s.confidence),
            "translated_class": losses.cross_entropy(translated_logits, labels.repeat(len(translated_logits) // len(labels))),
        }
        own_weight = s.adversarial_weight_discriminator
        total = (
            (s.adversarial_weight if own_weight is None else own_weight) * values["discriminator_adversarial"]
            + s.class_weight * values["class"]
            + s.translated_class_weight_discriminator * values["translated_class"]
        )
        if target_stem_logits is not None:
            values["target_stem_class"] = losses.cross_entropy(target_stem_logits, batch.source_labels)
            total = total + s.target_stem_class_weight * values["target_stem_class"]
        if self_training:
            total = total + s.information_weight * (values["target_entropy"] - values["target_marginal_entropy"])
            total = total + s.pseudo_label_weight * values["pseudo_label"]
        if s.feature_weight:
            # The pairs (x^{1->1}, x^{1->2}) and (x^{2->2}, x^{2->1}): one content, two domains.
            of_source = losses.distance(of_1["reconstructed"], of_2["translated"], s.feature_norm)
            of_target = losses.distance(of_2["reconstructed"], of_1["translated"], s.feature_norm)
            values["feature"] = of_source + of_target
            total = total + s.feature_weight * values["feature"]
        self.players.step("discriminators", total)
        return values

    def _read(
        self,
        batch: Batch,
        real: tuple[Tensor, Tensor],
        streams: Streams,
        drawn: tuple[dict[str, Tensor], dict[str, Tensor]],
        self_training: bool,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Features of all that D_1 and D_2 read in D's update, by name: one pass for both domains."""
        s, (drawn_1, drawn_2) = self.settings, drawn
        by_1, by_2 = {"real": self.seen(real[SOURCE])}, {"real": self.seen(real[TARGET])}
        # The class head learns from all labelled images, and behind a frozen body from whole ones.
        if real[SOURCE] is not batch.source:
            by_1["labelled"] = batch.source
        if self_training:
            by_2["augmented"] = batch.target
        if s.target_stem_class_weight:
            by_2["labelled"] = batch.source
        if self.noisy and not s.adversarial_on_reconstructions:
            by_1["translated"], by_2["translated"] = drawn_1["translated"], drawn_2["translated"]
        else:
            by_1, by_2 = by_1 | drawn_1, by_2 | drawn_2
        if s.translated_class_weight_discriminator and s.translated_class_augmented:
            by_2["translated augmented"] = self._augmented(batch, streams.source_target.detach())
        of_1, of_2 = self.discriminators(by_1, by_2)
        return {"labelled": of_1["real"], **of_1}, {"augmented": of_2["real"], **of_2}

    def _update_generators(
        self,
        batch: Batch,
        real: tuple[Tensor, Tensor],
        posterior: Posterior,
        streams: Streams,
        drawn: tuple[dict[str, Tensor], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        s, count = self.settings, len(real[SOURCE])
        judged = ("translated", "reconstructed") if s.adversarial_on_reconstructions else ("translated",)
        by_1, by_2 = ({name: seen[name] for name in judged} for seen in drawn)
        with self.runtime.autocast():
            if s.translated_class_augmented:
                by_2["augmented"] = self._augmented(batch, streams.source_target)
                if s.translated_pseudo_label_weight:
                    by_1["augmented"] = self.seen(self.runtime.arrange(batch.augment_source(streams.target_source.float())))
            of_1, of_2 = self.discriminators(by_1, by_2)
            classified_1, classified_2 = ([of["translated"], *_popped(of, "augmented")] for of in (of_1, of_2))
            is_real = self.discriminators.real_head(torch.cat([*of_1.values(), *of_2.values()]))
            translated_logits = self.discriminators.class_head(torch.cat(classified_2))
        # Means over both domains at once, doubled, are the sums over i of the objective.
        values = {
            "generator_adversarial": 2 * losses.real_fake(is_real, True),
            "reconstruction": self._distance(*real, streams.source_source, streams.target_target),
            "kl": 2 * losses.kl_to_standard_normal(*posterior),
            "generator_class": losses.cross_entropy(translated_logits, batch.source_labels[:count].repeat(len(classified_2))),
        }
        total = (
            s.adversarial_weight * values["generator_adversarial"]
            + s.reconstruction_weight * values["reconstruction"]
            + s.kl_weight * values["kl"]
            + s.translated_class_weight * values["generator_class"]
        )
        if s.translated_pseudo_label_weight:
            with self.runtime.autocast():
                told = self.discriminators.class_head(torch.cat(classified_1))
                teacher = self.teacher(batch.target_weak[:count]).repeat(len(classified_1), 1)
            values["generator_pseudo_label"] = losses.pseudo_label(told, teacher, s.confidence)
            total = total + s.translated_pseudo_label_weight * values["generator_pseudo_label"]
        if s.statistics_weight:
            x_1, x_2, drawn_1, drawn_2 = (
                F.avg_pool2d(x.float(), 2) for x in (*real, streams.target_source, streams.source_target)
            )
            of_target = losses.statistics_distance(drawn_2[:, self.counted], x_2[:, self.counted])
            values["statistics"] = losses.statistics_distance(drawn_1, x_1) + of_target
            total = total + s.statistics_weight * values["statistics"]
        if s.cycle_weight or s.cycle_kl_weight:
            with self.runtime.autocast():
                back = self.encoders(streams.target_source, streams.source_target)
                returned = self.generators(back.sample())
            # The first half of these codes was read off x^{2->1}, the second off x^{1->2}.
            values["cycle"] = self._distance(*real, returned.target_source, returned.source_target)
            values["cycle_kl"] = 2 * losses.kl_to_standard_normal(*back)
            total = total + s.cycle_weight * values["cycle"] + s.cycle_kl_weight * values["cycle_kl"]
        self.players.step("generators", total)
        return values

    def _augmented(self, batch: Batch, translated: Tensor) -> Tensor:
        """What D_2 reads of translated source images that are changed at random as self-training changes real ones."""
        return self.seen(self.runtime.arrange(batch.augment(translated.float())))

    def _distance(self, x_1: Tensor, x_2: Tensor, drawn_1: Tensor, drawn_2: Tensor) -> Tensor:
        """sum_i |x_i - drawn_i|."""
        norm = self.settings.reconstruction_norm
        return losses.distance(drawn_1, x_1, norm) + losses.distance(drawn_2[:, self.counted], x_2[:, self.counted], norm)

    def classifier(self) -> nn.Module:
        """The teacher: C_2 with weights averaged over the last steps."""
        return self.teacher


def _popped(named: dict[str, Tensor], name: str) -> list[Tensor]:
    return [named.pop(name)] if name in named else []
