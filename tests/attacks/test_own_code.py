"""Networks and methods of one's own that are wrong: one line that says whose fault it is, then the user's frames, never ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.harness import Outcome, attack
from tests.attacks.test_inputs import elsewhere, fit  # noqa: F401 - a fixture

HEADER = "import sys\nimport torch\nfrom torch import nn\nfrom uda import losses\nfrom uda.methods.base import OneNetwork\n"
NETWORK = """
class Made(nn.Module):
    def __init__(self):
        super().__init__()
        self.maps, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, images):
        logits = self.head(self.maps(images).mean((2, 3)))
        {}
"""
METHOD = """
class Made(OneNetwork):
    def losses(self, batch):
        _, _, logits, _ = self.read(batch)
        loss = losses.cross_entropy(logits, batch.source_labels)
        {}
"""


def run(folder: Path, code: str, flag: str, dry: bool) -> Outcome:
    folder.mkdir()
    (folder / "mine.py").write_text(HEADER + code)
    return attack(fit(folder, flag, "mine.py:Made", dry=dry), folder, seconds=60)


def blamed(outcome: Outcome, what: str, frames: int) -> None:
    """One line that says it, and so many of the user's frames."""
    line, _, rest = outcome.err.partition("\n")
    assert outcome.code == 2, outcome
    assert line.startswith("uda: ")
    assert what in line
    assert rest.count('  File "') == rest.count("mine.py") == frames, outcome.err


@pytest.mark.parametrize(
    ("code", "what", "frames"),
    [
        ("sys.exit(0)", "SystemExit: 0", 1),
        ("def Made(:", "SyntaxError", 0),
        ("1 / 0", "ZeroDivisionError", 1),
        ("def Made():\n    sys.exit(0)", "failed (SystemExit: 0)", 1),
        ("def Made():\n    raise ValueError('first\\nsecond')", "failed (ValueError: first)", 1),
        ("def Made():\n    return 3", "returned int; it must return a torch.nn.Module", 0),
        ("def Made():\n    return nn.Flatten()", "it must end in a linear layer", 0),
        (NETWORK.format("return logits, 1"), "returns tuple", 0),
        (NETWORK.format("return {'logits': logits}"), "returns dict", 0),
        (NETWORK.format("return logits * torch.nan"), "infinite or not numbers", 0),
        (NETWORK.format("raise KeyError('mine')"), "cannot take 1x16x16 images ('mine')", 1),
    ],
)
def test_a_wrong_network_is_known_before_a_run(code: str, what: str, frames: int, tmp_path: Path) -> None:
    blamed(run(tmp_path / "here", code, "--model", dry=True), what, frames)


@pytest.mark.parametrize(
    ("rest", "what", "frames"),
    [
        ("raise KeyError('mine')", "your own code failed (KeyError: 'mine')", 1),
        ("sys.exit(0)", "your own code failed (SystemExit: 0)", 1),
        ("return loss, loss", "Made.losses returned a tuple; it must return a dict", 0),
        ("return {'class': loss}", "Made.losses returned 'class': tensor (); it must", 0),
        ("return {'total': logits}", "Made.losses returned 'total': tensor (8, 2); it must", 0),
        ("return {'total': 1.0}", "Made.losses returned 'total': float; it must", 0),
        ("return {'total': loss.detach()}", "depends on the network's weights", 0),
        ("return {'total': loss * torch.nan}", "the total loss is nan at step 2; lower method.learning_rate", 0),
    ],
)
def test_a_wrong_method_is_named(rest: str, what: str, frames: int, tmp_path: Path) -> None:
    blamed(run(tmp_path / "here", METHOD.format(rest), "--method", dry=False), what, frames)
