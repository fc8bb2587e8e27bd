"""Code of the user's own: who has agreed to run it."""

import os
import runpy
from pathlib import Path

import pytest
import torch

from uda import UserError, plugins
from uda.errors import OwnCodeError, ReaderKilled


@pytest.fixture(autouse=True)
def nobody_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def test_what_was_named_once_needs_no_other_word() -> None:
    with pytest.raises(UserError, match=r"the recipe runs the code nets.py:Net; look at it first, and .* --trust"):
        plugins.require_trust(["nets.py:Net"], "the recipe")
    plugins.trust(["nets.py:Net"])
    plugins.require_trust([f"{Path.cwd()}/nets.py:Net"], "the recipe")  # the same file
    with pytest.raises(UserError):
        plugins.require_trust(["nets.py:Other"], "the recipe")


def test_a_module_is_another_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.trust(["nets:Net"])
    plugins.require_trust(["nets:Net"], "the recipe")
    (tmp_path / "foreign").mkdir()
    monkeypatch.chdir(tmp_path / "foreign")
    with pytest.raises(UserError):
        plugins.require_trust(["nets:Net"], "the recipe")


def test_a_name_with_a_line_break_vouches_for_no_other() -> None:
    plugins.trust([f"a.py:x\n{Path.cwd()}/evil.py:Net"])
    with pytest.raises(UserError):
        plugins.require_trust(["evil.py:Net"], "the recipe")


def test_where_nothing_can_be_kept_it_asks_again(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    plugins.trust(["nets.py:Net"])
    with pytest.raises(UserError):
        plugins.require_trust(["nets.py:Net"], "the recipe")


def test_a_reader_that_is_killed_while_own_code_runs_is_not_its_fault() -> None:
    with pytest.raises(ReaderKilled, match="then resume"), plugins.own_code("nets.py failed"):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(OwnCodeError), plugins.own_code("nets.py failed"):
        raise RuntimeError("no such size")


def test_what_own_code_changes_for_everybody_is_put_back(tmp_path: Path) -> None:
    here = Path.cwd()
    with plugins.own_code("nets.py failed"):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        os.chdir(tmp_path.parent)
    assert (Path.cwd(), torch.is_grad_enabled(), torch.zeros(1).dtype) == (here, True, torch.float32)
    assert torch.zeros(1).device == torch.device("cpu")


def test_an_error_is_blamed_on_whose_code_it_came_up_in(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("def boom():\n    raise ValueError('boom')\n")
    with pytest.raises(ValueError, match="boom") as error:
        runpy.run_path(str(own))["boom"]()
    assert plugins.blamed(error.value).endswith(f'(ValueError: boom), File "{own}", line 2, in boom')
    assert plugins.blamed(ValueError("boom")) == "an error of ours (ValueError: boom)"
