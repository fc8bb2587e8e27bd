"""What is computed once and read by many runs: features and maps of frozen bodies, and source classifiers.

Each lies in the user's cache folder under a key made of all that it was made of: images, weights, views, precision, versions.
What has not been read for longest is deleted where more than `LIMIT` lies there.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uda.atomic import alone, atomic_write, held, is_temporary, saying, sweep, temporary_beside
from uda.data.files import Images
from uda.data.shards import Members
from uda.errors import NoHome, UserError
from uda.models.weights import load_weights
from uda.paths import cache_home, regular

LIMIT = 20.0  # GiB, where $UDA_CACHE_GIB names no other
KEY = re.compile("[0-9a-f]{32}")
ABOUT, MAPS, WEIGHTS, OUTPUTS = "about.json", "maps.bin", "weights.safetensors", "outputs.safetensors"
WAY_OUT = "make room (uda cache clear), let $XDG_CACHE_HOME name another disk, or keep nothing (--no-cache)"


def cache_root() -> Path:
    """The folder where things are kept: ``uda/kept`` in the user's cache."""
    return cache_home() / "uda" / "kept"


def user_cache(wanted: bool = True) -> Cache:
    """The user's own; one that keeps nothing where nothing is `wanted`, $UDA_CACHE_GIB is 0, or the system knows no home."""
    try:
        return Cache(cache_root() if wanted and limit() else None)
    except NoHome:
        return Cache(None)


def writable_cache(wanted: bool, say: Callable[[str], None]) -> Cache:
    """The user's own for what is kept by a run; where it cannot be written, which is said, one that keeps nothing."""
    cache = user_cache(wanted)
    if cache.root is not None:
        try:
            cache.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache.root):
                pass
        except OSError as error:
            reason = f"{cache.root} cannot be written ({error.strerror}); let $XDG_CACHE_HOME name another folder"
            say(f"  nothing is kept for other runs: {reason}")
            return Cache(None)
    return cache


def limit() -> int:
    """How many bytes may be kept.

    Raises:
        UserError: where $UDA_CACHE_GIB is no number, or one below 0 or without an end.
    """
    given = os.environ.get("UDA_CACHE_GIB") or LIMIT
    with suppress(ValueError):
        if 0 <= (bytes_ := float(given) * 2**30) < math.inf:
            return int(bytes_)
    raise UserError(f"$UDA_CACHE_GIB is {given!r}; set it to a number of GiB, 0 or more, or unset it")


def digest(*parts: object) -> str:
    """A name for a content: 32 hexadecimal digits. Tensors and networks count by their values, anything else by its text."""
    sum_ = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, nn.Module):
            part = digest(repr(part), *(item for pair in part.state_dict().items() for item in pair))
        if isinstance(part, Tensor):
            sum_.update(f"{part.dtype} {tuple(part.shape)}".encode())
            sum_.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            sum_.update(f"{part}\n".encode())
    return sum_.hexdigest()


def digest_of_images(images: Images) -> str:
    """A name for the content of images, in their order; files are read as they lie there, and not decoded.

    Shards go by their names, sizes and times of change.
    """
    if isinstance(images, Tensor):
        return digest(images)
    sum_ = hashlib.blake2b(digest_size=16)
    if isinstance(images.names, Members):
        return images.names.key
    for number in range(len(images)):
        try:
            sum_.update(bytes.fromhex(digest_of_file(images.path(number))))
        except OSError:
            sum_.update(b"unreadable")
    return sum_.hexdigest()


def digest_of_file(path: Path) -> str:
    """A name for a file's content, 32 hexadecimal digits; it is read in blocks.

    Raises:
        OSError: where it cannot be read, or has no end.
    """
    regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def versions_of(*packages: str) -> str:
    """Their versions; what is computed with others is another thing."""
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


@dataclass(frozen=True)
class Entry:
    """What is kept under one key.

    Attributes:
        path: its folder.
        about: what it is, in words and figures.
        bytes: how much it takes.
        used: when it was last read, seconds since 1970.
    """

    path: Path
    about: dict[str, Any]
    bytes: int
    used: float


