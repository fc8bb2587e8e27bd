"""A network whose first part is frozen: body | trunk | head, of which methods train and hold trunk and head alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from uda.models.backbones import Backbone, Classifier
from uda.models.layers import convert_domain_batch_norm, learn_statistics, revert_domain_batch_norm


class Body(nn.Module):
    """What is frozen of a network: images (N, C, S, S) in -1..1 to maps (N, C', H, W) or features (N, D).

    It stays in evaluation mode and keeps the statistics that it came with, for both domains.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Body:
        """The network stays in evaluation mode, whatever is around it does."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        inputs: Tensor = self.network(images)
        return inputs

    def fused(self) -> Body:
        """A copy that computes the same with fewer passes over memory: batch norm lies within the convolution before it.

        A module that is called otherwise than its children are listed would compute something else: see `fastest`.
        """
        fused = copy.deepcopy(self)
        for module in list(fused.modules()):
            before: nn.Module | None = None
            for name, child in list(module.named_children()):
                if isinstance(child, _BatchNorm) and isinstance(before, nn.Conv2d) and child.running_mean is not None:
                    setattr(module, name, _fuse(before, child))
                before = child
        return fused

    @torch.no_grad()
    def fastest(self, images: Tensor) -> Body:
        """The fused copy, where that computes the same of these images in float32; else the body itself."""
        fused = self.fused()
        try:
            with torch.autocast(images.device.type, enabled=False):
                expected, got = self(images.float()), fused(images.float())
        except RuntimeError:
            return self
        return fused if torch.allclose(expected, got, rtol=1e-3, atol=1e-3 * float(expected.abs().max())) else self


class TwoNorms(Body):
    """A body for target images, whose batch norms go by the statistics that they came with and by the target's, in the mean.

    The target's statistics take away some of its style (AdaBN, Li et al. 2018), and with it what the pretrained weights rely on.
    What both passes return is therefore averaged, after the second was brought to the mean and deviation of the first.

    Args:
        body: what it is made of, whose network it shares.
        shape: (C, S, S) of images.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, body: Body, shape: tuple[int, int, int]) -> None:
        super().__init__(body.network)
        self.adapted = copy.deepcopy(self.network)
        with torch.no_grad():
            outputs = self.network(next(self.network.parameters()).new_zeros(1, *shape))
        each = 1, outputs.shape[1], *[1] * (outputs.ndim - 2)  # (1, D) or (1, C', 1, 1)
        self.register_buffer("scale", outputs.new_ones(each))
        self.register_buffer("shift", outputs.new_zeros(each))

    @torch.no_grad()
    def learn(self, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Learns the target's statistics from batches of its images, (B, C, S, S) in -1..1.

        Returns what is made of all these images by the own statistics alone, and by both.
        """
        self.adapted = convert_domain_batch_norm(copy.deepcopy(self.network))
        learn_statistics(self.adapted, self.adapted, batches)
        revert_domain_batch_norm(self.adapted)
        own, adapted = (torch.cat([network(images) for images in batches]) for network in (self.network, self.adapted))
        if len(own) == 1:  # it has no spread, and both are the same
            return own, own
        over = (0, *range(2, own.ndim))
        (deviation, mean), (other, middle) = (torch.std_mean(outputs, over, keepdim=True) for outputs in (own, adapted))
        self.scale.copy_(deviation / other.clamp_min(1e-6))
        self.shift.copy_(mean - middle * self.scale)
        return own, (own + adapted * self.scale + self.shift) / 2

    def forward(self, images: Tensor) -> Tensor:
        inputs: Tensor = (self.network(images) + self.adapted(images) * self.scale + self.shift) / 2
        return inputs


class Resized:
    """A body that reads images of any side, (N, C, s, s) in -1..1, brought to `size` first. Its weights stay; gradients pass.

    It is no module: what holds it neither trains nor saves the body.
    """

    def __init__(self, body: Body, size: int) -> None:
        self.body, self.size = body, size
        self.fastest: Body | None = None

    def __call__(self, images: Tensor) -> Tensor:
        images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        if self.fastest is None:
            self.fastest = self.body.fastest(images.detach())
        inputs: Tensor = self.fastest(images)
        return inputs


def _fuse(convolution: nn.Conv2d, norm: _BatchNorm) -> nn.Module:
    """Moves a batch norm into the convolution before it; what is left of it is the activation that timm's norms hold."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    convolution.weight, convolution.bias = weight, bias
    return nn.Sequential(*(part for key in ("drop", "act") if isinstance(part := getattr(norm, key, None), nn.Module)))


class Whole(nn.Module):
    """Body and classifier in one, as predictions and exports want it: images (N, C, S, S) in -1..1 to logits (N, K)."""

    def __init__(self, body: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.body, self.classifier = body, classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.body(images))
        return logits


class DomainNorm(nn.BatchNorm1d):
    """Features (N, D) by mean and variance, each domain by its own: batch norm without scale and shift.

    The source's statistics are learned with the source classifier, and the target's from real target images (see
    `uda.models.layers.DomainBatchNorm`, which takes the place of any batch norm while a method trains).
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)


def with_head(classifier: Classifier, classes: int, bottleneck: int, dropout: float) -> Classifier:
    """A new head in place of the classifier's own: a bottleneck, which alignment and self-training have to train, then classes.

    Features are normalised by domain, then: linear to `bottleneck`, layer norm, ReLU, dropout, linear. (Long et al. 2018 and
    Liang et al. 2020 have batch norm in its place.)
    """
    backbone = classifier.backbone
    linear, after = nn.Linear(backbone.feature_dim, bottleneck), (nn.LayerNorm(bottleneck), nn.ReLU(), nn.Dropout(dropout))
    if isinstance(backbone.trunk, nn.Identity):  # all of the backbone is frozen: the stem is what is trained first
        made = Backbone(nn.Sequential(DomainNorm(backbone.feature_dim), linear), nn.Sequential(*after), bottleneck)
    else:
        made = Backbone(
            backbone.stem, nn.Sequential(backbone.trunk, DomainNorm(backbone.feature_dim), linear, *after), bottleneck
        )
    return Classifier(made, nn.Linear(bottleneck, classes), classifier.parts)


def freeze(classifier: Classifier, whole_backbone: bool) -> tuple[Body, Classifier]:
    """Cuts a classifier in two: the body, and a classifier of what it returns.

    `whole_backbone`: whether the body is stem and trunk; else it is the stem alone.
    """
    backbone = classifier.backbone
    if whole_backbone:
        rest = Backbone(nn.Identity(), nn.Identity(), backbone.feature_dim)
        return Body(backbone), Classifier(rest, classifier.head, classifier.parts)
    rest = Backbone(nn.Identity(), backbone.trunk, backbone.feature_dim)
    return Body(backbone.stem), Classifier(rest, classifier.head, classifier.parts)
