"""What a frozen body makes of all images, computed once before anything is trained, and kept for other runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from uda import ranks
from uda.collectives import copy_from_first, interleaved
from uda.console import Display
from uda.data.augment import to_float
from uda.data.domain import Domain, LabelledDomain, Pair
from uda.data.files import READERS, ImageFiles, in_order, read, read_in, read_views, refuse_too_many
from uda.data.frame import Frame, View
from uda.data.kept import Kept, Other
from uda.data.settings import DataSettings
from uda.data.shards import Done, Members, members_of
from uda.errors import UserError
from uda.models.frozen import Body, TwoNorms
from uda.models.weights import read_state, save_tensors
from uda.runs.cache import MAPS, OUTPUTS, WEIGHTS, Cache, digest, digest_of_images, map_file, versions_of, write_about, write_maps
from uda.runs.parts import PartsFolder
from uda.runtime import Runtime
from uda.text import counted

AnyDomain = TypeVar("AnyDomain", Domain, LabelledDomain)
PACKAGES = "torch", "torchvision", "timm", "pillow"  # whose other versions make other maps
STATISTICS = 256  # target images by which the statistics of a body's batch norms are learned
FILES = 4  # images whose views are drawn together
ROWS = {"cpu": 8, "cuda": 128}  # views that go through the body together: on a CPU, what its caches hold


@dataclass
class Keeper:
    """Computes maps, or finds them where an earlier run has kept them.

    Attributes:
        body: what computes them.
        data: the frame of the images, and the views.
        runtime, display: what to compute with, and where to say how it goes.
        cache: where they are kept.
        small: whether the images themselves are kept too, at the side that methods draw at.
        readers: processes that draw views, at most.
    """

    body: Body
    data: DataSettings
    runtime: Runtime
    display: Display
    cache: Cache
    small: bool = False
    readers: int = READERS

    def __post_init__(self) -> None:
        self.versions = versions_of(*PACKAGES)
        self.where = f"{self.runtime.device.type} {self.runtime.precision}"
        body = digest(self.body)
        self.of_body = digest(body, self.data.frame, self.where, self.versions)
        # What was made on a cluster is read wherever it is wanted, whatever had computed it.
        self.of_parts = digest("parts", body, self.data.frame, self.data.views.all, self.versions)
        self.fastest: Body | None = None
        self.shrunk: dict[str, Tensor] = {}
        self.made: dict[str, tuple[Kept, Tensor, tuple[str, ...]]] = {}

    def keep_pair(self, pair: Pair) -> Pair:
        """The pair with what the body makes of its images; of test images, in the view that is tested on alone.

        Unreadable images are left out.
        """
        views = self.data.views
        source, target = self.keep(pair.source, views.all), self.keep(pair.target, views.all)
        source_test = self.keep(pair.source_test, views.all[:1])
        test = pair.target_test and self.keep(pair.target_test, views.all[:1])
        unknown = pair.target_unknown and self.keep(pair.target_unknown, views.all[:1])
        return Pair(source, source_test, target, test, unknown)

    def blend_target(self, pair: Pair, body: TwoNorms) -> Pair:
        """The pair with what `body` makes of target images; this keeper's is its second half."""
        target, test, unknown = pair.target, pair.target_test, pair.target_unknown
        other = self.keep(target, self.data.views.all)
        blended = replace(target, kept=_blended(target, other, body))
        if test is not None:
            test = replace(test, kept=_blended(test, self.keep(test, self.data.views.all[:1]), body))
        if unknown is not None:
            unknown = replace(unknown, kept=_blended(unknown, self.keep(unknown, self.data.views.all[:1]), body))
        return replace(pair, target=blended, target_test=test, target_unknown=unknown)

    def keep(self, domain: AnyDomain, views: tuple[View, ...]) -> AnyDomain:
        """A domain with what the body makes of these views of each image."""
        images = digest_of_images(domain.images)
        key = digest(self.of_body, images, views)
        more = digest(self.of_body, images, self.data.views.all)  # the same images may be trained on and tested
        found = self.made.get(more) or self.made.get(key) or self._gathered(domain) or self._found(key)
        lacking = ranks.anywhere(found is None)
        if found is None or lacking:
            found = self._computed(key, domain, views)
        self.made[key] = kept, readable, unreadable = found
        if len(readable) < len(domain):
            note = f"{domain.note}, {counted(len(unreadable), 'unreadable one')} left out"
            domain = replace(domain.only(readable), note=note, unreadable=unreadable)
        return replace(domain, kept=kept, small=self._shrunk(domain, images) if self.small else None)

    def _shrunk(self, domain: Domain, images: str) -> Tensor:
        """Images whose digest is `images`, small: uint8 (N, C, s, s), memory-mapped."""
        frame = self.data.drawn_frame
        key = digest("small", images, frame, self.versions)
        with ranks.in_turn():
            if key not in self.shrunk and (found := self.cache.find(key)) is not None:
                about, folder = found
                self.shrunk[key] = map_file(folder / MAPS, about["shape"], about["dtype"])
            elif key not in self.shrunk:
                with self.cache.writing(key) as folder:
                    shape, dtype = write_maps(folder / MAPS, read_in(frame, domain.images))
                    write_about(folder, {"what": f"{domain.name} at {frame.size} pixels", "shape": shape, "dtype": dtype})
                    self.shrunk[key] = map_file(folder / MAPS, shape, dtype)
        return self.shrunk[key]

    def keep_shard(self, shard: str, parts: PartsFolder) -> Done:
        """Writes the part of one shard: what the body makes of all views of its images."""
        members, _ = members_of(shard)
        domain = Domain(shard, ImageFiles(Path(), members, self.data.frame), (), "")
        lost: dict[int, str] = {}
        parts.write(parts.name(shard), self._blocks(domain, self.data.views.all, [], lost), lost, self.where)
        return Done(len(domain), list(lost.values()))

    def _gathered(self, domain: Domain) -> tuple[Kept, Tensor, tuple[str, ...]] | None:
        """What `keep_shard` has written of all shards that a domain's images lie in; else None."""
        members = domain.images.names if isinstance(domain.images, ImageFiles) else None
        if not isinstance(members, Members) or (found := self.cache.find(self.of_parts)) is None:
            return None
        if (gathered := PartsFolder(found[1]).gather(members)) is None:
            return None
        maps, readable, rows, unreadable, computed = gathered
        refuse_too_many(list(unreadable), len(domain), len(domain))
        self.display.say(f"  features of {domain.name}: built before ({', '.join(computed)})")
        everything = len(rows) == len(maps)
        return (
            Kept(maps, self._weak(maps.shape[1]), self.runtime.device, rows=None if everything else rows), readable, unreadable
        )  # fmt: skip

    def _found(self, key: str) -> tuple[Kept, Tensor, tuple[str, ...]] | None:
        if (found := self.cache.find(key)) is None:
            return None
        about, folder = found
        try:
            maps = map_file(folder / MAPS, about["shape"], about["dtype"])
            readable, unreadable = torch.tensor(about["readable"]), tuple(about["unreadable"])
        except (UserError, KeyError):  # damaged, and made anew
            return None
        return Kept(maps, self._weak(maps.shape[1]), self.runtime.device), readable, unreadable

    def _computed(self, key: str, domain: Domain, views: tuple[View, ...]) -> tuple[Kept, Tensor, tuple[str, ...]]:
        """What all processes make together; the first of each machine keeps it, and the machine's others read it there."""
        if self.cache.root is None or not ranks.local_rank():
            made = self._written(key, domain, views)
            ranks.wait()
            return made
        for _ in self._blocks(domain, views, [], {}, strict=True):
            pass
        ranks.wait()
        if (found := self._found(key)) is not None:
            return found
        with ranks.alone():  # the machine's first process keeps it elsewhere
            return self._written(key, domain, views)

    def _written(self, key: str, domain: Domain, views: tuple[View, ...]) -> tuple[Kept, Tensor, tuple[str, ...]]:
        readable: list[int] = []
        lost: dict[int, str] = {}
        with self.cache.writing(key) as folder:
            shape, dtype = write_maps(folder / MAPS, self._blocks(domain, views, readable, lost, strict=True))
            unreadable = list(lost.values())
            about = {
                "what": f"{len(views)} views of {domain.name}, {len(readable):,} images, as {' x '.join(map(str, shape[2:]))}",
                "shape": shape, "dtype": dtype, "readable": readable, "unreadable": unreadable,
            }  # fmt: skip
            write_about(folder, about)
            maps = map_file(folder / MAPS, shape, dtype)  # stays readable under its new name, or after it is deleted
        return Kept(maps, self._weak(len(views)), self.runtime.device), torch.tensor(readable), tuple(unreadable)

    def _weak(self, views: int) -> int:
        return min(views, len(self.data.views.weak))

    def _blocks(
        self, domain: Domain, views: tuple[View, ...], readable: list[int], lost: dict[int, str], strict: bool = False
    ) -> Iterator[Tensor]:
        """Maps (B, V, ...) of readable images, block by block; says which these are, and of the others a line.

        With `strict`, too many of the others end it. Several processes make a share of the blocks each, and all have all.
        """
        blocks, done = in_order(domain.images, FILES), 0
        made = interleaved(self._made(domain, views, ranks.own(blocks)))
        with self.display.stage(f"features of {domain.name}", 0, len(domain)) as bar:
            for block, (maps, failed) in zip(blocks, made, strict=True):
                readable += [position for position in block.tolist() if position not in failed]
                lost |= failed
                done += len(block)
                if strict:
                    refuse_too_many(list(lost.values()), done, len(domain))
                if len(maps):
                    yield maps
                bar.update(done, f"{done:,} images")

    def _made(
        self, domain: Domain, views: tuple[View, ...], blocks: tuple[Tensor, ...]
    ) -> Iterator[tuple[Tensor, dict[int, str]]]:
        """Of each block of positions the maps (B, V, ...) of readable images, and a line for each of the others."""
        images = domain.images.to(torch.device("cpu"))
        drawn_views = read_views(images, self.data.frame, views, blocks, self.readers)
        for block, (drawn, failed) in zip(blocks, drawn_views, strict=True):
            lost = {at: f"{images.path(at) if isinstance(images, ImageFiles) else at}: {reason}" for at, reason in failed}
            good = drawn[[row for row, position in enumerate(block.tolist()) if position not in lost]]
            yield (self._maps(good.flatten(0, 1)).unflatten(0, good.shape[:2]) if len(good) else torch.empty(0)), lost

    @torch.no_grad()
    def _maps(self, images: Tensor) -> Tensor:
        """What the body makes of images uint8 (N, C, S, S): float32 (N, D), or bfloat16 (N, C', H, W), on the CPU."""
        made = []
        for part in images.split(ROWS.get(self.runtime.device.type, 8)):
            inputs = self.runtime.arrange(to_float(part.to(self.runtime.device)))
            if self.fastest is None:
                self.fastest = self.body.fastest(inputs)
            with self.runtime.autocast():
                made.append(self.fastest(inputs))
        return _stored(torch.cat(made))


