"""Images in tar shards, as WebDataset lays them out: more of them than a disk has files, or than a disk holds.

A pass over the shards, once, finds where in them the images lie. That index is kept on disk and memory-mapped, 32 bytes an image,
so that memory does not grow with their number. A shard behind a URL is fetched when its turn comes, and `FETCHED` are kept.

The class of an image is what its ``KEY.cls`` says, else the first folder of its name.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from uda.atomic import alone, atomic_write, is_temporary, sweep
from uda.data.names import is_url, shards_root
from uda.errors import UserError
from uda.paths import regular
from uda.runtime import own_generator

EXTENSIONS = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"))
NOT_READ = frozenset((".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".svg"))
"""endings of images that are not read, and so are counted"""
MISSING = "this needs WebDataset, which is not installed: pip install 'uda-toolkit[shards]'"
FETCHED = 32
"""shards behind URLs that are kept on disk"""
TRIES = 3
LONGEST_END = 2**20  # bytes that are looked at behind the last member: at least a block of zeros, and zeros alone
"""times that one is fetched for one image, where others delete it each time"""
BUFFER, OPEN = 20_000, 16
"""images that are shuffled together, of at most so many shards"""
MOST = 1_000_000
"""shards that one pattern may stand for"""
RANGE = re.compile(r"(-?[0-9]+|[A-Za-z])\.\.(-?[0-9]+|[A-Za-z])(?:\.\.(-?[0-9]+))?")
UNLABELLED = -1
_TABLE, _ABOUT = "members.bin", "about.json"


class Member(NamedTuple):
    """Where an image lies in its shard, in bytes: its header, its content; and which class, or `UNLABELLED`."""

    header: int
    offset: int
    size: int
    label: int


class Done(NamedTuple):
    """What came of a shard: how many images it has, and a line ``SHARD/NAME: REASON`` for each that cannot be."""

    images: int
    unreadable: list[str]


class Members:
    """The images of some shards, in order: a sequence of their names that reads headers and contents where they lie.

    Attributes:
        shards: paths or URLs.
        key: a name for their content: by names, sizes and times of change.
    """

    def __init__(
        self, shards: tuple[str, ...], starts: np.ndarray, table: np.ndarray, key: str, positions: np.ndarray | None = None
    ) -> None:
        self.shards, self._starts, self._table, self._positions, self.key = shards, starts, table, positions, key

    def __len__(self) -> int:
        return len(self._table) if self._positions is None else len(self._positions)

    @property
    def starts(self) -> np.ndarray:
        """int64 (S + 1,): the position of each shard's first image, and the number of images."""
        return self._starts if self._positions is None else np.searchsorted(self._positions, self._starts)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: np.ndarray) -> Members: ...
    def __getitem__(self, at: int | np.ndarray) -> bytes | Members:
        """The name of an image, SHARD/NAME; or some of the images, at ascending positions."""
        if isinstance(at, np.ndarray):
            chosen = np.flatnonzero(at) if at.dtype == bool else at
            count = len(chosen)
            if self._positions is None and count and chosen[-1] == count - 1 and chosen[0] == 0:  # the first ones, in order
                return Members(self.shards, np.minimum(self._starts, count), self._table[:count], f"{self.key} {count}")
            chosen = chosen if self._positions is None else self._positions[chosen]
            key = hashlib.blake2b(self.key.encode() + chosen.tobytes(), digest_size=16).hexdigest()
            return Members(self.shards, self._starts, self._table, key, chosen)
        shard, member = self._find(at)
        with _readable(shard), _opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            file.seek(int(member[0]))
            return os.fsencode(f"{shard}/{tarfile.TarInfo.fromtarfile(tar).name}")

    def read(self, at: int) -> io.BytesIO:
        """The content of an image.

        Raises:
            UserError: where its shard cannot be fetched or read, or ends before it.
        """
        shard, member = self._find(at)
        with _readable(shard), _opened(shard) as file:
            file.seek(int(member[1]))
            content = file.read(int(member[2]))
        if len(content) < member[2]:
            raise UserError(f"the shard {shard} ends too early by now; put it back, or delete {shards_root()}")
        return io.BytesIO(content)

    def within(self, at: np.ndarray) -> np.ndarray:
        """Which image of its shard each of some images is, int64, as `at`."""
        numbers = at if self._positions is None else self._positions[at]
        places: np.ndarray = numbers - self._starts[np.searchsorted(self._starts, numbers, "right") - 1]
        return places

    @property
    def labels(self) -> np.ndarray:
        """Which class each is of, int64 (N,), or `UNLABELLED`."""
        labels: np.ndarray = self._table[:, 3] if self._positions is None else self._table[self._positions, 3]
        return labels

    def _find(self, at: int) -> tuple[str, np.ndarray]:
        number = int(at if self._positions is None else self._positions[at])
        return self.shards[int(np.searchsorted(self._starts, number, "right")) - 1], self._table[number]


