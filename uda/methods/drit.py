"""DRIT: Lee et al., "Diverse Image-to-Image Translation via Disentangled Representations", ECCV 2018.

An image of domain i is a content c = E_i(x), which both domains share, and a style a = A_i(x), which is its domain's own (the
paper's attribute). With u = G_1(c_2, a_1) and v = G_2(c_1, a_2), contents swapped, and r ~ N(0, I), the players minimise

    D_c:   content       -log D_c(c_1) - log(1 - D_c(c_2)), `content_updates` times a step
    D:     adversarial   sum_i  -log D_i(x_i) - log(1 - D_i(translations into i, by a_i and by r))
    E, A,  content       -1/2 log D_c - 1/2 log(1 - D_c), of c_1 and c_2
    G:     adversarial   sum_i  -log D_i(the same translations)
           reconstruction          |G_i(c_i, a_i) - x_i|
           cross-cycle             |G_1(E_2(v), A_1(u)) - x_1| + |G_2(E_1(u), A_2(v)) - x_2|
           KL                      KL(q(a_i | x_i) || N(0, I))
           latent regression       |A_i(G_i(c_j, r)) - r|
           mode seeking            1 / (|G_i(c_j, r) - G_i(c_j, r')| / |r - r'| + 1e-5)   Mao et al. 2019; off
           translated class        cross-entropy of C(G_2(c_1, .)) and the source labels         ours
           and back                cross-entropy of C(G_1(c_2, .)) and the class that C's mean teacher is sure of
    C:     class         cross-entropy of the source, and of `draws` translations of each source image, with the source labels
           self-training  information maximisation and a mean teacher's pseudo-labels on the target; ours, off

Reconstruction and cross-cycle are sums over an image's numbers; content, adversarial and latent terms are means: over both
domains (content, latent), over translations by a_i and by r (adversarial). The authors' code has sums there: its weights 1, 1 and
10 are 2, 2 and 20 here, and its 10 of image means is 10 / (C S S), as in `recipes/mnist2mnistm-paper.toml`. In each domain it has
one D for translations by a_i and another for those by r (here one for both), it moves G and E by the terms of r in a step of
their own, and keeps contents small by 0.01 of their mean square. As in that code, a style can join every layer of G
(`styles = "layers"`), and D can read an image at several sizes (`discriminator_scales`), whose terms are summed. Without
`content_weight` there is no D_c.

Target images are translated as they are, source images augmented, or with `source_weak` as they are, too; C learns from augmented
ones. Behind a frozen body E, A, G and D work on small images; C reads their translations, and whole images, through the body.

The paper's adaptation (its section 5) translates each source image `draws` times and trains C on them: every source image keeps
the styles that it was given. Its code was not released.
"""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from uda import losses
from uda.data.augment import Augment
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.errors import UserError
from uda.methods.base import Read, Shape, TeacherSettings, TrainingSettings, WithTeacher
from uda.methods.translating import Codes, Styled
from uda.models.backbones import Classifier, strided
from uda.models.discriminators import MultiScaleDiscriminator
from uda.models.layers import SOURCE, TARGET, convert_domain_batch_norm
from uda.models.spatial import SpatialEncoders, SpatialGenerators, StyledGenerators, with_style
from uda.models.translators import Posterior, TiedEncoders, TiedGenerators, backbone_layers
from uda.players import Players, linear_decay
from uda.runtime import Runtime
from uda.types import UnitInterval

STYLES_KEPT = 2**16  # rows of the table of drawn styles, by the source image's number


