"""Where data sets are looked for."""

from pathlib import Path

import pytest

from uda import UserError
from uda.data.load import data_root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("UDA_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "uda"


def test_the_users_cache_need_not_be_there(cache: Path) -> None:
    assert data_root(None) == cache
    assert data_root(cache) == cache


def test_any_other_folder_must_be_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="not a folder"):
        data_root(cache / "other")
    monkeypatch.setenv("UDA_DATA", str(cache / "other"))
    with pytest.raises(UserError, match="UDA_DATA"):
        data_root(None)
