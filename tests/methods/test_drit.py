"""DRIT: its objective by hand, and what its draws do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import small_classifier
from tests.methods import reference as by_hand
from tests.methods.reference import adamw, assert_losses, assert_same_update, descend, follow, made, twins, weights
from uda.data.batches import Batch
from uda.methods.drit import DRIT, mode_seeking
from uda.models.spatial import ResidualBlock, with_style
from uda.recipe.load import load_recipe
from uda.runtime import Runtime

CLASSIFIER = small_classifier()


def make(fp32: Runtime, steps: int = 20, **settings: Any) -> DRIT:
    return made(DRIT, fp32, steps, CLASSIFIER, **{"width": 8, "code_dim": 16, **settings})


# The objective by hand

TRANSLATOR: dict[str, Any] = {
    "adversarial_weight": 0.7,
    "content_weight": 1.3,
    "reconstruction_weight": 0.03,
    "cross_cycle_weight": 0.02,
    "kl_weight": 0.4,
    "latent_regression_weight": 1.1,
    "mode_seeking_weight": 0.6,
    "translated_class_weight": 1.7,
    "translated_pseudo_label_weight": 0.8,
    "confidence": 0.168,  # some are above it
    "draws_from": 1.0,
}
CLASSIFIER_WEIGHTS = {"source_weight": 0.7, "information_weight": 1.3, "pseudo_label_weight": 0.6, "confidence": 0.168}


class ByHand:
    """E_i, A_i, G_i and D_i of a method."""

    def __init__(self, method: DRIT) -> None:
        self.m = method

    def e(self, x: Tensor, i: int) -> Tensor:
        encoders = self.m.networks.encoders
        return encoders.tied(encoders.private[i - 1](x))

    def q(self, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.m.networks.styles.private[i - 1](x).chunk(2, 1)
        return mean, log_variance

    def g(self, c: Tensor, a: Tensor, i: int, networks: Any = None) -> Tensor:
        generators = (networks or self.m.networks).generators
        if self.m.settings.styles == "layers":
            hidden = generators.tied(c)
            for layer in generators.private[i - 1]:
                joined = torch.cat([hidden, a[:, :, None, None].expand(-1, -1, *hidden.shape[2:])], 1)
                hidden = hidden + layer.block(joined) if isinstance(layer, ResidualBlock) else layer(joined)
            return hidden
        code = torch.cat([c, a[:, :, None, None].expand(-1, -1, *c.shape[2:]) if c.ndim == 4 else a], 1)
        return generators.private[i - 1](generators.tied(code))

    def d(self, x: Tensor, i: int) -> list[Tensor]:
        """Logits of the whole image; or, with scales, of its parts and of the parts of its half."""
        network = self.m.discriminators[i - 1]
        if self.m.settings.discriminator_scales == 1:
            return [network(x)]
        full, half = network.scales
        ones = torch.ones(x.shape[1], 1, 3, 3)
        sums, counts = (F.conv2d(image, ones, stride=2, padding=1, groups=x.shape[1]) for image in (x, torch.ones_like(x)))
        return [full(x), half(sums / counts)]


def are_real(outputs: list[Tensor]) -> Tensor:
    return torch.stack([by_hand.is_real(logits) for logits in outputs]).sum()


def are_fake(outputs: list[Tensor]) -> Tensor:
    return torch.stack([by_hand.is_fake(logits) for logits in outputs]).sum()


def translator_by_hand(twin: DRIT, batch: Batch) -> dict[str, Tensor]:
    """D_c (`content_updates` times) and D, then E, A and G: the losses, after one step of each."""
    hand, count, s, d_c = ByHand(twin), len(batch.source), twin.settings, twin.content_discriminator
    x_1, x_2 = batch.source_weak if s.source_weak else batch.source, batch.target_weak[:count]
    r, other = torch.randn(count, s.style_dim), torch.randn(count, s.style_dim)
    c_1, c_2 = hand.e(x_1, 1), hand.e(x_2, 2)
    q_1, q_2 = hand.q(x_1, 1), hand.q(x_2, 2)
    a_1, a_2 = (mean + torch.randn_like(mean) * (log_variance / 2).exp() for mean, log_variance in (q_1, q_2))
    u, v = hand.g(c_2, a_1, 1), hand.g(c_1, a_2, 2)
    u_r, v_r = hand.g(c_2, r, 1), hand.g(c_1, r, 2)

    betas, rate = s.betas, s.translator_rate
    losses, terms = {}, {}
    if d_c is not None:
        of_content = torch.optim.Adam(d_c.parameters(), lr=s.content_rate, betas=betas)
        for _ in range(s.content_updates):
            content = by_hand.is_real(d_c(c_1.detach())) + by_hand.is_fake(d_c(c_2.detach()))
            descend(of_content, content)
        judged = d_c(torch.cat([c_1, c_2]))
        losses["content_discriminator"] = content
        terms["content"] = (s.content_weight, (by_hand.is_real(judged) + by_hand.is_fake(judged)) / 2)
    adversarial = are_real(hand.d(x_1, 1)) + are_real(hand.d(x_2, 2))
    adversarial = adversarial + are_fake(hand.d(torch.cat([u, u_r]).detach(), 1))
    adversarial = adversarial + are_fake(hand.d(torch.cat([v, v_r]).detach(), 2))
    descend(torch.optim.Adam(twin.discriminators.parameters(), lr=rate, betas=betas), adversarial)

    back_1 = hand.g(hand.e(v, 2), hand.q(u, 1)[0], 1)
    back_2 = hand.g(hand.e(u, 1), hand.q(v, 2)[0], 2)
    r_again = torch.cat([hand.q(u_r, 1)[0], hand.q(v_r, 2)[0]])
    u_other, v_other = hand.g(c_2, other, 1), hand.g(c_1, other, 2)
    far = (r - other).abs().mean(1).repeat(2)
    apart = torch.cat([(u_r - u_other).abs().mean((1, 2, 3)), (v_r - v_other).abs().mean((1, 2, 3))])
    in_styles, back = twin.network(torch.cat([v, v_r])), twin.network(torch.cat([u, u_r]))
    teacher = torch.cat([twin.teacher(x_2).detach()] * 2)
    terms |= {
        "generator_adversarial": (
            s.adversarial_weight,
            are_real(hand.d(torch.cat([u, u_r]), 1)) + are_real(hand.d(torch.cat([v, v_r]), 2)),
        ),
        "reconstruction": (
            s.reconstruction_weight, by_hand.l1(hand.g(c_1, a_1, 1), x_1) + by_hand.l1(hand.g(c_2, a_2, 2), x_2),
        ),
        "cross_cycle": (s.cross_cycle_weight, by_hand.l1(back_1, x_1) + by_hand.l1(back_2, x_2)),
        "kl": (s.kl_weight, by_hand.kl_to_normal(*q_1) + by_hand.kl_to_normal(*q_2)),
        "latent_regression": (s.latent_regression_weight, (r_again - torch.cat([r, r])).abs().mean()),
        "mode_seeking": (s.mode_seeking_weight, (1 / (apart / far + 1e-5)).mean()),
        "generator_class": (
            s.translated_class_weight, by_hand.cross_entropy(in_styles, torch.cat([batch.source_labels] * 2)),
        ),
        "generator_pseudo_label": (
            s.translated_pseudo_label_weight, by_hand.sure_cross_entropy(back, teacher, s.confidence),
        ),
    }  # fmt: skip
    total = sum(weight * value for weight, value in terms.values())
    descend(torch.optim.Adam(twin.networks.parameters(), lr=rate, betas=betas), total)
    losses["discriminator_adversarial"] = adversarial
    return losses | {name: value for name, (_, value) in terms.items()}


@pytest.mark.parametrize(
    "form",
    [
        {"content_updates": 2},
        {"encoder": "backbone"},
        {"styles": "layers", "blocks": 2},
        {"discriminator_scales": 2, "content_weight": 0.0},
        {"source_weak": True},
    ],
    ids=["map", "backbone", "styles at every layer", "two scales without a content discriminator", "source images as they are"],
)
def test_a_step_by_hand(form: dict[str, Any], fp32: Runtime, batch: Batch) -> None:
    """The translator's objective, every term of it; beside it C learns from the source alone."""
    sizes = {"width": 4, "code_dim": 8, "style_dim": 3, "blocks": 1}
    method, twin = twins(DRIT, fp32, **{"source_weight": 0.9, **sizes, **TRANSLATOR, **form})
    torch.manual_seed(5)
    expected = translator_by_hand(twin, batch)
    expected["class"] = by_hand.cross_entropy(twin.network(batch.source), batch.source_labels)
    expected["total"] = 0.9 * expected["class"]
    descend(adamw(twin.network.parameters(), twin.settings), expected["total"])
    follow(twin.teacher, twin.network)

    torch.manual_seed(5)
    assert_losses(method.step(batch), expected)
    follow(twin.translator, method.networks)
    assert_same_update(method, twin)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the translator's steps are taken as done
