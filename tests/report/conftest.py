"""Here the pictures of pages are drawn."""

from collections.abc import Iterator

import pytest

from tests.conftest import drawn


@pytest.fixture(autouse=True)
def drawing() -> Iterator[None]:
    with drawn():
        yield