def learn_target(body: TwoNorms, target: Domain, frame: Frame, runtime: Runtime, cache: Cache) -> tuple[Tensor, Tensor]:
    """Has a body learn the statistics of target images, unless `cache` holds them, which it does from then on.

    Of several processes the first one does, and all have what it finds. Returns what is made of some target images by the body's
    own statistics alone, and by both: (n, D) or (n, C', H, W).
    """
    key = digest("target statistics", Body(body.network), frame, digest_of_images(target.images), versions_of(*PACKAGES))

    def learn() -> tuple[Tensor, Tensor]:
        some = read(target.images, target.shuffled()[-STATISTICS:].split(64))
        own, both = (_stored(made) for made in body.learn([runtime.arrange(to_float(part.to(runtime.device))) for part in some]))
        if cache.root is not None:
            with cache.writing(key) as folder:
                save_tensors(body.state_dict(), folder / WEIGHTS)
                save_tensors({"own": own, "both": both}, folder / OUTPUTS)
                write_about(folder, {"what": f"statistics of {target.name} for a frozen body"})
        return own, both

    own, both = ranks.from_first(lambda: _learned(cache, key, body) or learn())
    copy_from_first(body)
    return own.to(runtime.device, torch.float32), both.to(runtime.device, torch.float32)


def _stored(maps: Tensor) -> Tensor:
    """Maps (N, D), or (N, C', H, W) in half of the bytes, on the CPU."""
    return maps.float().cpu() if maps.ndim == 2 else maps.bfloat16().cpu()


def _learned(cache: Cache, key: str, body: TwoNorms) -> tuple[Tensor, Tensor] | None:
    """What a cache holds of a target, with its statistics in the body; None where it holds nothing, or that is damaged."""
    if (found := cache.find(key)) is None or not cache.load(key, body):
        return None
    try:
        compared = read_state(found[1] / OUTPUTS)
        return compared["own"], compared["both"]
    except (UserError, KeyError):
        return None


def _blended(own: Domain, other: Domain, body: TwoNorms) -> Kept:
    assert own.kept is not None
    assert other.kept is not None
    return replace(own.kept, other=Other(other.kept, body.scale, body.shift))