@pytest.mark.parametrize("source_weak", [False, True])
def test_the_classifiers_step_by_hand(source_weak: bool, fp32: Runtime, batch: Batch) -> None:
    """With a finished translator: C learns from the source, two draws of each image, and its teacher."""
    sizes = {"width": 4, "style_dim": 3, "blocks": 1, "draws": 2, "translator_share": 0.5, "draws_from": 0.5}
    method, twin = twins(DRIT, fp32, done=10, source_weak=source_weak, **sizes, **CLASSIFIER_WEIGHTS)
    hand, translator = ByHand(twin), twin.translator
    contents = translator.encoders.tied(translator.encoders.private[0](batch.source_weak if source_weak else batch.source))
    styles = torch.randn(2, 2**16, 3, generator=torch.Generator().manual_seed(0))
    drawn = [hand.g(contents, style[batch.source_positions], 2, translator).detach() for style in styles]
    logits, teacher = twin.network(batch.target), twin.teacher(batch.target_weak).detach()
    expected = {
        "class": by_hand.cross_entropy(twin.network(batch.source), batch.source_labels),
        "translated_class": sum(by_hand.cross_entropy(twin.network(x), batch.source_labels) for x in drawn) / 2,
        "target_entropy": by_hand.entropy(logits),
        "target_marginal_entropy": by_hand.marginal_entropy(logits),
        "pseudo_label": by_hand.sure_cross_entropy(logits, teacher, 0.168),
    }
    information = expected["target_entropy"] - expected["target_marginal_entropy"]
    total = 0.7 * expected["class"] + expected["translated_class"] + 1.3 * information + 0.6 * expected["pseudo_label"]
    descend(adamw(twin.network.parameters(), twin.settings), total)
    follow(twin.teacher, twin.network, remembered=11 / 20)

    assert_losses(method.step(batch), {**expected, "total": total})
    assert_same_update(method, twin)


