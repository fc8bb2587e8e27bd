"""What all tests of methods read."""

import pytest

from tests.methods.reference import drawn_batch
from uda.data.batches import Batch


@pytest.fixture(scope="session")
def batch() -> Batch:
    return drawn_batch()
