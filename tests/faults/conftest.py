"""Meshes that tests may break. Every timer of supervision is a tenth of what it is, so that a fault and what follows fit into seconds;
`fault_timers.py` says how that is undone.

Tests are named `test_<id>_…` after the rows of the table of faults: G gateway, R runtime_service, J journal, D dependencies, F feed,
W WebSocket.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_timers import FULL, FULL_TEST_TIMEOUT_S, SCALED_TIMERS
from mesh_processes import SERVICES, Mesh, running_mesh, two_years

__all__ = ["two_years"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With real timers tests of faults may take long."""
    if FULL:
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.timeout(FULL_TEST_TIMEOUT_S), append=False)


@pytest.fixture(scope="module")
def fault_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One mesh, with scaled timers, for the tests of a file that break only their own runs."""
    with running_mesh(tmp_path_factory.mktemp("faults"), *SERVICES, "edge", **SCALED_TIMERS) as mesh:
        yield mesh