def test_mode_seeking_is_bounded_where_styles_make_no_difference() -> None:
    """|r - r'| is 2 and 1; images are 0.5 and 0 apart in one domain, 0.25 and 2 in the other."""
    r, other = torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    none = torch.zeros(2, 1, 1, 2)
    first = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).view(2, 1, 1, 2)
    second = torch.tensor([[-0.5, 0.0], [2.0, -2.0]]).view(2, 1, 1, 2)
    expected = sum(1 / (quotient + 1e-5) for quotient in (0.5 / 2, 0.0, 0.25 / 2, 2.0)) / 4
    assert mode_seeking(r, other, (first, none), (second, none)).item() == pytest.approx(expected)


def test_mode_seeking_parts_images_that_are_nearly_the_same() -> None:
    r, other = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    image = torch.full((1, 1, 1, 2), 1e-5, requires_grad=True)
    mode_seeking(r, other, (image, torch.zeros(1, 1, 1, 2)), (torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))).backward()
    assert image.grad is not None
    assert (image.grad < -1).all(), "the loss falls as they part"


def of_paper(recipe: str, fp32: Runtime) -> DRIT:
    """As a recipe has it, on images of 16 pixels a side, which have room for two scales; terms of images weigh as much there."""
    loaded = load_recipe(recipe, {"data.source": "mnist", "data.target": "mnist-m"})
    assert loaded.data.size is not None
    given, pixels = loaded.method.model_dump(exclude={"name"}), (loaded.data.size / 16) ** 2
    of_images = {name: given[name] * pixels for name in ("reconstruction_weight", "cross_cycle_weight")}
    small = {"width": 4, "style_dim": 3, "blocks": 2, "discriminator_scales": 2}
    return made(DRIT, fp32, 20, CLASSIFIER, **{**given, **of_images, **small})


