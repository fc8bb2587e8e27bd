"""What a frozen body makes of images in tar shards, made beforehand: in this process, or a task on Ray for each shard.

`uda fit` with the same settings then reads it instead of images: features on a cluster, head on one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from uda.cluster.engine import check_engine, cluster
from uda.cluster.shards import UNREADABLE, over_shards
from uda.console import Display
from uda.data.files import READERS, ImageFiles
from uda.data.folders import load_unlabelled
from uda.data.load import find_all, resolve_frame
from uda.data.names import is_shards
from uda.data.shards import Done, Members
from uda.errors import UserError
from uda.models.frozen import Body
from uda.models.weights import load_weights, save_tensors
from uda.recipe.schema import Recipe
from uda.runs.build import build_checked, build_networks, published_frame
from uda.runs.cache import WEIGHTS, Cache, limit, user_cache, write_about
from uda.runs.parts import PartsFolder
from uda.runtime import choose_runtime
from uda.training.check import classes_of
from uda.training.keep import Keeper, learn_target


class Where(NamedTuple):
    """What computes: as in `uda.fit`, and on what engine."""

    device: str
    precision: str
    engine: str = "here"
    address: str | None = None
    cpus: int = 1


class Asked(NamedTuple):
    """What a task is to be done by.

    Attributes:
        recipe: with its frame settled, as JSON.
        classes: how many.
        folder: of the parts, with the body's weights; all nodes share it.
        device, precision: what computes.
        readers: processes that draw views, at most.
    """

    recipe: str
    classes: int
    folder: Path
    device: str
    precision: str
    readers: int


def build(recipe: Recipe, roots: Sequence[Path], where: Where, display: Display) -> int:
    """Makes what a run of a recipe would make of its target, which lies in shards; returns of how many images that was.

    Where the target may have a body of its own (`classifier.target_norm`), that makes its own of all images, too.

    Raises:
        UserError: for wrong input; for shards that cannot be read, after all others are done.
    """
    check_engine(where.engine, where.address)
    cache = user_cache()
    if not recipe.classifier.freezes:
        raise UserError('nothing of this network is frozen; add: --set classifier.trainable=head, or "from STAGE"')
    if not is_shards(recipe.data.target):
        raise UserError(f"{recipe.data.target} is not in tar shards; pack a folder with: uda shards FOLDER -o DIR")
    if cache.root is None:
        raise UserError("$UDA_CACHE_GIB is 0, so that nothing is kept; set it to a number of GiB, or unset it")
    runtime = choose_runtime(where.device, where.precision)
    if where.address is None:  # a probe decides once, and not in each task
        where = where._replace(device=str(runtime.device), precision=runtime.precision)
    found = find_all(recipe.data, roots, recipe.classifies)
    frame = resolve_frame(recipe.data, found.get("source"), found.get("target"), published_frame(recipe.classifier))
    recipe, classes = recipe.with_frame(frame), classes_of(recipe.data, found)
    networks = build_checked(recipe, len(classes), runtime)
    assert networks is not None
    assert networks.body is not None
    target = load_unlabelled(found["target"], classes, frame, None, display)
    assert isinstance(target.images, ImageFiles)
    members = target.images.names
    assert isinstance(members, Members)
    bodies = 1 if networks.target_body is None else 2
    _check_room(networks.body, recipe, bodies * len(target))

    readers = READERS if where.engine == "here" else where.cpus - 1

    def made_by(body: Body, what: str) -> tuple[Keeper, int]:
        keeper = Keeper(body, recipe.data, runtime, display, cache)
        asked = Asked(recipe.model_dump_json(), len(classes), Path(), where.device, where.precision, readers)
        return keeper, _build_parts(keeper, asked, members, what, where)

    held = cluster(where.address, where.cpus) if where.engine == "ray" else nullcontext()
    with runtime.computing(), held:  # once for both bodies
        keeper, images = made_by(networks.body, f"features of tar shards by {recipe.classifier.backbone}")
        if networks.target_body is not None:
            kept = keeper.keep(target, recipe.data.views.all)
            learn_target(networks.target_body, kept, recipe.data.frame, runtime, cache)
            display.say("  and once more, by the target's own statistics (--set classifier.target_norm=own leaves that out)")
            adapted = Body(networks.target_body.adapted)
            images += made_by(adapted, f"features of tar shards by {recipe.classifier.backbone}, target's statistics")[1]
    return images


def _check_room(body: nn.Module, recipe: Recipe, images: int) -> None:
    """Whether all of it may be kept at a time."""
    with torch.no_grad():
        weight = next(body.parameters())
        shape = body(weight.new_zeros(1, *recipe.data.shape)).shape
    wanted = images * len(recipe.data.views.all) * shape.numel() * (4 if len(shape) == 2 else 2)
    if wanted > limit():
        raise UserError(
            f"this takes {wanted / 2**30:.1f} GiB, and {limit() / 2**30:g} may be kept; set $UDA_CACHE_GIB to more, here and "
            "where it is read, or ask for fewer views (data.views)"
        )


def _build_parts(keeper: Keeper, asked: Asked, members: Members, what: str, where: Where) -> int:
    cache, key = keeper.cache, keeper.of_parts
    assert cache.root is not None
    with cache.alone(key):  # another build may begin at the same time
        if cache.find(key) is None:
            with cache.writing(key) as made:
                save_tensors(keeper.body.state_dict(), made / WEIGHTS)
                write_about(made, {"what": what})
    folder = cache.root.absolute() / key
    asked = asked._replace(folder=folder)
    shards = [shard for shard, first, end in zip(members.shards, members.starts, members.starts[1:], strict=False) if end > first]
    tasks, on = [(asked, shard) for shard in shards], (where.engine, where.address, where.cpus)
    try:
        return over_shards(_found_kept, _keep, tasks, folder / UNREADABLE, keeper.display, *on)
    finally:
        cache.bound(key)


def _found_kept(asked: Asked, shard: str) -> Done | None:
    """What was made of a shard before; None where there is nothing."""
    parts = PartsFolder(asked.folder)
    return parts.found(parts.name(shard))


def _keep(asked: Asked, shard: str) -> Done:
    """What came of a shard."""
    parts = PartsFolder(asked.folder)
    if not parts.path.is_dir():
        raise UserError(f"{parts.path} is not there on this node; give $XDG_CACHE_HOME a folder that all nodes share")
    keeper = _keeper(asked)
    with keeper.runtime.computing():
        return keeper.keep_shard(shard, parts)


@lru_cache(maxsize=1)
def _keeper(asked: Asked) -> Keeper:
    """The body, loaded once in each process."""
    recipe, runtime = Recipe.model_validate_json(asked.recipe), choose_runtime(asked.device, asked.precision)
    body = build_networks(recipe, asked.classes, runtime).body
    assert body is not None
    load_weights(asked.folder / WEIGHTS, body)
    keeper = Keeper(body, recipe.data, runtime, Display(quiet=True), Cache(asked.folder.parent), readers=asked.readers)
    if keeper.of_parts != asked.folder.name:
        raise UserError(f"this node makes other maps than the one that asks; it has {keeper.versions}: install the same on both")
    return keeper
