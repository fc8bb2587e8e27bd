"""A user's own images: a folder, a CSV file or an .npz file, labelled or not.

- A folder: files at any depth. Labelled, the first folder below it is the class (`photos/cat/2024/a.png` is a cat).
- A CSV: `path,label` in each row, paths relative to the CSV's folder; unlabelled, the path alone is enough.
- An .npz: `images` uint8 (N, H, W), (N, H, W, 3) or (N, 3, H, W); `labels` (N,), numbers or strings; perhaps a `note`.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uda.console import Display
from uda.data.arrays import fit_frame, open_arrays
from uda.data.domain import HELD_OUT, Domain, LabelledDomain
from uda.data.files import GREY_MODES, ImageFiles, Images, check, check_some, in_order, reason, source, together
from uda.data.frame import Frame, decode_whole, opened
from uda.data.names import HOLD_IMAGES, is_shards
from uda.data.shards import EXTENSIONS, NOT_READ, Members, members_of, write_shards
from uda.errors import UserError
from uda.paths import like, regular
from uda.text import counted, printable

PEEKS = 1000  # images whose headers are read to learn their size and whether they are grey


@dataclass(frozen=True)
class Found:
    """What there is at a path, before pixels are looked at: file names, or pixels; labels by name where they were asked for."""

    path: Path
    names: np.ndarray | Members
    """bytes (N,), relative to `root`, or the members of shards; empty for an .npz"""
    root: Path
    pixels: Tensor | None
    labels: np.ndarray | None
    """strings (N,)"""
    note: str

    def __len__(self) -> int:
        return len(self.names) if self.pixels is None else len(self.pixels)

    def name(self, position: int) -> str:
        """A file's name below `root`; in an .npz, the image's number."""
        return os.fsdecode(bytes(self.names[position])) if self.pixels is None else str(position)

    def decoded(self, frame: Frame) -> Iterator[tuple[list[int], Tensor, list[str]]]:
        """Block by block, decoded ahead: positions, their images uint8 (B, C, S, S), and a line for each that is unreadable.

        Memory does not grow with the number of images. Those that cannot be read are among neither the positions nor the images.
        """
        if self.pixels is not None:
            blocks = torch.arange(len(self)).split(together((frame.channels, frame.size, frame.size)))
            yield from ((block.tolist(), fit_frame(self.pixels[block], *frame), []) for block in blocks)
            return
        files = ImageFiles(self.root, self.names, frame)
        for block, (part, failed) in zip(blocks := in_order(files), files.decoded(blocks), strict=True):
            reasons = dict(failed)
            kept = [position for position in block.tolist() if position not in reasons]
            rows = torch.tensor(kept, dtype=torch.int64) - int(block[0])
            yield kept, part[rows], [f"{self.name(position)} ({reason})" for position, reason in failed]

    def whole(self, frame: Frame) -> Iterator[tuple[list[int], Tensor, list[str]]]:
        """As `decoded`, one image at a time, each in its own shape (see `uda.data.frame.decode_whole`): uint8 (1, C, H, W).

        Raises:
            UserError: where the images are no files.
        """
        if self.pixels is not None:
            raise UserError(f"{self.path} holds images of one shape; whole images are read from image files")
        for position in range(len(self)):
            try:
                image = decode_whole(source(self.root, self.names, position), frame)
            except Exception as error:  # a damaged file makes a decoder raise almost anything
                yield [], torch.zeros(0, frame.channels, 1, 1, dtype=torch.uint8), [f"{self.name(position)} ({reason(error)})"]
            else:
                yield [position], image[None], []


def find_at(name: str, labelled: bool) -> Found:
    """`find`, of shards by a URL, too, which is no path."""
    return find_shards(name, labelled) if is_shards(name) else find(Path(name), labelled)


def find(path: Path, labelled: bool) -> Found:
    """Lists the images at `path`, in a fixed order.

    Raises:
        UserError: where there is nothing, no image, or (asked for) no labels.
    """
    if path.suffix == ".npz":
        found = _find_arrays(path, labelled)
    elif path.suffix == ".csv":
        found = _find_csv(path, labelled)
    elif path.suffix == ".tar":
        found = find_shards(str(path), labelled)
    elif os.path.isdir(path):  # of a name that is too long, too, where pathlib raises
        found = _find_folder(path, labelled)
    elif path.suffix.lower() in EXTENSIONS and os.path.isfile(path) and not labelled:
        found = Found(path, np.array([os.fsencode(path.name)]), path.parent, None, None, f"the image {path.name}")
    else:
        near = "" if os.path.lexists(path) else like(path, HOLD_IMAGES)
        if near:
            raise UserError(f"there is no {path}; did you mean {str(path.with_name(near))!r}?")
        raise UserError(f"no images at {path}; give a folder of images, a .csv of path,label, an .npz file or shards (.tar)")
    if len(found) == 0:
        if path.suffix == ".csv":
            raise UserError(f"{path} lists no images; write {'path,label' if labelled else 'a path'} in each row")
        raise UserError(f"{path} holds no images; the endings that are read are {' '.join(sorted(EXTENSIONS))}")
    names = found.labels if found.labels is not None and found.labels.dtype.kind == "U" else ()
    if strange := [name for name in np.unique(names).tolist() if not name.strip() or not name.isprintable()]:
        raise UserError(f"{path} has the class {strange[0]!r}, whose name cannot be read; give it another one")
    return found


def _find_folder(path: Path, labelled: bool) -> Found:
    names: list[bytes] = []
    others: Counter[str] = Counter()
    classes: set[str] = set()
    for folder, files in _walk(path):
        below = folder.relative_to(path)
        classes.update(below.parts[:1])
        if labelled and below == Path():
            continue  # an image beside the class folders has no class
        endings = {name: os.path.splitext(name)[1].lower() for name in sorted(files) if not name.startswith(".")}
        kept = [name for name, ending in endings.items() if ending in EXTENSIONS]
        others.update(ending for ending in endings.values() if ending in NOT_READ)
        names += [os.fsencode(below / name) for name in kept]
    not_read = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
    if others and not names:
        raise UserError(f"{path} holds {not_read} files, which are not read; convert them, to .png or .jpg")
    if labelled and not names:
        raise UserError(f"{path} has no class folders with images; labelled images lie as {path.name}/CLASS/IMAGE.png")
    labels = np.array([os.fsdecode(name).split(os.sep, 1)[0] for name in names]) if labelled else None
    left_out = f", without its {not_read} files, which are not read" if others else ""
    if labels is not None and (empty := sorted(classes - set(labels.tolist()))):
        left_out += f", without images in {', '.join(map(printable, empty[:8]))}{', ...' if len(empty) > 8 else ''}"
    return Found(path, np.array(names, dtype=np.bytes_), path, None, labels, f"the folder {path.name}{left_out}")


def find_shards(pattern: str, labelled: bool) -> Found:
    """The images in tar shards, by paths or URLs with braces."""
    members, classes = members_of(pattern)
    labels = None
    if labelled:
        numbers = members.labels
        if not classes or int(numbers.min()) < 0:
            raise UserError(f"{pattern} has images without a class; they lie as CLASS/IMAGE.png in it, or beside an IMAGE.cls")
        labels = np.array(classes)[numbers]
    return Found(Path(pattern), members, Path(), None, labels, f"{len(members.shards):,} shards")


def _walk(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """`path` and each folder below it, with its files. Links are followed, but for those that lead back to where they are."""
    above = {os.fspath(path): frozenset((os.path.realpath(path),))}

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be listed ({error.strerror}); let it be read, or move it elsewhere") from error

    for folder, inner, files in os.walk(path, onerror=fail, followlinks=True):
        here = above.pop(folder)
        places = {name: os.path.realpath(os.path.join(folder, name)) for name in sorted(inner) if not name.startswith(".")}
        inner[:] = [name for name, place in places.items() if place not in here]
        above |= {os.path.join(folder, name): here | {places[name]} for name in inner}
        yield Path(folder), files


def _find_csv(path: Path, labelled: bool) -> Found:
    try:
        regular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}); it needs a path and a label in each row") from error
    if any("\0" in cell for _, row in rows for cell in row):
        raise UserError(f"{path} holds zero bytes and is no CSV; write path,label in each row")
    note = f"the list {path.name}"
    if rows and not _names_image(path.parent, rows[0][1][0]) and not set("./\\") & set(rows[0][1][0]):
        note += f" below its header {','.join(rows[0][1])[:40]}"  # a word, and so what the column is called
        rows = rows[1:]
    for line, row in rows:
        if not _names_image(path.parent, row[0]):
            raise UserError(f"{path}, line {line}: {row[0][:80]!r} is no image file; write path,label in each row")
        if labelled and (len(row) < 2 or not row[1].strip()):
            raise UserError(f"{path}, line {line}: the image has no label; write path,label in each row")
    if labelled:
        once = _named_once(path, rows)
        note += f", {len(rows) - len(once)} rows left out that say the same again" if len(once) < len(rows) else ""
        rows = once
    labels = np.array([row[1].strip() for _, row in rows]) if labelled else None
    names = np.array([os.fsencode(row[0].strip()) for _, row in rows], dtype=np.bytes_)
    return Found(path, names, path.parent, None, labels, note)


def _named_once(path: Path, rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The first row of each image: one that is there twice would be trained and tested on.

    Raises:
        UserError: for an image with two labels.
    """
    first: dict[str, tuple[int, list[str]]] = {}
    for line, row in rows:
        place = os.path.normpath(row[0].strip())
        before = first.setdefault(place, (line, row))[1][1].strip()
        if before != (label := row[1].strip()):
            raise UserError(f"{path} says two things of {place}, line {line}: {before} and {label}; leave the wrong row out")
    return list(first.values())


