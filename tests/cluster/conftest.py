"""One Ray for all tests here: its start takes longer than they do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package")
def takes() -> Iterator[dict[str, float]]:
    """What a task takes of a node of a Ray that runs."""
    pytest.importorskip("ray")
    from uda.cluster.engine import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of somebody's cluster, which nobody has asked for
        with cluster(None) as found:
            yield found