def drawn_codes(hand: ByHand, x_1: Tensor, x_2: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """What a step draws first, of styles of 3 numbers: r; and the contents c_i and styles a_i of its images."""
    r, _ = torch.randn(len(x_1), 3), torch.randn(len(x_1), 3)
    posteriors = hand.q(x_1, 1), hand.q(x_2, 2)
    styles = [mean + torch.randn_like(mean) * (log / 2).exp() for mean, log in posteriors]
    return r, [hand.e(x_1, 1), hand.e(x_2, 2)], styles


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # every network is held still
@pytest.mark.parametrize("recipe", ["mnist2mnistm-paper", "folders-drit-paper"])
def test_a_paper_recipe_weighs_the_translator_as_the_released_code(recipe: str, fp32: Runtime, batch: Batch) -> None:
    """All terms of E, A and G, in the code's sums and image means, with every network held still."""
    method = of_paper(recipe, fp32)
    hand, d_c = ByHand(method), method.content_discriminator
    seen: dict[str, Tensor] = {}
    method.players.step = lambda name, loss: seen.update({name: loss})  # type: ignore[method-assign, assignment]
    torch.manual_seed(5)
    method.step(batch)

    torch.manual_seed(5)
    x_1, x_2 = batch.source, batch.target_weak[: len(batch.source)]
    r, (c_1, c_2), (a_1, a_2) = drawn_codes(hand, x_1, x_2)
    (mean_1, log_1), (mean_2, log_2) = hand.q(x_1, 1), hand.q(x_2, 2)
    u, v, u_r, v_r = hand.g(c_2, a_1, 1), hand.g(c_1, a_2, 2), hand.g(c_2, r, 1), hand.g(c_1, r, 2)

    def half(c: Tensor) -> Tensor:
        """Binary cross-entropy of D_c's reading and 1/2."""
        return (by_hand.is_real(d_c(c)) + by_hand.is_fake(d_c(c))) / 2

    adversarial = sum(are_real(hand.d(images, i)) for images, i in ((u, 1), (v, 2), (u_r, 1), (v_r, 2)))
    x_1_again, x_2_again = hand.g(hand.e(v, 2), hand.q(u, 1)[0], 1), hand.g(hand.e(u, 1), hand.q(v, 2)[0], 2)
    pairs = (hand.g(c_1, a_1, 1), x_1), (hand.g(c_2, a_2, 2), x_2), (x_1_again, x_1), (x_2_again, x_2)
    images = sum((a - b).abs().mean() for a, b in pairs)
    divergence = by_hand.kl_to_normal(mean_1, log_1) + by_hand.kl_to_normal(mean_2, log_2)
    latent = (hand.q(u_r, 1)[0] - r).abs().mean() + (hand.q(v_r, 2)[0] - r).abs().mean()
    expected = adversarial + half(c_1) + half(c_2) + 10 * images + 0.01 * divergence + 10 * latent
    assert seen["translator"].item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-5)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # every network is held still