def _names_image(root: Path, cell: str) -> bool:
    """Whether a cell of a table is an image's path: by its ending or, where it has no known one, by what lies there."""
    name = cell.strip()
    return os.path.splitext(name)[1].lower() in EXTENSIONS or os.path.isfile(root / name)


def _find_arrays(path: Path, labelled: bool) -> Found:
    with open_arrays(path) as file:
        pixels, labels = file.images(), file.labels().astype(str) if labelled else None
        note = file.note() or f"the array file {path.name}"
    if labels is not None and labels.shape != (len(pixels),):
        raise UserError(f"{path}: {len(pixels)} images but labels of shape {labels.shape}; give one label per image")
    return Found(path, np.array([], dtype=np.bytes_), path.parent, pixels, labels, note)


def pack(folder: Path, out: Path, each: int, seed: int, display: Display) -> str:
    """Packs the images of a folder, at any depth, into shards of `each`, in random order; returns the pattern that names them.

    Files are packed as they are, and none is decoded.

    Raises:
        UserError: where `out` has braces, which name several shards where they are read; and as `find` and `write_shards`.
    """
    if set("{}") & set(str(out)):
        raise UserError(f"{out} has braces, which name several shards when they are read; give another folder with -o")
    found = find(folder, labelled=False)
    if found.pixels is not None or isinstance(found.names, Members):
        raise UserError(f"{folder} is no folder of images; uda shards packs files")
    display.say(f"  {counted(len(found), 'image')}, {found.note}")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed)).tolist()
    files = ((found.root / found.name(number), found.name(number)) for number in order)
    with display.stage("packing", 0, len(found)) as bar:
        for done in write_shards(files, out, each, len(found)):
            bar.update(done, f"{done:,} images")
    names = sorted(path.stem for path in out.glob("*.tar"))
    return f"{out}/{{{names[0]}..{names[-1]}}}.tar" if len(names) > 1 else f"{out}/{names[0]}.tar"


