"""Loading MNIST, USPS and SVHN from small files in the official formats, from arrays, and the ways it can go wrong."""

import bz2
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from uda import UserError
from uda.console import Display
from uda.data.arrays import fit_frame
from uda.data.datasets.digits import Location, load_digits, locate
from uda.data.load import load_named, load_pair
from uda.data.settings import DataSettings

RNG = np.random.default_rng(0)
LABELS = np.arange(6) % 10


def write_mnist(root: Path, monkeypatch: pytest.MonkeyPatch, packed: bool = False, name: str = "MNIST") -> np.ndarray:
    """All four files; packed, with the checksums that torchvision expects set to theirs."""
    from torchvision import datasets

    images = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    raw = root / name / "raw"
    raw.mkdir(parents=True)
    digests = []
    for stem, part in ((f"{split}-{part}-ubyte", part) for split in ("train", "t10k") for part in ("images-idx3", "labels-idx1")):
        if part == "images-idx3":
            content = struct.pack(">4B3I", 0, 0, 8, 3, 6, 28, 28) + images.tobytes()
        else:
            content = struct.pack(">4BI", 0, 0, 8, 1, 6) + LABELS.astype(np.uint8).tobytes()
        path = raw / (f"{stem}.gz" if packed else stem)
        path.write_bytes(gzip.compress(content) if packed else content)
        digests.append((f"{stem}.gz", hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(getattr(datasets, name), "resources", digests)
    return images


def write_usps(root: Path) -> np.ndarray:
    """libsvm lines as the official file has them: label 1..10, pixels -1..1."""
    images = RNG.integers(0, 256, (6, 16, 16), dtype=np.uint8)
    lines = [
        f"{label + 1} " + " ".join(f"{i + 1}:{value:.6f}" for i, value in enumerate(image.ravel() / 255 * 2 - 1))
        for image, label in zip(images, LABELS, strict=True)
    ]
    (root / "usps.t.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    return images


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    images = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    labels = np.where(LABELS == 0, 10, LABELS)[:, None]  # the official files call the digit 0 label 10
    savemat(root / "test_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": labels})
    digest = hashlib.md5((root / "test_32x32.mat").read_bytes()).hexdigest()
    monkeypatch.setitem(SVHN.split_list, "test", [*SVHN.split_list["test"][:2], digest])
    return images


def write_arrays(root: Path, name: str, split: str, **changes: object) -> Path:
    content = {
        "images": RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "labels": LABELS,
        "note": f"{name} for a test",
    } | changes
    path = root / f"{name}_{split}.npz"
    np.savez(path, **{key: value for key, value in content.items() if value is not None})
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_official_mnist(tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_mnist(tmp_path, monkeypatch, packed)
    domain = load_digits("mnist", "test", (tmp_path,), size=28, channels=1)
    assert np.array_equal(domain.images[:, 0].numpy(), images)
    assert domain.labels.tolist() == LABELS.tolist()
    assert "official split" in domain.note


@pytest.mark.parametrize("packed", [False, True])
def test_official_fashion_mnist_has_names_for_its_classes(tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_mnist(tmp_path, monkeypatch, packed, "FashionMNIST")
    domain = load_named("fashion-mnist", "test", (tmp_path,), size=28, channels=1)
    assert np.array_equal(domain.images[:, 0].numpy(), images)
    assert domain.labels.tolist() == LABELS.tolist()
    assert domain.classes[5] == "Sandal"
    assert "Fashion-MNIST, official split" in domain.note


def test_clothes_are_not_taken_for_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MNIST", "FashionMNIST"):
        write_mnist(tmp_path, monkeypatch, name=name)
    with pytest.raises(UserError, match=r"fashion-mnist has the classes T-shirt/top, .*, not 0, 1, 2"):
        load_pair(DataSettings(source="mnist", target="fashion-mnist"), (tmp_path,), Display(quiet=True))


def test_official_usps(tmp_path: Path) -> None:
    images = write_usps(tmp_path)
    domain = load_digits("usps", "test", (tmp_path,), size=16, channels=1)
    assert np.abs(domain.images[:, 0].numpy().astype(int) - images).max() <= 1
    assert domain.labels.tolist() == LABELS.tolist()


def test_official_svhn_with_zero_as_label_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_svhn(tmp_path, monkeypatch)
    domain = load_digits("svhn", "test", (tmp_path,))
    assert np.array_equal(domain.images.permute(0, 2, 3, 1).numpy(), images)
    assert domain.labels.tolist() == LABELS.tolist()


def test_arrays_bring_their_note(tmp_path: Path) -> None:
    write_arrays(tmp_path, "mnist", "train", note="a third of MNIST")
    assert load_digits("mnist", "train", (tmp_path,)).note == "a third of MNIST"


def test_official_files_come_before_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, monkeypatch)
    write_arrays(tmp_path, "mnist", "test")
    assert locate("mnist", "test", (tmp_path,)).kind == "official"


def test_a_failed_download_names_files_folder_and_the_offline_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.MNIST.download", fail)
    with pytest.raises(UserError) as error:
        load_digits("mnist", "test", (tmp_path,))
    text = str(error.value)
    assert "\n" not in text
    for part in ("t10k-images-idx3-ubyte", "mnist_test.npz", str(tmp_path), "--data-root", "synth2digits"):
        assert part in text


def test_a_damaged_official_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "usps.t.bz2").write_bytes(b"not bzip2")
    with pytest.raises(UserError, match=r"usps\.t\.bz2"):
        load_digits("usps", "test", (tmp_path,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": None}, "labels"),
        ({"images": np.zeros((6, 28, 28))}, "uint8"),
        ({"labels": np.full(6, 11)}, "classes are 0..9"),
        ({"labels": LABELS[:3]}, "one label per image"),
        ({"images": np.zeros((0, 28, 28), np.uint8), "labels": LABELS[:0]}, "no images"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    write_arrays(tmp_path, "mnist", "test", **changes)
    with pytest.raises(UserError, match=said) as error:
        load_digits("mnist", "test", (tmp_path,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_a_damaged_array_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mnist_test.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"mnist_test\.npz"):
        load_digits("mnist", "test", (tmp_path,))


def test_arrays_cannot_execute_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist_test.npz", images=np.array([print], dtype=object), labels=LABELS)
    with pytest.raises(UserError, match="cannot be read"):
        load_digits("mnist", "test", (tmp_path,))


def test_an_unknown_set_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        load_pair(DataSettings(source="synth", target="mnits"), (tmp_path,), Display(quiet=True))


def test_fit_frame_turns_colour_grey_and_grey_colour() -> None:
    red = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    grey = fit_frame(red, 8, 1)
    assert grey.shape == (2, 1, 8, 8)
    assert grey.unique().tolist() == [76]
    assert torch.equal(fit_frame(grey, 8, 3)[:, 1], grey[:, 0])


def test_all_real_sets_share_range_and_polarity(real_digits: Path) -> None:
    """A famous bug fed USPS as 0..255 and MNIST as 0..1. Handwriting is light on dark: bright middle, dark border."""
    for name in ("mnist", "usps", "svhn"):
        images = load_digits(name, "test", (real_digits,), size=32, channels=1).images
        assert images.dtype == torch.uint8
        assert images.min() < 10
        assert images.max() > 245
        if name != "svhn":
            assert images[:, 0, 8:24, 8:24].float().mean() > 2 * images[:, 0, 0].float().mean()
            assert images[:, 0, :, 0].float().mean() < 64


def test_svhn_10k_is_not_taken_for_svhn(real_digits: Path) -> None:
    if not (real_digits / "svhn_train.npz").exists():
        pytest.skip("no SVHN arrays here")
    domain = load_digits("svhn", "train", (real_digits,))
    assert len(domain) == 7501
    assert "test" in domain.note.lower()


def test_the_first_root_that_has_a_split_wins_and_downloads_go_to_the_first(tmp_path: Path) -> None:
    roots = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for root in roots:
        root.mkdir()
    for root in roots[1:]:
        write_arrays(root, "mnist", "train", note=root.name)
    assert load_digits("mnist", "train", roots).note == "b"
    assert locate("mnist", "test", roots) == Location("missing", roots[0])
