"""Latent mapping: "Cross Domain Image Generation through Latent Space Exploration with Adversarial Loss", arXiv 1805.10130, 2018.

Two VAEs, encoder f_i and decoder g_i, each of one domain, are trained first and then left alone. Between their codes z_i, small
networks learn to go: G_1 takes a code of domain 1 and noise e ~ N(0, I) to a code of domain 2, and x_1 is translated by
g_2(G_1(f_1(x_1), e)). With a pair discriminator D_2 for the codes of domain 2 (and all of it the other way round),

    f, g:  VAE        sum_i  |x_i - g_i(z_i)|^2 + kl_weight x KL(q_i(z_i | x_i) || N(0, I))
           class      cross-entropy of a linear head on z_1 and the source labels (ours: VAEs of street numbers hold colours
                      and neighbours, and hardly the digit, so that no mapping can know which class to go to)
           statistics |means - means|^2 + |stds - stds|^2, over a batch, of pixels of g_i(z_i) and x_i, at half the resolution
                      (ours: by squares alone g_1 draws pale, and all street numbers alike)
           reading    cross-entropy of what the classifier's mean teacher reads in g_1(z_1), as it is and augmented, and the
                      source labels (ours: by squares alone g_1 draws street numbers too blurred for anyone to read)
    D_2:   pairs      -log D_2(z_1, z_2) - log(1 - D_2(z_1, G_1(z_1, e))) - log(1 - D_2(z_1, e)),  z_2 a code that matches z_1
           negatives  -log(1 - D_2(z_1, z_2')),  z_2' of another class (`negatives`; ours, after Reed et al. 2016: else a likely
                      code of any class may pass)
    G_1:   pairs      -log D_2(z_1, G_1(z_1, e))
           closeness  |e - G_1(z_1, e)|^2 / n: the noise is not to be moved farther than it must

Codes match where their images are of one class. The paper knows the classes of both domains. Here the target's are those that a
mean teacher is sure of, and the classifier learns from translated source images with their labels. VAEs and mapping see source
images as they are (`source_weak`), the classifier augmented ones and translations of the former:

    C:     class      cross-entropy of the source, and of its translations, with the source labels
           self-training  information maximisation and the teacher's pseudo-labels on the target
"""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from uda import losses
from uda.collectives import gather
from uda.data.augment import Augment
from uda.data.batches import Batch
from uda.data.domain import Domain
from uda.errors import UserError
from uda.methods.base import Method, Shape, TeacherSettings, WithTeacher
from uda.methods.translating import Codes, Drawing
from uda.models.backbones import Backbone, Classifier, strided
from uda.models.layers import SOURCE, TARGET, by_domain, convert_domain_batch_norm
from uda.models.translators import Posterior, generator_layers
from uda.paths import regular
from uda.players import Players
from uda.runtime import Runtime, evaluating
from uda.types import UnitInterval


class LatentMappingSettings(TeacherSettings):
    """Latent mapping's settings; its learning rate is the classifier's."""

    name: str = "latent_mapping"
    vaes: str | None = None
    """``weights/method.safetensors`` of an earlier run of this method, whose VAEs are used; left out: they are trained. Kept as
    an absolute path, so that a run goes on wherever it is resumed"""
    vae_share: UnitInterval = 0.6
    """the share of the steps in which VAEs are trained; the mapping has the rest"""
    encoder: Literal["backbone", "convolutional"] = "backbone"
    """of the source's VAE: the source classifier's own network, to start from, or convolutions that start afresh"""
    width: PositiveInt = 16
    """base width of the VAEs"""
    code_dim: PositiveInt = 32
    kl_weight: NonNegativeFloat = 0.3
    """of the sum over a code's numbers; the reconstruction is a sum over pixels of -1..1"""
    code_class_weight: NonNegativeFloat = 300.0
    """of what the source's codes are to say of the class"""
    rebuilt_class_weight: NonNegativeFloat = 100.0
    """of what the classifier is to read in rebuilt source images"""
    source_weak: bool = True
    """whether VAEs and mapping learn from source images as they are; else g_1 learns to draw augmented ones"""
    statistics_weight: NonNegativeFloat = 3.0
    """of what rebuilt pixels' means and standard deviations over a batch are off, at half the resolution"""
    hidden: PositiveInt = 512
    """width of generators and discriminators of codes"""
    mapping_updates: PositiveInt = 3
    """of discriminators and mappers in a step, with the same codes, other pairs and other noise: codes are what costs"""
    closeness_weight: NonNegativeFloat = 0.1
    negatives: bool = True
    """whether discriminators see real codes of two classes as false pairs, too"""
    confidence: UnitInterval = 0.9
    """a target image's class counts when the teacher's probability is above this"""

    source_weight: NonNegativeFloat = 1.0
    translated_weight: NonNegativeFloat = 0.3
    information_weight: NonNegativeFloat = 1.0
    pseudo_label_weight: NonNegativeFloat = 1.0

    mapping_rate: NonNegativeFloat = 1e-3
    """Adam's, for VAEs and the networks of codes"""
    betas: tuple[float, float] = (0.5, 0.999)

    @field_validator("vaes")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path and str(Path(path).absolute())