class DRITSettings(TeacherSettings):
    """DRIT's settings; its learning rate is the classifier's."""

    name: str = "drit"
    encoder: Literal["map", "backbone"] = "map"
    """content is a map (the paper), or the code of the source classifier's own network, as UNIT's is here"""
    width: PositiveInt = 16
    """base width of generators, discriminators, and of encoders that make a map"""
    blocks: NonNegativeInt = 2
    """residual blocks of encoders and generators of a map"""
    tied_layers: NonNegativeInt = 1
    """how many of them, next to the content, are one for both domains"""
    code_dim: PositiveInt = 256
    """numbers in a content that is not a map"""
    style_dim: PositiveInt = 8
    styles: Literal["input", "layers"] = "input"
    """where the generators read the style: beside the content, or (of contents that are maps) at each layer of their own"""
    discriminator_scales: PositiveInt = 1
    """1: each discriminator reads the whole image; more: parts of it, and of the image halved, halved again, ... (3 in the
    paper's code)"""

    adversarial_weight: NonNegativeFloat = 1.0
    content_weight: NonNegativeFloat = 1.0
    """0: no content discriminator"""
    content_updates: NonNegativeInt = 1
    """of the content discriminator in a step (3 in the paper's code)"""
    reconstruction_weight: NonNegativeFloat = 0.003
    """of sums over pixels, as is the next one"""
    cross_cycle_weight: NonNegativeFloat = 0.003
    kl_weight: NonNegativeFloat = 0.03
    latent_regression_weight: NonNegativeFloat = 10.0
    mode_seeking_weight: NonNegativeFloat = 0.0
    translated_class_weight: NonNegativeFloat = 0.0
    translated_class_augmented: bool = False
    """whether C reads these images augmented, too; then generators can hardly learn to deceive it (as UNIT's setting)"""
    translated_pseudo_label_weight: NonNegativeFloat = 0.0
    """translated target images keep the class that the teacher is sure of, read in the same way"""

    drawn_batch: PositiveInt | None = None
    """how many source images of a batch are translated, and as many of the target; left out: all of the source"""
    source_weak: bool = False
    """whether source images are translated as they are, and only what C learns from is augmented; else G_1 learns to draw
    augmented ones"""
    draws: PositiveInt = 3
    """translations of each source image that the classifier learns from"""
    draws_augmented: bool = False
    """whether it sees them augmented, as it does target images: what is wrong with all of them is harder to learn, then"""
    draws_from: UnitInterval = 0.3
    """the share of the steps after which it does: before, they are noise"""
    translator_share: UnitInterval = 1.0
    """the share of the steps in which the translator learns, the first ones; with that of `draws_from` the classifier learns from
    a finished translator, as in the paper, and not along with it"""
    source_weight: NonNegativeFloat = 1.0
    information_weight: NonNegativeFloat = 0.0
    pseudo_label_weight: NonNegativeFloat = 0.0
    confidence: UnitInterval = 0.9

    translator_rate: NonNegativeFloat = 1e-3
    """Adam's, for encoders, generators and discriminators"""
    content_rate: NonNegativeFloat = 4e-4
    decay_from: UnitInterval = 0.7
    """the share of the translator's steps after which both rates fall in a straight line to 0 (half in the paper's code); 1 keeps
    them constant"""
    betas: tuple[float, float] = (0.5, 0.999)


class StyleEncoders(nn.Module):
    """A_1 and A_2: images (N, C, S, S) to the posterior of a style, means and log-variances (N, style_dim) each."""

    def __init__(self, channels: int, size: int, width: int, style_dim: int) -> None:
        super().__init__()
        backbone = strided(channels, size, width)
        own = nn.Sequential(backbone, nn.Linear(backbone.feature_dim, 2 * style_dim))
        self.private = nn.ModuleList([own, copy.deepcopy(own)])

    def encode(self, images: Tensor, domain: int) -> Posterior:
        return Posterior.learned(self.private[domain](images).float())


Generators = TiedGenerators | SpatialGenerators | StyledGenerators


class Networks(nn.Module):
    """E, A and G of both domains."""

    def __init__(self, encoders: TiedEncoders | SpatialEncoders, styles: StyleEncoders, generators: Generators) -> None:
        super().__init__()
        self.encoders, self.styles, self.generators = encoders, styles, generators


class Drawn(NamedTuple):
    """What G_1 or G_2 makes in one step: images (N, C, S, S)."""

    reconstructed: Tensor
    """G_i(c_i, a_i)"""
    translated: Tensor
    """G_i(c_j, a_i): u in domain 1, v in domain 2"""
    random: Tensor
    """G_i(c_j, r)"""
    other: Tensor | None
    """G_i(c_j, r'), for mode seeking"""