class Cache:
    """Keeps maps and weights by key; with `root` None, nothing outlives the run, and nothing is found."""

    def __init__(self, root: Path | None) -> None:
        self.root = root

    def entries(self) -> list[Entry]:
        """All that is kept, what was read last first."""
        found = []
        for path in self.root.iterdir() if self.root is not None and self.root.is_dir() else ():
            about = _read_about(path)
            if about is not None:
                with suppress(FileNotFoundError):  # another process writes to it, or deletes it
                    size = sum(file.stat().st_size for file in path.iterdir())
                    found.append(Entry(path, about, size, (path / ABOUT).stat().st_mtime))
        return sorted(found, key=lambda entry: -entry.used)

    def clear(self) -> int:
        """Deletes everything, remains of killed runs too; returns how many bytes that were."""
        entries = self.entries()
        for entry in entries:
            shutil.rmtree(entry.path, ignore_errors=True)
        for path in self.root.iterdir() if self.root is not None and self.root.is_dir() else ():
            if path.is_dir() and not path.is_symlink() and (KEY.fullmatch(path.name) or is_temporary(path)):
                shutil.rmtree(path, ignore_errors=True)
            elif is_temporary(path) or (KEY.fullmatch(path.stem.removeprefix(".")) and path.suffix == ".lock"):
                path.unlink(missing_ok=True)
        return sum(entry.bytes for entry in entries)

    def find(self, key: str) -> tuple[dict[str, Any], Path] | None:
        """What is known of a key, and its folder; None where nothing is kept under it."""
        if self.root is None or (about := _read_about(self.root / key)) is None:
            return None
        os.utime(self.root / key / ABOUT)
        return about, self.root / key

    def load(self, key: str, module: nn.Module) -> bool:
        """Loads the weights that are kept under a key into a module; whether there were some, undamaged."""
        if (found := self.find(key)) is None:
            return False
        try:
            load_weights(found[1] / WEIGHTS, module)
        except UserError:  # they are made anew
            return False
        return True

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """A folder to write to, which is kept under `key` after the block ended well; without a root, it is deleted."""
        home = self.root or Path(tempfile.gettempdir())
        home.mkdir(parents=True, exist_ok=True)
        sweep(home)
        made = temporary_beside(home / key)
        made.mkdir(mode=0o700)
        try:
            with held(made):
                way_out = WAY_OUT if self.root is not None else "let $TMPDIR name a disk with more room"
                with saying(home, *(made / name for name in ("", ABOUT, MAPS, WEIGHTS, OUTPUTS)), way_out=way_out):
                    yield made
                if self.root is not None:
                    shutil.rmtree(self.root / key, ignore_errors=True)
                    try:
                        os.replace(made, self.root / key)
                    except OSError as error:  # another process, perhaps of another machine, has kept the same this moment
                        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                            raise
            if self.root is not None:
                self.bound(key)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @contextmanager
    def alone(self, key: str, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """While it is open, no other process makes what belongs under `key`; one that dies lets go of it.

        `wait` is called once, where another one is at it.
        """
        if self.root is None:
            yield
            return
        with alone(self.root / f".{key}.lock", wait):
            yield

    def bound(self, newest: str) -> None:
        """Deletes what was not read for longest, where there is more than `limit`; what lies under `newest` stays."""
        left = limit()
        for entry in self.entries():
            left -= entry.bytes
            if left < 0 and entry.path.name != newest:
                shutil.rmtree(entry.path, ignore_errors=True)


def _read_about(path: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and not path.name.startswith(".") else None


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Says what lies in a folder; without that, nothing is found there."""
    with atomic_write(folder / ABOUT) as path:
        path.write_text(json.dumps(about), encoding="utf-8")


def write_maps(path: Path, blocks: Iterable[Tensor]) -> tuple[list[int], str]:
    """Writes tensors (B, ...) one after another; returns the shape of all together and their type's name."""
    count, shape, dtype = 0, torch.Size(), torch.float32
    with path.open("wb") as file:
        for block in blocks:
            count, shape, dtype = count + len(block), block.shape[1:], block.dtype
            file.write(block.contiguous().flatten().view(torch.uint8).numpy().data)
    return [count, *shape], str(dtype).removeprefix("torch.")


def map_file(path: Path, shape: list[int], dtype: str) -> Tensor:
    """The tensor that `write_maps` wrote, memory-mapped: read from disk where it is touched.

    Raises:
        UserError: where the file is missing or too short.
    """
    size = torch.Size(shape).numel()
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16, "uint8": torch.uint8}[dtype]
    if not path.is_file() or path.stat().st_size != size * kind.itemsize:
        raise UserError(f"{path.parent} is damaged; delete it with: uda cache clear")
    return torch.from_file(str(path), shared=False, size=size, dtype=kind).view(*shape)