class ShardShuffle:
    """Endless positions, each once per epoch: shards in a random order, and the images of some of them mixed in a buffer.

    Memory is that of `BUFFER` positions and of one for each shard. What is drawn comes from a
    generator of its own, so that it makes no difference how far ahead it is read.
    """

    def __init__(self, starts: np.ndarray) -> None:
        self.starts = torch.from_numpy(np.array(starts))
        self.shards, self.next_shard = torch.zeros(0, dtype=torch.int64), 0
        self.generator = own_generator()
        self._fill()

    def _fill(self) -> None:
        if self.next_shard >= len(self.shards):
            self.shards, self.next_shard = torch.randperm(len(self.starts) - 1, generator=self.generator), 0
        parts: list[Tensor] = []
        count = 0
        while self.next_shard < len(self.shards) and len(parts) < OPEN and count < BUFFER:
            shard = int(self.shards[self.next_shard])
            parts.append(torch.arange(int(self.starts[shard]), int(self.starts[shard + 1])))
            count, self.next_shard = count + len(parts[-1]), self.next_shard + 1
        mixed = torch.cat(parts)
        self.order, self.position = mixed[torch.randperm(len(mixed), generator=self.generator)], 0

    def take(self, size: int) -> Tensor:
        """The next `size` positions."""
        taken = self.order[self.position : self.position + size]
        self.position += len(taken)
        while len(taken) < size:
            self._fill()
            more = self.order[: size - len(taken)]
            self.position = len(more)
            taken = torch.cat([taken, more])
        return taken

    def state_dict(self) -> dict[str, Any]:
        where = {"order": self.order, "position": self.position, "shards": self.shards, "next_shard": self.next_shard}
        return {**where, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.position = state["order"], state["position"]
        self.shards, self.next_shard = state["shards"], state["next_shard"]
        self.generator.set_state(state["generator"])


def expand(pattern: str) -> tuple[str, ...]:
    """The shards that a pattern with braces stands for: ``shards/{0000..0999}.tar``.

    Raises:
        UserError: where one of them, a file, is not there, or there are more than `MOST`.
    """
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise UserError(MISSING) from None
    try:
        count = _stands_for(pattern)
        shards = tuple(braceexpand(pattern)) if count <= MOST else ()
    except (ValueError, RecursionError) as error:  # its own, for braces that do not match
        raise UserError(f"{pattern}: {error}; write shards as shards/{{0000..0999}}.tar") from None
    if count > MOST:
        raise UserError(f"{pattern} stands for {count:,} shards; give at most {MOST:,}, with more images in each")
    for shard in shards:
        if not is_url(shard) and not os.path.isfile(shard):
            raise UserError(f"no shard {shard}; give those that are there, as shards/{{0000..0999}}.tar")
    return shards


def _stands_for(pattern: str) -> int:
    """How many names a pattern stands for, without making them: braces from the innermost outwards, each as its count."""
    reduced, found = re.sub(r"\\.", "", pattern).replace("\0", ""), 1
    while found:
        reduced, found = re.subn(r"\{([^{}]*)\}", lambda braces: f"\0{_alternatives(braces[1])}\0", reduced)
    return _product(reduced)


def _alternatives(inner: str) -> int:
    if (ends := RANGE.fullmatch(inner)) is None:
        return sum(map(_product, inner.split(",")))
    first, last = (int(end) if end.lstrip("-").isdecimal() else ord(end) for end in ends.group(1, 2))
    return abs(last - first) // (abs(int(ends[3] or 1)) or 1) + 1


def _product(reduced: str) -> int:
    return math.prod(map(int, re.findall("\0([0-9]+)\0", reduced)))


def members_of(pattern: str) -> tuple[Members, list[str]]:
    """The images of the shards that a pattern stands for, and the names of their classes, by number.

    The first time, all shards are read through; what is found is kept in the user's cache, for shards that do not change.

    Raises:
        UserError: where a shard is missing, damaged or cannot be fetched, or holds no images at all.
    """
    shards = expand(pattern)
    key = hashlib.blake2b("\n".join(map(state_of, shards)).encode(), digest_size=16).hexdigest()
    folder = shards_root() / key
    if (found := _read_index(shards, folder)) is None:
        _index(shards, folder)
        found = _read_index(shards, folder)
        assert found is not None
    starts, classes = found
    if starts[-1] == 0:
        raise UserError(f"{pattern} holds no images; the endings that are read are {' '.join(sorted(EXTENSIONS))}")
    table = np.memmap(folder / _TABLE, np.int64, "r", shape=(int(starts[-1]), 4))
    return Members(shards, starts, table, key), classes


def _read_index(shards: tuple[str, ...], folder: Path) -> tuple[np.ndarray, list[str]] | None:
    """Where each shard's images begin in the table of `folder`, and the classes; None where that is not there, or damaged."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        starts, classes = np.array(about["starts"], dtype=np.int64), [str(name) for name in about["classes"]]
        whole = (folder / _TABLE).stat().st_size == int(starts[-1]) * 4 * starts.itemsize
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    return (starts, classes) if whole and len(starts) == len(shards) + 1 and not (np.diff(starts) < 0).any() else None


def state_of(shard: str) -> str:
    """A line that changes where the shard does; of a URL, nothing is known but its name."""
    if is_url(shard):
        return shard
    state = os.stat(shard)
    return f"{Path(shard).absolute()} {state.st_size} {state.st_mtime_ns}"


def _index(shards: tuple[str, ...], folder: Path) -> None:
    """Writes where in the shards the images lie; ``about.json`` last, without which the rest is not there."""
    classes: dict[str, int] = {}
    starts = [0]
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    with atomic_write(folder / _TABLE) as table, table.open("wb") as file:
        for shard in shards:
            found = np.array(list(_scan(shard, classes)), dtype=np.int64)
            file.write(found.tobytes())
            starts.append(starts[-1] + len(found))
    with atomic_write(folder / _ABOUT) as path:
        path.write_text(json.dumps({"starts": starts, "classes": list(classes)}), encoding="utf-8")


def _scan(shard: str, classes: dict[str, int]) -> Iterator[Member]:
    """The images of one shard; classes that are new get the next number."""
    images: list[tuple[str, Member]] = []
    said: dict[str, str] = {}
    with opened_shard(shard) as tar:
        for member in tar:
            stem, ending = split_name(member.name)
            if member.isfile() and ending == ".cls":
                said[stem] = _text(tar, member)
            elif member.isfile() and ending in EXTENSIONS:
                images.append((member.name, Member(member.offset, member.offset_data, member.size, UNLABELLED)))
            tar.members = []  # type: ignore[attr-defined] # it would remember all of them
    for name, found in images:
        folder = name.removeprefix("./").rpartition("/")[0].partition("/")[0]
        label = said.get(split_name(name)[0], folder)
        yield found._replace(label=classes.setdefault(label, len(classes))) if label else found


def split_name(name: str) -> tuple[str, str]:
    """What stands before the first point of a file's name, folders included, and the last ending, in small letters."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}", os.path.splitext(last)[1].lower()


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    assert file is not None
    return file.read(200).decode("utf-8", "replace").strip()


@contextmanager
def opened_shard(shard: str) -> Iterator[tarfile.TarFile]:
    """A shard, to be read from its beginning to its end; none of it is unpacked.

    Raises:
        UserError: where it cannot be read or fetched, or is no tar.
    """
    with _readable(shard), _stream(shard) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        yield tar
        _require_end(shard, tar)


def _require_end(shard: str, tar: tarfile.TarFile) -> None:
    """Whether a shard here, all of whose members have been read, has a tar's end behind them, and nothing behind that.

    Raises:
        UserError: where it has not: it was cut there, or another one was added to it.
    """
    if is_url(shard):  # whose command says whether all has come
        return
    with Path(shard).open("rb") as file:
        file.seek(tar.offset)
        end = file.read(LONGEST_END)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        what = "goes on behind its end, which hides images" if any(end) else "has no end, so that images may be missing"
        raise UserError(f"the shard {shard} {what}; mend or leave it out")


def _stream(shard: str) -> BinaryIO:
    if not is_url(shard):
        return Path(shard).open("rb")
    try:
        from webdataset.gopen import gopen
    except ImportError:
        raise UserError(MISSING) from None
    stream: BinaryIO = gopen(shard, "rb")
    return stream


def _opened(shard: str) -> BinaryIO:
    """The file of a shard; one behind a URL is fetched, unless it is here.

    Another process may delete it at any time, as the one read longest ago; what is open by then stays readable.

    Raises:
        UserError: where it cannot be fetched.
        OSError: where it cannot be opened.
    """
    if not is_url(shard):
        return Path(shard).open("rb")
    path = shards_root() / "fetched" / f"{hashlib.blake2b(shard.encode(), digest_size=16).hexdigest()}.tar"
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            file = path.open("rb")
            with suppress(FileNotFoundError):
                os.utime(path)
            return file
        _fetch(shard, path)
    raise UserError(f"the shard {shard} was deleted {TRIES} times once it was fetched; have fewer processes read at a time")


def _fetch(shard: str, path: Path) -> None:
    """Downloads a shard, unless another process just has; it takes the place of the one read longest ago.

    Raises:
        UserError: where it cannot be fetched, or written.
    """
    with alone(path.with_name(f"{path.name[:2]}.lock")):  # 256 of them: shards that share one wait for each other
        if path.exists():
            return
        with atomic_write(path) as part, part.open("wb") as file:
            for block in _downloaded(shard):
                file.write(block)
    read: dict[Path, float] = {}
    for other in path.parent.glob("*.tar"):
        with suppress(FileNotFoundError):  # deleted by another process just now
            read[other] = other.stat().st_mtime
    for old in sorted(read, key=lambda other: -read[other])[FETCHED:]:
        old.unlink(missing_ok=True)


def _downloaded(shard: str) -> Iterator[bytes]:
    """What comes from behind a URL. Whether all of it has come is known at its end."""
    with _readable(shard), _stream(shard) as stream:
        while block := stream.read(2**20):
            yield block


@contextmanager
def _readable(shard: str) -> Iterator[None]:
    """Says of a shard that it cannot be read, which is no damaged image."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, tarfile.TarError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        if ended := re.search(r"exit (-?\d+) \(read\)", what):  # the reader's own word, with all of its command
            what = f"the command that fetches it ended with exit code {ended[1]}"
        raise UserError(f"the shard {shard} cannot be read ({what}); mend or leave it out") from error


def write_shards(files: Iterable[tuple[Path, str]], out: Path, each: int, count: int) -> Iterator[int]:
    """Packs files under names into ``out/0000.tar``, `each` in one; yields how many are packed. Each shard is written whole.

    One that is there already, as whoever was stopped has left it, stays.

    Raises:
        UserError: for a file that cannot be read, or is a pipe or a device; where `out` holds anything but the first of these
            shards.
    """
    width = max(4, len(str((count - 1) // each)))
    names = [f"{number:0{width}d}.tar" for number in range(-(-count // each))]
    sweep(out)
    if any(map(is_temporary, out.glob(".uda-*"))):
        raise UserError(f"another process packs into {out}; wait until it has ended, or give another folder with -o")
    if strange := sorted({path.name for path in out.glob("*")} - set(names)):
        raise UserError(f"{out} holds {strange[0]}, which is none of these shards; give another folder with -o")
    waiting = iter(files)
    for number, shard in enumerate(names):
        part = [(file, re.sub(r"^(\.?/)+", "", name)) for file, name in itertools.islice(waiting, min(each, count))]
        if (out / shard).exists():
            _require_packed(out / shard, part)
        else:
            _pack(out / shard, part)
        yield min((number + 1) * each, count)


def _pack(shard: Path, files: list[tuple[Path, str]]) -> None:
    with atomic_write(shard) as path, tarfile.open(path, "w") as tar:
        for file, name in files:
            info = tarfile.TarInfo(name)
            with _to_pack(file) as content:
                info.size = os.fstat(content.fileno()).st_size
                tar.addfile(info, content)


def _require_packed(shard: Path, files: list[tuple[Path, str]]) -> None:
    """Whether a shard that is there holds these files, by their names and sizes, and is newer than all of them."""
    with _readable(str(shard)), tarfile.open(shard) as tar:
        there = [(member.name, member.size) for member in tar]
    states = [file.stat() for file, _ in files]
    wanted = [(name, state.st_size) for (_, name), state in zip(files, states, strict=True)]
    past = [state.st_mtime for state in states if state.st_mtime <= time.time()]  # some cameras' clocks are ahead of it
    if there != wanted or max(past, default=0) > shard.stat().st_mtime:
        raise UserError(f"{shard} holds other images than it would; give another folder with -o, or delete that one")


def _to_pack(file: Path) -> BinaryIO:
    try:
        regular(file)
        return file.open("rb")
    except OSError as error:
        raise UserError(f"{file} cannot be packed ({error.strerror or error}); mend or remove it") from error
