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
           mode seeking            |r - r'| / |G_i(c_j, r) - G_i(c_j, r')|                       Mao et al. 2019; off
           translated class        cross-entropy of C(G_2(c_1, .)) and the source labels         ours
    C:     class         cross-entropy of the source, and of `draws` translations of each source image, with the source labels
           anchor        UNIT's: information maximisation and a mean teacher's pseudo-labels on the target; ours, off

The paper's adaptation (its section 5) translates each source image `draws` times and trains C on them: every source image keeps
the styles that it was given. Its code was not released.
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
from uda.methods.base import Taught, TeacherSettings, update_bn
from uda.methods.translating import Styled
from uda.models.backbones import Backbone, Classifier, strided
from uda.models.layers import SOURCE, TARGET, convert_domain_batch_norm
from uda.models.spatial import SpatialEncoders, SpatialGenerators
from uda.models.translators import Posterior, TiedEncoders, TiedGenerators, backbone_layers
from uda.players import linear_decay, update_ema
from uda.runtime import Runtime
from uda.types import UnitInterval

TRAINING = {"steps": 600, "batch": 48, "target_batch": 48, "class_shares": "own", "evaluate_every": 100}
STYLES_KEPT = 2**16  # rows of the table of drawn styles, by the source image's number


class Settings(TeacherSettings):
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

    adversarial_weight: NonNegativeFloat = 1.0
    content_weight: NonNegativeFloat = 1.0
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
    """Adam's, for encoders, generators and discriminators; it falls to 0 over the last 30 % of their steps"""
    content_rate: NonNegativeFloat = 4e-4
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


class Translators(nn.Module):
    """E, A and G of both domains."""

    def __init__(
        self, encoders: TiedEncoders | SpatialEncoders, styles: StyleEncoders, generators: TiedGenerators | SpatialGenerators
    ) -> None:
        super().__init__()
        self.encoders, self.styles, self.generators = encoders, styles, generators


