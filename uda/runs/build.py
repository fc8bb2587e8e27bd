"""Networks and methods, built from a recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda import plugins, ranks
from uda.data.frame import Frame
from uda.errors import OtherClasses, UserError
from uda.methods import find_method
from uda.methods.base import Method
from uda.methods.source_only import SourceClassifierSettings
from uda.methods.translating import PairDrawing, Translating
from uda.models import GIVEN_IN_PYTHON, build_classifier, build_foreign
from uda.models.backbones import Classifier
from uda.models.custom import find_head, is_own, load_network, split_network
from uda.models.frozen import Body, Resized, TwoNorms, Whole, freeze, with_head
from uda.models.heads import pool_before_head
from uda.models.layers import Normalize
from uda.models.preprocessing import preprocessing_of
from uda.models.published import LIBRARIES, as_named_here
from uda.models.stages import module_before
from uda.models.weights import load_body, load_weights, read_state
from uda.players import mark_pretrained
from uda.recipe.schema import Recipe
from uda.runtime import Runtime
from uda.text import counted

MOST_CLASSES = 20  # named in one line


def starts_published(wanted: SourceClassifierSettings) -> bool:
    """Whether a network starts from the weights that timm or torchvision publish: it does unless a file gives weights.

    Raises:
        UserError: where the settings contradict one another.
    """
    files = [key for key in ("weights", "backbone_weights") if getattr(wanted, key) is not None]
    if len(files) == 2:
        raise UserError("give --weights (a network trained on the source) or --backbone-weights (a pretrained body), not both")
    if files and wanted.pretrained:
        raise UserError(f"classifier.pretrained=true and classifier.{files[0]} both say where weights come from; leave one out")
    return wanted.backbone.startswith(LIBRARIES) and not files if wanted.pretrained is None else wanted.pretrained


def check_files(wanted: SourceClassifierSettings) -> None:
    """Whether the files are there that a network is made of: a wrong name is known before minutes are spent on images.

    Raises:
        UserError: where one is missing or damaged, the code in it cannot be imported, or two contradict each other.
    """
    starts_published(wanted)
    for weights in (wanted.weights, wanted.backbone_weights):
        if weights is not None:
            read_state(Path(weights))
    if is_own(wanted.backbone):
        plugins.load(wanted.backbone)


def build_whole(
    recipe: Recipe, classes: int, model: nn.Module | None = None, published: bool = False
) -> tuple[nn.Module, Normalize] | None:
    """A network that is not ours (a copy of `model`, where given), whole, with the preprocessing that it expects; else None.

    Its weights are random, or those that timm or torchvision publish.
    """
    wanted, (channels, size, _) = recipe.classifier, recipe.data.shape
    if model is not None:
        foreign = copy.deepcopy(model), Normalize((0.0,) * channels, (1.0,) * channels)
    elif wanted.backbone == GIVEN_IN_PYTHON:
        raise UserError("this run's network was given in Python; give it again: uda.load(RUN, model=network)")
    elif (found := build_foreign(wanted.backbone, channels, size, classes, wanted.width, published)) is not None:
        foreign = found
    else:
        return None
    network, expected = foreign
    if wanted.backbone_weights is not None or (wanted.backbone.startswith(LIBRARIES) and wanted.weights is None):
        network = pool_before_head(network)  # the head is new anyway
    mean, std = (wanted.mean or expected.mean), (wanted.std or expected.std)
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != channels:
            example = f"--set 'classifier.{name}={[0.5] * channels}'"
            raise UserError(
                f"classifier.{name} has {counted(len(numbers), 'number')} for images of {counted(channels, 'channel')} "
                f"(data.channels); give one for each channel: {example}"
            )
    return network, Normalize(mean, std)


class Networks(NamedTuple):
    """A source classifier, and before it what is frozen of the network, if anything; on the target that may be another body."""

    body: Body | None
    classifier: Classifier
    target_body: TwoNorms | None = None

    def whole(self, classifier: nn.Module, adapted: bool = True) -> nn.Module:
        """The source classifier, or one that a method has made of it (`adapted`), as it takes images."""
        body = self.target_body if adapted and self.target_body is not None else self.body
        return classifier if body is None else Whole(body, classifier)

    def reader(self, recipe: Recipe) -> Resized | None:
        """How images of the side that the recipe's method draws at are read; None where it draws none, or nothing is frozen."""
        if self.body is None or not recipe.reads_pixels:
            return None
        return Resized(self.body, recipe.data.drawn_read_size or recipe.data.shape[1])