@pytest.mark.parametrize("recipe", ["mnist2mnistm-paper", "folders-drit-paper"])
def test_a_paper_recipes_discriminators_have_the_released_losses(recipe: str, fp32: Runtime, batch: Batch) -> None:
    """With every network held still, and the two domains' weights apart.

    Source: `backward_D` and `backward_contentD` in `src/model.py` of github.com/HsinYingLee/DRIT, up to which domain's contents
    are called real. There one D reads translations by a_i, another those by r; ours reads both, and its loss is the mean of
    their losses, of the same real images: Adam divides such a factor out.
    """
    method = of_paper(recipe, fp32)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    hand, d_c = ByHand(method), method.content_discriminator
    seen: dict[str, list[Tensor]] = {}
    method.players.step = lambda name, loss: seen.setdefault(name, []).append(loss)  # type: ignore[method-assign, assignment]
    torch.manual_seed(5)
    method.step(batch)

    torch.manual_seed(5)
    x_1, x_2 = batch.source, batch.target_weak[: len(batch.source)]
    r, (c_1, c_2), (a_1, a_2) = drawn_codes(hand, x_1, x_2)
    of_two = [
        are_real(hand.d(real, i)) + are_fake(hand.d(hand.g(content, style, i), i))
        for real, content, own, i in ((x_1, c_2, a_1, 1), (x_2, c_1, a_2, 2))
        for style in (own, r)
    ]
    content = by_hand.is_real(d_c(c_1)) + by_hand.is_fake(d_c(c_2))
    assert [loss.item() for loss in seen["content"]] == pytest.approx([content.item()] * 3, rel=1e-6, abs=1e-5)
    (loss,) = seen["discriminators"]
    assert loss.item() == pytest.approx((sum(of_two) / 2).item(), rel=1e-6, abs=1e-5)


def test_the_paper_recipe_for_folders_leaves_the_source_classifier_as_it_is(fp32: Runtime, batch: Batch) -> None:
    method = of_paper("folders-drit-paper", fp32)
    classifier, translator = weights(method.network), weights(method.networks)
    for _ in range(3):
        method.step(batch)
    assert torch.equal(classifier, weights(method.network))
    assert torch.equal(classifier, weights(method.classifier()))
    assert not torch.equal(translator, weights(method.networks))
    assert torch.equal(weights(method.networks), weights(method.translator)), "the last step's, not an average"


# What each part does


@pytest.mark.parametrize("encoder", ["map", "backbone"])
def test_reconstruction_falls(fp32: Runtime, batch: Batch, encoder: Any) -> None:
    method = make(fp32, 60, encoder=encoder, content_weight=0.1)
    values = [float(method.step(batch)["reconstruction"]) for _ in range(40)]
    assert sum(values[-5:]) < 0.95 * sum(values[:5])


def test_a_style_belongs_to_the_code_whatever_its_shape() -> None:
    styles = torch.tensor([[1.0, 2.0]])
    assert with_style(torch.zeros(1, 3), styles).tolist() == [[0, 0, 0, 1, 2]]
    spread = with_style(torch.zeros(1, 3, 4, 4), styles)
    assert spread.shape == (1, 5, 4, 4)
    assert (spread[0, 3] == 1).all()
    assert (spread[0, 4] == 2).all()


def test_an_image_has_the_same_draws_in_every_epoch_and_others_than_its_neighbour(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, draws=2)
    first, again = method.translations(batch), method.translations(batch)
    assert first.shape == (12, 3, 16, 16)
    assert torch.equal(first, again)
    twice = batch.source[:1].expand(2, -1, -1, -1)
    same = Batch(twice, batch.source_labels[:2], torch.tensor([3, 4]), batch.target, batch.target, batch.target_positions)
    drawn = method.translations(same)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3), "another image, another style"
    assert not torch.allclose(drawn[0], drawn[2], atol=1e-3), "another draw, another style"


def test_translating_without_a_style_draws_one_and_reconstructing_takes_the_images_own(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32)
    a, b = (method.translate(batch.source, 0, 1) for _ in range(2))
    assert not torch.equal(a, b)
    a, b = (method.translate(batch.source, 0, 0) for _ in range(2))
    assert torch.equal(a, b)
    own = method.translate(batch.source, 0, 1, method.styles(batch.target_weak[:6], 1))
    assert torch.equal(own, method.translate(batch.source, 0, 1, method.styles(batch.target_weak[:6], 1)))


@pytest.mark.parametrize(
    ("weight", "name"),
    [
        ("mode_seeking_weight", "mode_seeking"),
        ("translated_class_weight", "generator_class"),
        ("translated_pseudo_label_weight", "generator_pseudo_label"),
        ("information_weight", "target_entropy"),
        ("content_weight", "content"),
    ],
)
def test_a_weight_of_zero_leaves_its_term_out(fp32: Runtime, batch: Batch, weight: str, name: str) -> None:
    assert name not in make(fp32, **{weight: 0.0}).step(batch)
    assert name in make(fp32, **{weight: 1.0}).step(batch)