def content_discriminator(code: tuple[int, ...]) -> nn.Module:
    """D_c: contents (N, D) or (N, D, H, W) to one logit."""
    if len(code) == 1:
        return nn.Sequential(nn.Linear(code[0], 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
    return nn.Sequential(
        nn.Conv2d(code[0], 64, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 64, 3, 2, 1), nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1),
    )  # fmt: skip


def with_style(contents: Tensor, styles: Tensor) -> Tensor:
    """What a generator reads: contents (N, D) or (N, D, H, W) and styles (N, A) as one code."""
    styles = styles.to(contents.dtype)
    if contents.ndim == 4:
        styles = styles[:, :, None, None].expand(-1, -1, *contents.shape[2:])
    return torch.cat([contents, styles], 1)


class Method(Styled, Taught):
    """A translator, and a classifier that learns from its translations."""

    def __init__(
        self, settings: Settings, classifier: Classifier, shape: tuple[int, int, int], steps: int, runtime: Runtime
    ) -> None:
        s, (channels, size, _) = settings, shape
        code: tuple[int, ...]
        if s.encoder == "backbone":
            backbone, code = cast(Backbone, convert_domain_batch_norm(copy.deepcopy(classifier.backbone))), (s.code_dim,)
            encoders: TiedEncoders | SpatialEncoders = TiedEncoders(
                backbone_layers(backbone), backbone.feature_dim, s.code_dim, private=1, learned_variance=False, coordinates=False
            )
            generators: TiedGenerators | SpatialGenerators = TiedGenerators(channels, size, s.width, s.code_dim + s.style_dim, 2)
        else:
            code = (4 * s.width, size // 4, size // 4)
            encoders = SpatialEncoders(channels, size, s.width, s.blocks, s.tied_layers)
            generators = SpatialGenerators(channels, s.width, 4 * s.width + s.style_dim, s.blocks, s.tied_layers)
        self.translator = Translators(encoders, StyleEncoders(channels, size, s.width, s.style_dim), generators)
        self.averaged = copy.deepcopy(self.translator).requires_grad_(False).eval()
        judge = strided(channels, size, 2 * s.width)
        discriminator = nn.Sequential(judge, nn.Linear(judge.feature_dim, 1))
        self.discriminators = nn.ModuleList([discriminator, copy.deepcopy(discriminator)])
        self.content_discriminator = content_discriminator(code)
        super().__init__(settings, classifier, shape, steps, runtime)
        # Drawn once and by a source of its own, so that an image has the same styles in every epoch and in a resumed run.
        self.kept = torch.randn(s.draws, STYLES_KEPT, s.style_dim, generator=torch.Generator().manual_seed(0))
        self.translator_parameters = list(self.translator.parameters())
        self.add_player("translator", self.translator, s.translator_rate, s.betas)
        self.add_player("discriminators", self.discriminators, s.translator_rate, s.betas)
        self.add_player("content", self.content_discriminator, s.content_rate, s.betas)
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.translator_steps = round(s.translator_share * steps)

    def prepare(self, target: Domain) -> None:
        super().prepare(target)
        encoders = self.translator.encoders
        update_bn(encoders, lambda images: encoders.encode(images, TARGET), target, self.runtime)
        self.averaged.load_state_dict(self.translator.state_dict())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of D_c, D, then E, A and G, then C; returns every loss, unweighted."""
        if self.done >= self.translator_steps:
            return super().step(batch)
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = self.rates[name] * linear_decay(self.done, self.translator_steps, 0.3)
        values = self._update_translator(batch)
        update_ema(self.averaged, self.translator, self.settings.averaging, self.done)
        return {name: value.detach() for name, value in values.items()} | super().step(batch)

    def _update_translator(self, batch: Batch) -> dict[str, Tensor]:
        s, count = self.settings, len(batch.source)
        encoders, styles, generators = self.translator.encoders, self.translator.styles, self.translator.generators
        x, y = batch.source, batch.target_weak[:count]
        drawn, other = (torch.randn(count, s.style_dim, device=x.device) for _ in range(2))
        with self.runtime.autocast():
            contents = encoders(x, y).mean
            of_x, of_y = contents.chunk(2)
            posteriors = styles.encode(x, SOURCE), styles.encode(y, TARGET)
            a_x, a_y = (posterior.sample() for posterior in posteriors)
            # Into each domain: its own image again; the other's content in its style; that content in a drawn style.
            into = []
            for domain, own, foreign, style in ((SOURCE, of_x, of_y, a_x), (TARGET, of_y, of_x, a_y)):
                asked = [(own, style), (foreign, style), (foreign, drawn)]
                asked += [(foreign, other)] if s.mode_seeking_weight else []
                into.append(generators.decode(torch.cat([with_style(*pair) for pair in asked]), domain).split(count))
            (x_again, u, x_drawn, *x_other), (y_again, v, y_drawn, *y_other) = into
        values = self._update_discriminators(contents.detach(), [x, y], [torch.cat(part[1:3]).detach() for part in into])

        with self.runtime.autocast():
            is_source = self.content_discriminator(contents)
            judged = [
                self.discriminators[domain](torch.cat(images)) for domain, images in enumerate(((u, x_drawn), (v, y_drawn)))
            ]
            of_y_again, of_x_again = encoders(u, v).mean.chunk(2)
            x_cycled = generators.decode(with_style(of_x_again, styles.encode(u, SOURCE).mean), SOURCE)
            y_cycled = generators.decode(with_style(of_y_again, styles.encode(v, TARGET).mean), TARGET)
            read = torch.cat([styles.encode(x_drawn, SOURCE).mean, styles.encode(y_drawn, TARGET).mean])
        values |= {
            "content": 0.5 * (losses.real_fake(is_source, True) + losses.real_fake(is_source, False)),
            "generator_adversarial": torch.stack([losses.real_fake(logits, True) for logits in judged]).sum(),
            "reconstruction": losses.distance(x_again, x, "l1") + losses.distance(y_again, y, "l1"),
            "cross_cycle": losses.distance(x_cycled, x, "l1") + losses.distance(y_cycled, y, "l1"),
            "kl": torch.stack([losses.kl_to_standard_normal(*posterior) for posterior in posteriors]).sum(),
            "latent_regression": (read - drawn.repeat(2, 1)).abs().mean(),
        }
        total = (
            s.content_weight * values["content"]
            + s.adversarial_weight * values["generator_adversarial"]
            + s.reconstruction_weight * values["reconstruction"]
            + s.cross_cycle_weight * values["cross_cycle"]
            + s.kl_weight * values["kl"]
            + s.latent_regression_weight * values["latent_regression"]
        )
        if s.mode_seeking_weight:
            apart = torch.cat([x_drawn, y_drawn]).float() - torch.cat([*x_other, *y_other]).float()
            moved = (drawn - other).abs().mean(1).repeat(2)
            values["mode_seeking"] = (moved / apart.abs().flatten(1).mean(1).clamp_min(1e-3)).mean()
            total = total + s.mode_seeking_weight * values["mode_seeking"]
        if s.translated_class_weight:
            translated = torch.cat([v, y_drawn])
            if s.translated_class_augmented:
                translated = torch.cat([translated, self.runtime.arrange(batch.augment(translated.float()))])
            logits = self.classify(self.features(translated, TARGET))
            values["generator_class"] = losses.cross_entropy(logits, batch.source_labels.repeat(len(translated) // count))
            total = total + s.translated_class_weight * values["generator_class"]
        self.descend("translator", total, self.translator_parameters)  # the other players are fixed
        return values

    def _update_discriminators(self, contents: Tensor, real: list[Tensor], fake: list[Tensor]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for _ in range(self.settings.content_updates):
            with self.runtime.autocast():
                of_x, of_y = self.content_discriminator(contents).chunk(2)
            values["content_discriminator"] = losses.real_fake(of_x, True) + losses.real_fake(of_y, False)
            self.descend("content", values["content_discriminator"])
        terms = []
        for domain in (SOURCE, TARGET):
            with self.runtime.autocast():
                logits = self.discriminators[domain](torch.cat([real[domain], fake[domain]]))
            terms += [losses.real_fake(logits[: len(real[domain])], True), losses.real_fake(logits[len(real[domain]) :], False)]
        values["discriminator_adversarial"] = torch.stack(terms).sum()
        self.descend("discriminators", values["discriminator_adversarial"])
        return values

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The classifier's."""
        s = self.settings
        anchored = s.information_weight > 0 or s.pseudo_label_weight > 0
        drawing = self.done >= s.draws_from * self.steps
        read = self.read_all(
            (batch.source, SOURCE),
            *([(batch.target, TARGET)] if anchored else []),
            *([(self.seen(batch), TARGET)] if drawing else []),
        )
        values = {"class": losses.cross_entropy(read[0][1], batch.source_labels)}
        total = s.source_weight * values["class"]
        if drawing:
            values["translated_class"] = losses.cross_entropy(read[-1][1], batch.source_labels.repeat(s.draws))
            total = total + values["translated_class"]
        if anchored:
            values |= self.anchor(read[1][1], batch.target_weak, s.confidence)
            total = total + s.information_weight * (values["target_entropy"] - values["target_marginal_entropy"])
            total = total + s.pseudo_label_weight * values["pseudo_label"]
        return values | {"total": total}

    @torch.no_grad()
    def drawn(self, batch: Batch) -> Tensor:
        """Translations of the source images (draws x N, C, S, S): each in the styles that were drawn for it, once."""
        styles = self.kept[:, batch.source_positions.cpu() % STYLES_KEPT].to(batch.source.device)
        contents = self.encode(batch.source, SOURCE)
        return torch.cat([self.runtime.arrange(self.decode(contents, TARGET, style)) for style in styles])

    def seen(self, batch: Batch) -> Tensor:
        """These translations as the classifier sees them."""
        drawn = self.drawn(batch)
        return self.runtime.arrange(batch.augment(drawn)) if self.settings.draws_augmented else drawn

    def encode(self, images: Tensor, domain: int) -> Tensor:
        """The content, (N, D) or (N, D, H, W), of images (N, C, S, S) in -1..1."""
        with torch.no_grad(), self.runtime.autocast():
            return self.averaged.encoders.encode(self.runtime.arrange(images), domain).mean

    def decode(self, codes: Tensor, domain: int, style: Tensor | None = None) -> Tensor:
        """Images (N, C, S, S) in -1..1, float32, of contents in styles (N, style_dim)."""
        style = self.draw_styles(len(codes)) if style is None else style
        with torch.no_grad(), self.runtime.autocast():
            return self.averaged.generators.decode(with_style(codes, style), domain).float()

    def styles(self, images: Tensor, domain: int) -> Tensor:
        with torch.no_grad(), self.runtime.autocast():
            return self.averaged.styles.encode(self.runtime.arrange(images), domain).mean

    def draw_styles(self, count: int) -> Tensor:
        return torch.randn(count, self.settings.style_dim, device=self.runtime.device)

    def networks(self) -> nn.Module:
        return nn.ModuleDict(
            {
                "network": self.network, "others": self.others, "translator": self.translator, "averaged": self.averaged,
                "discriminators": self.discriminators, "content_discriminator": self.content_discriminator,
            }
        )  # fmt: skip