def published_frame(wanted: SourceClassifierSettings) -> Frame | None:
    """How the network that is named wants its images, where its description says so."""
    found = preprocessing_of(wanted.backbone)
    return None if found is None else Frame(found.size, len(found.mean), found.resize, found.interpolation)


def channels_taken(recipe: Recipe, model: nn.Module | None = None) -> int | None:
    """How many channels a user's own network (`model`, where given) takes: 1 or 3; None where that is not known, or was said.

    One image in colour would otherwise make three of them, which a network that was trained on grey images cannot take. The
    length of its mean or std says it; else the first convolution that the network holds does.
    """
    wanted = recipe.classifier
    if recipe.data.channels is not None or not recipe.classifies or (model is None and not is_own(wanted.backbone)):
        return None
    if given := wanted.mean or wanted.std:
        return len(given) if len(given) in (1, 3) else None
    with torch.random.fork_rng(devices=[]):
        network = model if model is not None else load_network(wanted.backbone)
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in (1, 3) else None


def build_networks(
    recipe: Recipe, classes: int, runtime: Runtime, model: nn.Module | None = None, begin: bool = False
) -> Networks:
    """The network that `recipe.classifier` names (or a copy of `model`), in parts, on the runtime's device.

    Args:
        recipe: with its frame settled.
        classes: how many.
        runtime: where it goes.
        model: the network, where one was given in Python.
        begin: whether it has the weights that the recipe lets it start from; else they are random, for others to be put in.
    """
    wanted, (channels, size, _) = recipe.classifier, recipe.data.shape
    published = begin and starts_published(wanted)
    foreign = build_whole(recipe, classes, model, published)
    network = build_classifier(wanted.backbone, channels, size, classes, wanted.width) if foreign is None else foreign[0]
    start = f"the published weights of {wanted.backbone}" if published else ""
    ignored = [key for key in ("split", "mean", "std") if getattr(wanted, key) is not None]
    if foreign is None and ignored:
        raise UserError(f"classifier.{ignored[0]} is for networks that are not ours, and {wanted.backbone} is; leave it out")
    if foreign is None and (wanted.first_trained is not None or wanted.deeper):
        raise UserError(f"{wanted.backbone} has no stages; set classifier.trainable to head or all, and classifier.deeper to 0")
    if begin and wanted.weights is not None:
        load_weights(Path(wanted.weights), network)
    elif begin and wanted.backbone_weights is not None:
        path = Path(wanted.backbone_weights)
        head = "head" if foreign is None else find_head(network, channels, size, classes)
        start = load_body(as_named_here(read_state(path), network), network, head, path.name)
    if foreign is None:
        classifier = cast(Classifier, network)
    else:
        split = wanted.split
        if wanted.first_trained is not None:
            split = module_before(network, channels, size, classes, wanted.first_trained)
        classifier = split_network(network, channels, size, classes, split, foreign[1])
    body = target_body = None
    if wanted.freezes:
        body, classifier = freeze(classifier, wanted.trainable == "head")
        runtime.place(body)
        two = wanted.target_norm != "own" and not recipe.reads_pixels
        if two and any(isinstance(module, _BatchNorm) for module in body.modules()):
            target_body = TwoNorms(body, recipe.data.shape)
            runtime.place(target_body)
    if starts_published(wanted) or wanted.backbone_weights is not None:
        for part in (classifier.backbone.stem, classifier.backbone.trunk):
            mark_pretrained(part, wanted.pretrained_rate)
    if wanted.bottleneck:
        classifier = with_head(classifier, classes, wanted.bottleneck, wanted.dropout)
    classifier.start = start
    runtime.place(classifier)
    return Networks(body, classifier, target_body)