def class_names(found: Found) -> tuple[str, ...]:
    """The classes of labelled images: folders in alphabetical order, as torchvision's ImageFolder numbers them; labels of
    CSV and .npz by value where all are whole numbers."""
    assert found.labels is not None
    names = [str(name) for name in np.unique(found.labels)]
    folder = found.pixels is None and found.path.is_dir()  # what has pixels may be called as anything that lies here
    numbers = not folder and all(re.fullmatch(r"-?\d{1,18}", name) for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def check_classes(
    found: Found,
    classes: Iterable[str],
    every_class: bool = True,
    unknown: str | None = None,
    whose: str = "the source has",
) -> None:
    """Compares the labels with `classes`, before minutes are spent on decoding.

    Args:
        found: labelled images.
        classes: the source's.
        every_class: whether each must have an image.
        unknown: where images of other classes could be taken for unknown ones, what to ask for then.
        whose: where `classes` come from, for the message.

    Raises:
        UserError: for labels that are no class, and, with `every_class`, for classes that no image has.
    """
    assert found.labels is not None
    here, known = set(map(str, np.unique(found.labels))), list(classes)
    extra, missing = sorted(here - set(known)), sorted(set(known) - here) if every_class else []
    if extra or missing:
        parts = [
            f"{kind}: {', '.join(map(_told, names[:8]))}" for kind, names in (("unknown", extra), ("missing", missing)) if names
        ]
        way_out = f"; with {unknown} further classes count as unknown" if extra and unknown else ""
        raise UserError(f"{found.path} has other classes than {whose}; {'; '.join(parts)} ({whose} {', '.join(known)}){way_out}")


def _told(name: str) -> str:
    return name if name == name.strip() else repr(name)


def split_classes(found: Found, classes: Iterable[str]) -> tuple[Found, Found | None]:
    """Labelled images of these classes, and those of others, if there are any.

    Raises:
        UserError: where there are others alone.
    """
    assert found.labels is not None
    names = list(classes)
    known = np.isin(found.labels, names)
    if not known.any():
        raise UserError(f"{found.path} has no image of the source's classes ({', '.join(names[:8])}); give some of these, too")
    return _some(found, known), None if known.all() else _some(found, ~known)


def _some(found: Found, chosen: np.ndarray) -> Found:
    assert found.labels is not None
    pixels = None if found.pixels is None else found.pixels[torch.from_numpy(chosen)]
    names = found.names if pixels is not None else found.names[chosen]
    return replace(found, names=names, pixels=pixels, labels=found.labels[chosen])


def peek(found: Found) -> tuple[list[tuple[int, int]], bool]:
    """(width, height) of some of the images, up to `PEEKS` evenly spaced ones, and whether all of them are grey."""
    if found.pixels is not None:
        return [(found.pixels.shape[3], found.pixels.shape[2])], found.pixels.shape[1] == 1
    sizes, grey = [], True
    for index in np.unique(np.linspace(0, len(found) - 1, min(PEEKS, len(found))).astype(int)):
        try:
            with opened(source(found.root, found.names, int(index))) as image:
                sizes.append(image.size)
                grey = grey and image.mode in GREY_MODES
        except Exception:  # a damaged file makes a decoder raise almost anything; it is named when all files are decoded
            continue
    return sizes, grey


def _unread(found: Found) -> str:
    """Why the first of images that cannot be read cannot."""
    try:
        with opened(source(found.root, found.names, 0)):
            return found.name(0)
    except Exception as error:
        return f"{found.name(0)} ({reason(error)})"


def own_size(found: Found) -> int:
    """The side that images are brought to where none was asked for.

    Their own, where they are squares of one size (up to 256 pixels); else the median short side, rounded down to a multiple
    of 32 and kept within 32..224.
    """
    sizes, _ = peek(found)
    if not sizes:
        raise UserError(f"none of the images at {found.path} can be read, for example {_unread(found)}; give images that can")
    sides = {side for pair in sizes for side in pair}
    if len(sides) == 1 and max(sides) <= 256:
        return sides.pop()
    median = sorted(min(pair) for pair in sizes)[len(sizes) // 2]
    return min(224, max(32, median // 32 * 32))


def in_frame(
    found: Found, frame: Frame, memory: int | None, display: Display, most: int | None = None
) -> tuple[Found, Images, tuple[str, ...]]:
    """Images in one frame: what is left of `found`, its images, and the unreadable files.

    `memory`: bytes that they may take (see `uda.data.files.check`). None: files are not looked at; a frozen body will read them.
    """
    if found.pixels is not None:
        return found, fit_frame(found.pixels, *frame), ()
    files = ImageFiles(found.root, found.names, frame)
    if memory is None:
        return found, files, ()
    with display.stage(f"reading {found.path.name}", 0, min(len(files), most or len(files))) as progress:

        def watch(done: int) -> None:
            progress.update(done, f"{done:,} images")

        if most is not None and len(files) > most:
            some, damaged = check_some(files, most, watch)
            return found, some, tuple(damaged)
        images, positions, unreadable = check(files, memory, watch)
    kept = positions.numpy()
    left = replace(found, names=found.names[kept], labels=None if found.labels is None else found.labels[kept])
    return left, images, tuple(unreadable)


def load_unlabelled(
    found: Found, classes: tuple[str, ...], frame: Frame, memory: int | None, display: Display, most: int | None = None
) -> Domain:
    """Images alone; of more than `most`, so many are looked at."""
    found, images, unreadable = in_frame(found, frame, memory, display, most)
    return Domain(found.path.stem, images, classes, _note(found, images, unreadable), unreadable=unreadable)


def load_labelled(
    found: Found, classes: tuple[str, ...], frame: Frame, memory: int | None, display: Display, most: int | None = None
) -> LabelledDomain:
    """Images with labels, all of which are among `classes` (see `check_classes`); of more than `most`, so many are looked at."""
    asked, (found, images, unreadable) = found, in_frame(found, frame, memory, display, most)
    assert asked.labels is not None
    assert found.labels is not None
    if lost := sorted(set(map(str, asked.labels)) - set(map(str, found.labels))):
        raise UserError(
            f"no image of the class {lost[0]} can be read, for example {unreadable[0]}; mend them, or take the class out"
        )
    index = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([index[str(label)] for label in found.labels], dtype=torch.int64)
    return LabelledDomain(found.path.stem, images, classes, _note(found, images, unreadable), labels, unreadable=unreadable)


def hold_out(domain: LabelledDomain) -> tuple[LabelledDomain, LabelledDomain]:
    """Every tenth image of each class goes to a test set (of each that has two images or more); always the same ones."""
    test = torch.zeros(len(domain), dtype=torch.bool)
    for number in range(len(domain.classes)):
        members = (domain.labels == number).nonzero().squeeze(1)
        if len(members) > 1:
            test[members[min(9, len(members) - 1) :: 10]] = True
    if not test.any():
        raise UserError(f"{domain.name} has one image in each class; it takes at least two of one class to test on")

    def part(chosen: Tensor, what: str) -> LabelledDomain:
        return replace(domain.only(chosen.nonzero().squeeze(1)), note=f"{domain.note}, {what}")

    return part(~test, "nine of ten"), part(test, HELD_OUT)


def _note(found: Found, images: Images, unreadable: tuple[str, ...]) -> str:
    note = f"{found.note}, {counted(len(images), 'image')}" if found.pixels is None else found.note
    some = isinstance(images, ImageFiles) and not images.looked_at
    note += ", some of them looked at" if some else ""
    note += f", {counted(len(unreadable), 'unreadable one')} {'found' if some else 'left out'}" if unreadable else ""
    return note + (", decoded when needed" if isinstance(images, ImageFiles) else "")