class VAE(nn.Module):
    """Kingma and Welling 2014: images (N, C, S, S) in -1..1 to the posterior of a code (N, code_dim), and codes to images."""

    def __init__(self, backbone: Backbone, channels: int, size: int, width: int, code_dim: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(backbone, nn.Linear(backbone.feature_dim, 2 * code_dim))
        self.decoder = nn.Sequential(*generator_layers(channels, size, width, code_dim))

    def encode(self, images: Tensor) -> Posterior:
        # Batch norm, where the source classifier has it, keeps the source's statistics.
        return Posterior.learned(by_domain(self.encoder, images, (len(images), SOURCE)).float())


def dense(inputs: int, hidden: int, outputs: int) -> nn.Module:
    """Two hidden layers."""
    widths = inputs, hidden, hidden
    layers = [nn.Sequential(nn.Linear(a, b), nn.LeakyReLU(0.2)) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


class Mapper(nn.Module):
    """G_i: a code to go by (N, D) and noise (N, D) to a code of the other domain (N, D): the noise, moved."""

    def __init__(self, code_dim: int, hidden: int) -> None:
        super().__init__()
        self.move = dense(2 * code_dim, hidden, code_dim)

    def forward(self, codes: Tensor, noise: Tensor) -> Tensor:
        move: Tensor = self.move(torch.cat([codes, noise], 1))
        return noise + move


def match(labels: Tensor, others: Tensor, equal: bool = True) -> tuple[Tensor, Tensor]:
    """For each of `labels` (N,) the position of one of `others` (M,) that is equal, at random; and whether there is one (N,).

    Without `equal`: of one that is another class. -1 is an unknown class, neither equal nor another.
    """
    same = labels[:, None] == others[None, :]
    found = (same if equal else ~same) & (labels >= 0)[:, None] & (others >= 0)[None, :]
    return (found * torch.rand(found.shape, device=found.device)).argmax(1), found.any(1)


class Mapped(NamedTuple):
    """Codes of one domain, (N, D) each, on their way to the other."""

    given: Tensor
    noise: Tensor
    made: Tensor
    """G(z, e)"""
    real: Tensor
    """codes of the other domain that match"""


class LatentMapping(Drawing, WithTeacher):
    """VAEs, the mapping between their codes, and a classifier that learns from translations."""

    Settings = LatentMappingSettings
    settings: LatentMappingSettings
    default_training = Method.default_training.model_copy(update={"steps": 1100, "class_shares": "own"})

    def __init__(
        self, settings: LatentMappingSettings, classifier: Classifier, shape: Shape, steps: int, runtime: Runtime
    ) -> None:
        super().__init__(settings, classifier, shape, steps, runtime)
        s, (channels, size, _) = settings, shape
        backbones = [strided(channels, size, 2 * s.width) for _ in range(2)]
        if s.encoder == "backbone":
            backbones[SOURCE] = copy.deepcopy(classifier.backbone)
            convert_domain_batch_norm(backbones[SOURCE])
        self.vaes = nn.ModuleList([VAE(backbone, channels, size, s.width, s.code_dim) for backbone in backbones])
        self.code_head = nn.Linear(s.code_dim, classifier.classes)
        self.mappers = nn.ModuleList([Mapper(s.code_dim, s.hidden) for _ in range(2)])
        self.discriminators = nn.ModuleList([dense(2 * s.code_dim, s.hidden, 1) for _ in range(2)])
        self.vae_steps = 0 if s.vaes is not None else round(s.vae_share * steps)

    def setup(self, target: Domain, players: Players) -> None:
        s = self.settings
        self.read_files()
        for name, *networks in (
            ("vaes", self.vaes, self.code_head), ("mappers", self.mappers), ("discriminators", self.discriminators)
        ):  # fmt: skip
            own = [parameter for network in networks for parameter in network.parameters()]
            players.add(name, own, torch.optim.Adam, lr=s.mapping_rate, betas=s.betas)
        super().setup(target, players)

    def read_files(self) -> None:
        """The VAEs of `settings.vaes`."""
        if self.settings.vaes is None:
            return
        path = Path(self.settings.vaes)
        try:
            regular(path)
            state = {key.removeprefix("vaes."): value for key, value in load_file(path).items() if key.startswith("vaes.")}
            self.vaes.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(
                f"method.vaes: {path} has no VAEs of this size; give weights/method.safetensors of a run of latent_mapping "
                "with the same images, width and code_dim"
            ) from error

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update of the VAEs, or later of the mapping; then one of the classifier. Returns every loss, unweighted."""
        source, target = batch.pixels(source_weak=self.settings.source_weak)
        target = target[: len(source)]
        if self.done < self.vae_steps:
            values = self.update_vaes(source, batch.source_labels, target, batch.augment_source)
        else:
            sure, found = self.teacher_outputs(target)[1].softmax(1).max(1)
            target_labels = torch.where(sure > self.settings.confidence, found, -1)
            values = self.update_mapping(source, batch.source_labels, target, target_labels)
        return values | super().step(batch)

    def update_vaes(self, source: Tensor, source_labels: Tensor, target: Tensor, augment: Augment) -> dict[str, Tensor]:
        """One step of both VAEs.

        Args:
            source, target: images (N, C, S, S) and (M, C, S, S) in -1..1.
            source_labels: int64 (N,).
            augment: what the classifier reads rebuilt source images through, a second time.
        """
        s, originals = self.settings, (source, target)
        posteriors, rebuilt = [], []
        with self.runtime.autocast():
            for domain, images in enumerate(originals):
                posteriors.append(self.vae(domain).encode(images))
                rebuilt.append(self.vae(domain).decoder(posteriors[-1].sample()))
            code_logits = self.code_head(posteriors[SOURCE].sample()).float()
        values = {
            "reconstruction": torch.stack([losses.distance(*both, "l2") for both in zip(rebuilt, originals, strict=True)]).sum(),
            "kl": torch.stack([losses.kl_to_standard_normal(*posterior) for posterior in posteriors]).sum(),
            "code_class": losses.cross_entropy(code_logits, source_labels),
        }
        total = values["reconstruction"] + s.kl_weight * values["kl"] + s.code_class_weight * values["code_class"]
        if s.statistics_weight:
            halved = [[F.avg_pool2d(images.float(), 2) for images in both] for both in zip(rebuilt, originals, strict=True)]
            values["statistics"] = torch.stack([losses.statistics_distance(*both) for both in halved]).sum()
            total = total + s.statistics_weight * values["statistics"]
        if s.rebuilt_class_weight:
            drawn = rebuilt[SOURCE].float()
            shown = self.runtime.arrange(torch.cat([drawn, augment(drawn)]))
            read = self.classify(self.features(shown, SOURCE, self.teacher), self.teacher)
            values["rebuilt_class"] = losses.cross_entropy(read, source_labels.repeat(2))
            total = total + s.rebuilt_class_weight * values["rebuilt_class"]
        self.players.step("vaes", total)
        return {name: value.detach() for name, value in values.items()}

    def update_mapping(self, source: Tensor, source_labels: Tensor, target: Tensor, target_labels: Tensor) -> dict[str, Tensor]:
        """`mapping_updates` steps of the pair discriminators and of the mappers; the last one's losses.

        Args:
            source, target: images (N, C, S, S) and (M, C, S, S) in -1..1.
            source_labels, target_labels: int64, such that images with equal ones match; -1: unknown, not used.
        """
        # Matches are looked for in the whole batch, by every process, each with noise of its own.
        source_labels, target_labels = gather(source_labels), gather(target_labels)
        codes = gather(self.encode(source, SOURCE).values), gather(self.encode(target, TARGET).values)
        for _ in range(self.settings.mapping_updates - 1):
            self._update_mapping(codes, (source_labels, target_labels))
        return self._update_mapping(codes, (source_labels, target_labels))

    def _update_mapping(self, codes: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        zero = codes[SOURCE].new_zeros(())
        values = {"discriminator_adversarial": zero, "generator_adversarial": zero, "closeness": zero}
        mapped: list[Mapped] = []
        terms: list[Tensor] = []
        for domain in (SOURCE, TARGET):
            mapped.append(self._map(domain, codes, labels))
            terms += self._pair_terms(domain, mapped[domain], codes, labels)
        values["matched"] = torch.tensor(len(mapped[SOURCE].given) / max(1, len(codes[SOURCE])))
        if not terms:
            return values
        values["discriminator_adversarial"] = sum(terms, zero)
        self.players.step("discriminators", values["discriminator_adversarial"])
        for domain in (SOURCE, TARGET):
            given, noise, made, _ = mapped[domain]
            if len(given):
                values["generator_adversarial"] = values["generator_adversarial"] + self._is_pair(domain, given, made, True)
                values["closeness"] = values["closeness"] + (noise - made).square().mean()
        self.players.step("mappers", values["generator_adversarial"] + self.settings.closeness_weight * values["closeness"])
        return {name: value.detach() for name, value in values.items()}

    def _map(self, domain: int, codes: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]) -> Mapped:
        """The codes of a domain that have a match in the other, mapped there, beside that match."""
        partner, matched = match(labels[domain], labels[1 - domain])
        given, real = codes[domain][matched], codes[1 - domain][partner[matched]]
        noise = torch.randn_like(given)
        return Mapped(given, noise, self.mappers[domain](given, noise), real)

    def _pair_terms(
        self, domain: int, mapped: Mapped, codes: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """What the discriminator of the other domain's codes is to tell apart."""
        given, noise, made, real = mapped
        if not len(given):
            return []
        pairs = [(given, real, True), (given, made.detach(), False), (given, noise, False)]
        if self.settings.negatives:
            negative, unlike = match(labels[domain], labels[1 - domain], equal=False)
            if unlike.any():
                pairs.append((codes[domain][unlike], codes[1 - domain][negative[unlike]], False))
        return [self._is_pair(domain, *pair) for pair in pairs]

    def _is_pair(self, domain: int, first: Tensor, second: Tensor, real: bool) -> Tensor:
        """The loss of saying that codes of `domain` and codes of the other one match, or that they do not."""
        return losses.real_fake(self.discriminators[1 - domain](torch.cat([first, second], 1)), real)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The classifier's."""
        s = self.settings
        parts = [(batch.source, SOURCE), (batch.target, TARGET)]
        if self.done >= self.vae_steps and s.translated_weight:
            source = batch.pixels(source_weak=s.source_weak)[0]
            parts.append((self.runtime.arrange(self.translate(source, SOURCE, TARGET)), TARGET))
        (_, source_logits), (_, target_logits), *translated = self.read_all(*parts)
        values = {"class": losses.cross_entropy(source_logits, batch.source_labels)}
        values |= self.self_training(target_logits, batch.target_weak, s.confidence)
        total = (
            s.source_weight * values["class"]
            + s.information_weight * (values["target_entropy"] - values["target_marginal_entropy"])
            + s.pseudo_label_weight * values["pseudo_label"]
        )
        for _, logits in translated:
            values["translated_class"] = losses.cross_entropy(logits, batch.source_labels)
            total = total + s.translated_weight * values["translated_class"]
        return values | {"total": total}

    def vae(self, domain: int) -> VAE:
        return cast(VAE, self.vaes[domain])

    @torch.no_grad()
    def encode(self, images: Tensor, domain: int) -> Codes:
        """f_domain(x), codes (N, D) without noise, that of dropout in its backbone included."""
        with evaluating(self.vae(domain)), self.runtime.autocast():
            return Codes(self.vae(domain).encode(self.runtime.arrange(images)).mean, domain)

    @torch.no_grad()
    def decode(self, codes: Codes, domain: int, style: Tensor | None = None) -> Tensor:
        """g_domain(z); codes of the other domain are mapped first, with `style` as the noise e (N, D), or with drawn noise."""
        values = codes.values
        if codes.domain != domain:
            values = self.mappers[codes.domain](values, self.draw_styles(len(values)) if style is None else style)
        with self.runtime.autocast():
            images: Tensor = self.vae(domain).decoder(values)
            return images.float()

    def draw_styles(self, count: int) -> Tensor:
        """Noise e ~ N(0, I)."""
        return torch.randn(count, self.settings.code_dim, device=self.runtime.device)