def content_discriminator(code: tuple[int, ...]) -> nn.Module:
    """D_c: contents (N, D) or (N, D, H, W) to one logit."""
    if len(code) == 1:
        return nn.Sequential(nn.Linear(code[0], 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
    return nn.Sequential(
        nn.Conv2d(code[0], 64, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 64, 3, 2, 1), nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1),
    )  # fmt: skip


def judged(outputs: tuple[Tensor, ...], real: bool) -> Tensor:
    """`losses.real_fake` of a discriminator's logits, (N, ...) at each scale: means over images and their parts, summed."""
    return torch.stack([losses.real_fake(logits, real) for logits in outputs]).sum()


def mode_seeking(r: Tensor, r_other: Tensor, *drawn: tuple[Tensor, Tensor]) -> Tensor:
    """1 / (|G(c, r) - G(c, r')| / |r - r'| + 1e-5), each a mean over an image's numbers; then over images of both domains.

    The small number keeps it finite and, unlike a bound, leaves a gradient where two images are nearly the same. Shapes: styles
    (N, A); in each domain, images drawn in r and in r' (N, C, S, S). Source: Mao et al. 2019 and their code.
    """
    first, second = (torch.cat(images).float() for images in zip(*drawn, strict=True))
    apart = (first - second).abs().flatten(1).mean(1)
    return (1 / (apart / (r - r_other).abs().mean(1).repeat(2) + 1e-5)).mean()


class DRIT(Styled, WithTeacher):
    """A translator, and a classifier that learns from its translations."""

    Settings = DRITSettings
    settings: DRITSettings
    reads_pixels = True
    default_training = TrainingSettings(steps=600, batch=48, target_batch=48, evaluate_every=100)

    def __init__(
        self,
        settings: DRITSettings,
        classifier: Classifier,
        shape: Shape,
        steps: int,
        runtime: Runtime,
        read: Read | None = None,
    ) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        self.read_drawn, self.any_shape = read, settings.encoder == "map"
        s, (channels, size, _) = settings, shape
        if read is not None and s.encoder == "backbone":
            raise UserError('what follows a frozen body reads no images; set method.encoder to "map"')
        if s.encoder == "backbone" and s.styles == "layers":
            raise UserError('a style joins every layer of contents that are maps; set method.encoder to "map"')
        content: tuple[int, ...]
        if s.encoder == "backbone":
            backbone, content = copy.deepcopy(classifier.backbone), (s.code_dim,)
            convert_domain_batch_norm(backbone)
            encoders: TiedEncoders | SpatialEncoders = TiedEncoders(
                backbone_layers(backbone), backbone.feature_dim, s.code_dim, private=1, spread="unit", coordinates=False
            )
            generators: Generators = TiedGenerators(channels, size, s.width, s.code_dim + s.style_dim, 2)
        else:
            content = (4 * s.width, size // 4, size // 4)
            encoders = SpatialEncoders(channels, size, s.width, s.blocks, s.tied_layers)
            if s.styles == "layers":
                generators = StyledGenerators(channels, s.width, s.style_dim, s.blocks, s.tied_layers)
            else:
                generators = SpatialGenerators(channels, s.width, 4 * s.width + s.style_dim, s.blocks, s.tied_layers)
        self.networks = Networks(encoders, StyleEncoders(channels, size, s.width, s.style_dim), generators)
        self.translator = copy.deepcopy(self.networks).requires_grad_(False).eval()  # with averaged weights
        if s.discriminator_scales > 1:
            discriminator: nn.Module = MultiScaleDiscriminator(channels, size, s.width, s.discriminator_scales)
        else:
            reader = strided(channels, size, 2 * s.width)
            discriminator = nn.Sequential(reader, nn.Linear(reader.feature_dim, 1))
        self.discriminators = nn.ModuleList([discriminator, copy.deepcopy(discriminator)])
        self.content_discriminator = content_discriminator(content) if s.content_weight else None
        self.translator_steps = round(s.translator_share * steps)

    def setup(self, target: Domain, players: Players) -> None:
        """Learns the target's batch-norm statistics, and makes an optimiser for each of the four players."""
        s, decay = self.settings, linear_decay(1 - self.settings.decay_from, within=self.translator_steps)
        for name, network, rate in (
            ("translator", self.networks, s.translator_rate),
            ("discriminators", self.discriminators, s.translator_rate),
            ("content", self.content_discriminator, s.content_rate),
        ):
            if network is not None:
                players.add(name, network.parameters(), torch.optim.Adam, decay, lr=rate, betas=s.betas)
        super().setup(target, players)
        encoders = self.networks.encoders
        self.update_bn(encoders, lambda images: encoders.encode(images, TARGET), target)
        players.add_ema(self.translator, self.networks, s.ema_decay, steps=self.translator_steps)
        # Drawn once and by a generator of its own, so that an image has the same styles in every epoch and in a resumed run.
        self.kept_styles = torch.randn(s.draws, STYLES_KEPT, s.style_dim, generator=torch.Generator().manual_seed(0))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D_c, D, then E, A and G, then C; returns every loss, unweighted."""
        values = self._update_translator(batch) if self.done < self.translator_steps else {}
        return {name: value.detach() for name, value in values.items()} | super().step(batch)

    def _update_translator(self, batch: Batch) -> dict[str, Tensor]:
        s, (x_1, x_2) = self.settings, self._pixels(batch)
        encoders, styles, count = self.networks.encoders, self.networks.styles, len(x_1)
        r, r_other = (torch.randn(count, s.style_dim, device=x_1.device) for _ in range(2))
        with self.runtime.autocast():
            contents = encoders(x_1, x_2).mean
            c_1, c_2 = contents.chunk(2)
            q_1, q_2 = styles.encode(x_1, SOURCE), styles.encode(x_2, TARGET)
            a_1, a_2 = q_1.sample(), q_2.sample()
            in_1, in_2 = self._draw(SOURCE, c_1, c_2, a_1, r, r_other), self._draw(TARGET, c_2, c_1, a_2, r, r_other)
            fakes = torch.cat([in_1.translated, in_1.random]), torch.cat([in_2.translated, in_2.random])
        values = self._update_discriminators(contents.detach(), (x_1, x_2), (fakes[SOURCE].detach(), fakes[TARGET].detach()))

        with self.runtime.autocast():
            is_real = [self._judge(domain, fakes[domain]) for domain in (SOURCE, TARGET)]
            u, v = in_1.translated, in_2.translated
            c_2_again, c_1_again = encoders(u, v).mean.chunk(2)
            x_1_again = self._generate(SOURCE, (c_1_again, styles.encode(u, SOURCE).mean))
            x_2_again = self._generate(TARGET, (c_2_again, styles.encode(v, TARGET).mean))
            r_again = torch.cat([styles.encode(in_1.random, SOURCE).mean, styles.encode(in_2.random, TARGET).mean])
        values |= {
            "generator_adversarial": torch.stack([judged(outputs, True) for outputs in is_real]).sum(),
            "reconstruction": losses.distance(in_1.reconstructed, x_1, "l1") + losses.distance(in_2.reconstructed, x_2, "l1"),
            "cross_cycle": losses.distance(x_1_again, x_1, "l1") + losses.distance(x_2_again, x_2, "l1"),
            "kl": losses.kl_to_standard_normal(*q_1) + losses.kl_to_standard_normal(*q_2),
            "latent_regression": (r_again - r.repeat(2, 1)).abs().mean(),
        }
        total = (
            s.adversarial_weight * values["generator_adversarial"]
            + s.reconstruction_weight * values["reconstruction"]
            + s.cross_cycle_weight * values["cross_cycle"]
            + s.kl_weight * values["kl"]
            + s.latent_regression_weight * values["latent_regression"]
        )
        if self.content_discriminator is not None:
            with self.runtime.autocast():
                is_source = self.content_discriminator(contents)
            values["content"] = 0.5 * (losses.real_fake(is_source, True) + losses.real_fake(is_source, False))
            total = total + s.content_weight * values["content"]
        if in_1.other is not None and in_2.other is not None:
            values["mode_seeking"] = mode_seeking(r, r_other, (in_1.random, in_1.other), (in_2.random, in_2.other))
            total = total + s.mode_seeking_weight * values["mode_seeking"]
        if s.translated_class_weight:
            logits, labels = self._read_drawn(fakes[TARGET], TARGET, batch.augment), batch.drawn_labels(s.drawn_batch)
            values["generator_class"] = losses.cross_entropy(logits, labels.repeat(len(logits) // count))
            total = total + s.translated_class_weight * values["generator_class"]
        if s.translated_pseudo_label_weight:
            logits = self._read_drawn(fakes[SOURCE], SOURCE, batch.augment_source)
            _, told = self.teacher_outputs(batch.target_weak[:count])
            values["generator_pseudo_label"] = losses.pseudo_label(logits, told.repeat(len(logits) // count, 1), s.confidence)
            total = total + s.translated_pseudo_label_weight * values["generator_pseudo_label"]
        self.players.step("translator", total)
        return values

    def _pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Source images that are translated, and as many of the target."""
        source, target = batch.pixels(self.settings.drawn_batch, self.settings.source_weak)
        return source, target[: len(source)]

    def _generate(self, domain: int, *wanted: tuple[Tensor, Tensor]) -> Tensor:
        """G_domain of (contents, styles), several of them in one pass."""
        return self.networks.generators.decode(torch.cat([with_style(*pair) for pair in wanted]), domain)

    def _draw(self, domain: int, own: Tensor, foreign: Tensor, style: Tensor, r: Tensor, r_other: Tensor) -> Drawn:
        """What G_domain makes of its own content, and of the other domain's in three styles."""
        wanted = [(own, style), (foreign, style), (foreign, r)]
        if self.settings.mode_seeking_weight:
            wanted.append((foreign, r_other))
        reconstructed, translated, random, *other = self._generate(domain, *wanted).split(len(own))
        return Drawn(reconstructed, translated, random, other[0] if other else None)

    def _read_drawn(self, translated: Tensor, domain: int, augment: Augment) -> Tensor:
        """C's logits of images that were drawn into a domain; after them, where the settings say so, of the same augmented."""
        if self.settings.translated_class_augmented:
            translated = torch.cat([translated, self.runtime.arrange(augment(translated.float()))])
        with self.runtime.autocast():
            seen = self.seen(translated)
        return self.classify(self.features(seen, domain))

    def _update_discriminators(
        self, contents: Tensor, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        if (judge := self.content_discriminator) is not None:
            for _ in range(self.settings.content_updates):
                with self.runtime.autocast():
                    is_source_1, is_source_2 = judge(contents).chunk(2)
                values["content_discriminator"] = losses.real_fake(is_source_1, True) + losses.real_fake(is_source_2, False)
                self.players.step("content", values["content_discriminator"])
        terms = []
        for domain in (SOURCE, TARGET):
            with self.runtime.autocast():
                outputs = self._judge(domain, torch.cat([real[domain], fake[domain]]))
            count = len(real[domain])
            terms += [judged(tuple(o[:count] for o in outputs), True), judged(tuple(o[count:] for o in outputs), False)]
        values["discriminator_adversarial"] = torch.stack(terms).sum()
        self.players.step("discriminators", values["discriminator_adversarial"])
        return values

    def _judge(self, domain: int, images: Tensor) -> tuple[Tensor, ...]:
        """The logits of D_domain, at each of its scales."""
        outputs: Tensor | tuple[Tensor, ...] = self.discriminators[domain](images)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The classifier's."""
        s = self.settings
        self_training = s.information_weight > 0 or s.pseudo_label_weight > 0
        translating = self.done >= s.draws_from * self.steps
        source, *others = self.read_all(
            (batch.source, SOURCE),
            *([(batch.target, TARGET)] if self_training else []),
            *([(self.translations(batch), TARGET)] if translating else []),
        )
        values = {"class": losses.cross_entropy(source[1], batch.source_labels)}
        total = s.source_weight * values["class"]
        if translating:
            labels = batch.drawn_labels(s.drawn_batch).repeat(s.draws)
            values["translated_class"] = losses.cross_entropy(others[-1][1], labels)
            total = total + values["translated_class"]
        if self_training:
            values |= self.self_training(others[0][1], batch.target_weak, s.confidence)
            total = total + s.information_weight * (values["target_entropy"] - values["target_marginal_entropy"])
            total = total + s.pseudo_label_weight * values["pseudo_label"]
        return values | {"total": total}

    @torch.no_grad()
    def translations(self, batch: Batch) -> Tensor:
        """Translated source images as C reads them, (draws x N, ...): each in the styles that were drawn for it, once."""
        source, _ = self._pixels(batch)
        styles = self.kept_styles[:, batch.source_positions[: len(source)].cpu() % STYLES_KEPT].to(source.device)
        contents = self.encode(source, SOURCE)
        drawn = torch.cat([self.runtime.arrange(self.decode(contents, TARGET, style)) for style in styles])
        with self.runtime.autocast():
            return self.seen(self.runtime.arrange(batch.augment(drawn)) if self.settings.draws_augmented else drawn)

    @torch.no_grad()
    def decode(self, codes: Codes, domain: int, style: Tensor | None = None) -> Tensor:
        """Images of contents in styles (N, style_dim)."""
        style = self.draw_styles(len(codes.values)) if style is None else style
        return super().decode(Codes(with_style(codes.values, style), codes.domain), domain)

    @torch.no_grad()
    def styles(self, images: Tensor, domain: int) -> Tensor:
        with self.runtime.autocast():
            styles: Tensor = self.translator.styles.encode(self.runtime.arrange(images), domain).mean
            return styles

    def draw_styles(self, count: int) -> Tensor:
        return torch.randn(count, self.settings.style_dim, device=self.runtime.device)
