"""Networks by timm's and torchvision's names, with random or with published weights."""

from __future__ import annotations

import re
import socket
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from torch import Tensor, nn

from uda.errors import UserError
from uda.models.preprocessing import timm_description, torchvision_weights
from uda.models.weights import load_body

LIBRARIES = ("timm:", "torchvision:")
OTHER_WAYS = "give them with --backbone-weights FILE, or start from random ones with --set classifier.pretrained=false"

# What torchvision's two networks with auxiliary heads are like where they have published weights.
_WITHOUT_AUXILIARY_HEADS = {"aux_logits": False, "transform_input": True, "init_weights": True}
_OPTIONS: dict[str, dict[str, Any]] = dict.fromkeys(("googlenet", "inception_v3"), _WITHOUT_AUXILIARY_HEADS)
# torchvision's DenseNets were released when their layers' names had one more dot.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def check_published(backbone: str) -> None:
    """Whether weights of ``timm:NAME`` or ``torchvision:NAME`` are published. Downloads nothing.

    Raises:
        UserError: where there are none, or there is no such network.
    """
    library, _, name = backbone.partition(":")
    if library == "timm" and not timm_description(name).has_weights:
        raise UserError(f"no weights of {backbone} are published; {OTHER_WAYS}")
    if library == "torchvision":
        torchvision_weights(name)


def in_library(name: str) -> str | None:
    """``timm:NAME`` or ``torchvision:NAME``, where that library has a network of this name; None where neither has."""
    import timm
    from torchvision import models

    if timm.is_model(name):
        return f"timm:{name}"
    return f"torchvision:{name}" if name in models.list_models(module=models) else None


def timm_network(name: str, channels: int, size: int, classes: int, pretrained: bool = False) -> nn.Module:
    """Any timm network, as a classifier. Weights are downloaded only with `pretrained`, where they are not here already.

    Raises:
        UserError: for a name that timm does not know, images that it cannot take, and weights that cannot be had.
    """
    import timm

    # timm's word for a network that is built for one size of image, which can then be named.
    options: dict[str, Any] = {"img_size": size} if timm_description(name).fixed_input_size else {}
    try:
        with _no_waiting_where_offline():
            return timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels, **options)
    except Exception as error:  # building, reading and fetching raise almost anything
        if pretrained:
            timm_network(name, channels, size, classes)  # raises where the weights are not what is wrong
            place = f"https://huggingface.co/{timm_description(name).hf_hub_id}"
            raise _not_to_be_had(f"timm:{name}", place, error) from error
        raise UserError(
            f"timm:{name} cannot be built for {channels}x{size}x{size} images ({_reason(error)}); "
            "give the side that it was made for, such as --size 224"
        ) from error


def torchvision_network(name: str, classes: int, pretrained: bool = False) -> nn.Module:
    """Any of torchvision's classifiers, for images of three channels. Weights are downloaded only with `pretrained`.

    Raises:
        UserError: for a name that torchvision does not know, and for weights that cannot be had.
    """
    from torchvision import models

    weights = torchvision_weights(name)
    network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **_OPTIONS.get(name, {}))
    if pretrained:
        try:
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:  # as above
            raise _not_to_be_had(f"torchvision:{name}", weights.url, error) from error
        head = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
        load_body(as_named_here(state, network), network, head, str(weights))
    return network


def as_named_here(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A state dict as its authors released it, under the names that timm's or torchvision's `network` has for it.

    For a timm network also position embeddings come in the network's number, and a first convolution for its channels.
    """
    state = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    home = type(network).__module__
    if not home.startswith("timm."):
        return state
    from timm.models import adapt_input_conv

    translate = getattr(sys.modules[home], "checkpoint_filter_fn", None)
    if translate is not None:
        state = dict(translate(state, network))
    own, description = network.state_dict(), cast(dict[str, Any], network.pretrained_cfg)
    first = description["first_conv"] or ()
    for name in [f"{name}.weight" for name in ([first] if isinstance(first, str) else first)]:
        if name in state and state[name].shape[1] != own[name].shape[1]:
            state[name] = adapt_input_conv(own[name].shape[1], state[name])
    return state


def _not_to_be_had(backbone: str, place: str, error: Exception) -> UserError:
    return UserError(f"the weights of {backbone}, {place}, cannot be had ({_reason(error)}); {OTHER_WAYS}")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _no_waiting_where_offline() -> Iterator[None]:
    """Without a connection, Hugging Face's client reads what it has kept at once; else it would retry for most of a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _resolves(urlsplit(constants.ENDPOINT).hostname)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _resolves(host: str | None) -> bool:
    if urllib.request.getproxies():
        return True  # names are then looked up elsewhere
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