def test_the_translator_moves_and_the_classifiers_loss_does_not_move_it(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, draws_from=0.0)
    before = weights(method.networks)
    values = method.losses(batch)
    values["total"].backward()
    assert "translated_class" in values
    assert all(p.grad is None for p in method.networks.parameters())
    method.step(batch)
    assert not torch.equal(before, weights(method.networks))


def test_a_finished_translator_stays_as_it_is_while_the_classifier_learns_from_it(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, 4, translator_share=0.5, draws_from=0.5)
    early = [method.step(batch) for _ in range(2)]
    finished = weights(method.networks), weights(method.translator)
    late = [method.step(batch) for _ in range(2)]
    assert torch.equal(finished[0], weights(method.networks))
    assert torch.equal(finished[1], weights(method.translator))
    assert all("reconstruction" in values and "translated_class" not in values for values in early)
    assert all("reconstruction" not in values and "translated_class" in values for values in late)


def test_the_translators_rates_fall_over_a_share_of_its_own_steps(fp32: Runtime, batch: Batch) -> None:
    method = make(fp32, 8, translator_share=0.5, decay_from=0.5)
    rates = []
    for _ in range(4):
        method.step(batch)
        optimizers = method.players.state_dict()["optimizers"]
        rates += [optimizers[name]["param_groups"][0]["lr"] for name in ("translator", "discriminators", "content")]
    assert rates == pytest.approx([1e-3, 1e-3, 4e-4] * 2 + [5e-4, 5e-4, 2e-4] + [0, 0, 0])


def test_the_class_of_translations_can_be_read_off_augmented_ones(fp32: Runtime, batch: Batch) -> None:
    """Half of the class loss is of images that are painted all black here; they are judged real or fake as they are."""
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    plain = make(fp32, translated_class_weight=1.0).step(black)
    method = make(fp32, translated_class_weight=1.0, translated_class_augmented=True)
    with torch.no_grad():
        logits = method.classify(method.features(torch.full_like(batch.source, -1), 1))
        of_black = by_hand.cross_entropy(logits, batch.source_labels)
    values = method.step(black)
    assert values["generator_adversarial"] == plain["generator_adversarial"]
    expected = float(plain["generator_class"] + of_black) / 2
    assert float(values["generator_class"]) == pytest.approx(expected, abs=1e-5)
    assert float(plain["generator_class"]) != pytest.approx(expected, abs=1e-3)


def test_the_class_of_translations_back_too(fp32: Runtime, batch: Batch) -> None:
    """Half of this loss is of images that source augmentation has painted black; the teacher reads real images, as they are."""
    black = dataclasses.replace(batch, augment_source=lambda images: images * 0 - 1)
    seen = torch.full_like(batch.source, -1)
    with torch.no_grad():
        teacher = CLASSIFIER(batch.target_weak[: len(seen)])
        sure_of_half = float(teacher.softmax(1).amax(1).median())
        of_black = by_hand.sure_cross_entropy(CLASSIFIER(seen), teacher, sure_of_half)
    settings = {"translated_pseudo_label_weight": 1.0, "confidence": sure_of_half}
    plain = make(fp32, **settings).step(black)
    values = make(fp32, **settings, translated_class_augmented=True).step(black)
    expected = float(plain["generator_pseudo_label"] + of_black) / 2
    assert float(values["generator_pseudo_label"]) == pytest.approx(expected, abs=1e-5)
    assert float(plain["generator_pseudo_label"]) != pytest.approx(expected, abs=1e-3)


def test_the_classifier_can_see_its_draws_augmented(fp32: Runtime, batch: Batch) -> None:
    black = dataclasses.replace(batch, augment=lambda images: images * 0 - 1)
    assert not (make(fp32).translations(black) == -1).any()
    assert (make(fp32, draws_augmented=True).translations(black) == -1).all()
