"""Where data sets are looked for, and what is a name."""

import os
from pathlib import Path

import pytest

from uda import UserError
from uda.data.names import data_roots, is_domain, is_path, join_roots, nowhere, split_roots


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("UDA_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "uda"


def test_the_users_cache_need_not_be_there(cache: Path) -> None:
    assert data_roots(None) == (cache,)
    assert data_roots(cache) == (cache,)


def test_several_folders_in_their_order_as_in_path(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "b").mkdir(parents=True)
    (cache / "a").mkdir()
    both = f"{cache / 'b'}{os.pathsep}{cache / 'a'}{os.pathsep}"
    monkeypatch.setenv("UDA_DATA", both)
    assert data_roots(None) == (cache / "b", cache / "a")
    assert data_roots(cache / "a") == (cache / "a",), "what is given comes first"
    assert split_roots(join_roots(data_roots(both))) == (cache / "b", cache / "a")


def test_a_root_is_absolute_so_that_a_run_goes_on_from_anywhere(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "here").mkdir(parents=True)
    monkeypatch.chdir(cache)
    assert data_roots("here") == (cache / "here",)


def test_any_folder_but_the_cache_must_be_there(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = f"{tmp_path}{os.pathsep}{cache / 'other'}"
    with pytest.raises(UserError, match=f"--data-root: {cache / 'other'} is not a folder"):
        data_roots(both)
    monkeypatch.setenv("UDA_DATA", both)
    with pytest.raises(UserError, match=f"UDA_DATA: {cache / 'other'} is not a folder"):
        data_roots(None)


def test_names_paths_and_domains_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/cats", "mnist"):
        (tmp_path / name).mkdir(parents=True)
    path, domain, neither = (True, False), (False, True), (False, False)
    names = {
        "mnist": neither,
        "./mnist": path,
        "photos": path,
        "photos/": path,
        "photos/cats": path,
        "a/b": domain,
        "office-home/Real World": domain,
        "a/b/c": path,
        "/a/b": path,
        "/a": path,
        "../b": path,
        "a/x.npz": path,
        "x.csv": path,
        ".": path,
        "cifar": neither,
    }
    assert {name: (is_path(name), is_domain(name)) for name in names} == names


def test_a_folder_beside_a_misspelt_name_is_offered_before_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "unknown folder or data set 'scan'" in str(nowhere("scan"))
    (tmp_path / "scans").mkdir()
    assert str(nowhere("scan")) == "there is no folder 'scan' here, nor a data set of this name; did you mean 'scans'?"