def build_method(recipe: Recipe, networks: Networks | None, runtime: Runtime) -> Method:
    """The recipe's method, not yet set up, starting from the source classifier (None where it does not classify)."""
    make, frame, steps = find_method(recipe.method.name), recipe.drawn_frame, recipe.training.steps
    given = recipe.method, networks and networks.classifier, (frame.channels, frame.size, frame.size), steps, runtime
    read = networks and networks.reader(recipe)
    method = make(*given) if read is None else make(*given, read)
    runtime.place(method)
    return method


def _require_batches(recipe: Recipe, classifier: nn.Module) -> None:
    """Whether batch norm, if there is any, has two images or more to learn from at each step of each process."""
    if not any(isinstance(part, _BatchNorm) for part in classifier.modules()):
        return
    sizes = {"training.batch": recipe.training.batch, "training.target_batch": recipe.training.target_batch}
    sizes |= {"classifier.batch": recipe.classifier.batch} if recipe.classifier.steps else {}
    for key, size in sizes.items():
        if size is not None and size // ranks.world_size() < 2:
            least = 2 * ranks.world_size()
            raise UserError(f"{key} is {size}, and batch norm learns from two images or more; set it to {least} at least")


@contextmanager
def naming_classes(classes: Sequence[str], note: str) -> Iterator[None]:
    """Where a network has other outputs than there are classes, the error names these, and says where they were found."""
    try:
        yield
    except OtherClasses as error:
        shown = ", ".join(classes[:MOST_CLASSES]) + (", ..." if len(classes) > MOST_CLASSES else "")
        raise UserError(f"{error}; the classes found are {shown} ({note})") from error


def build_checked(
    recipe: Recipe, classes: int, runtime: Runtime, model: nn.Module | None = None, begin: bool = True
) -> Networks | None:
    """The source classifier and its body, as `build_networks` makes them; None where the method does not classify.

    The method is built on a copy of it and thrown away, so that what is wrong with it is known before any training. That draws
    no random number.

    Raises:
        UserError: where the network cannot be imported or split, the weights are another's, or the method cannot use it.
    """
    networks, wanted, method = None, recipe.classifier, find_method(recipe.method.name)
    if wanted.freezes and not method.reads_pixels and (issubclass(method, Translating | PairDrawing) or not method.classifies):
        raise UserError(f'{recipe.method.name} makes images, and reads no features; set classifier.trainable to "all"')
    if recipe.reads_pixels and wanted.first_trained is not None and recipe.data.drawn_read_size not in (None, recipe.data.size):
        raise UserError(f"{recipe.method.name} compares maps, which are of one size alone; leave data.drawn_read_size out")
    if recipe.reads_pixels and wanted.target_norm == "both":
        raise UserError(f'{recipe.method.name} reads both domains by one body; set classifier.target_norm to "own"')
    if recipe.classifies:
        networks = build_networks(recipe, classes, runtime, model, begin)
    elif model is not None or ":" in wanted.backbone or wanted.weights is not None or wanted.backbone_weights is not None:
        raise UserError(
            f"{recipe.method.name} translates images and has no classifier; leave out --model, --weights and --backbone-weights"
        )
    if networks is not None:
        _require_batches(recipe, networks.classifier)
    with torch.random.fork_rng(devices=[]):  # on the CPU, whatever the run's device: no other generator is drawn from
        build_method(recipe, copy.deepcopy(networks), replace(runtime, device=torch.device("cpu"))).read_files()
    return networks
