"""Fixtures that all tests share: a clean environment, and servers on free ports."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import hypothesis
import pytest
import pytest_asyncio

from trademesh_kernel.health import Readiness
from trademesh_kernel.server import MeshServer, Registration
from trademesh_kernel.settings import ServerSettings

# A property is not a test of time: on a machine with other work one example may take a second.
hypothesis.settings.register_profile("trademesh", deadline=None)
hypothesis.settings.load_profile("trademesh")

StartServer = Callable[..., Awaitable[MeshServer]]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours leaks in from the machine."""
    for name in list(os.environ):
        if name.startswith(("TRADEMESH_", "SKILL_SANDBOX_", "ENABLE_DASHBOARD")):
            monkeypatch.delenv(name)


@pytest_asyncio.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Starts servers on free ports of 127.0.0.1, and stops them after the test."""
    async with AsyncExitStack() as running:

        async def start(
            registrations: Sequence[Registration], *, settings: ServerSettings | None = None, readiness: Readiness | None = None
        ) -> MeshServer:
            server = MeshServer(settings or ServerSettings(), registrations, listen="127.0.0.1:0", readiness=readiness)
            await server.start()
            running.push_async_callback(server.stop, drain_delay_s=0.0, grace_s=0.0)
            return server

        yield start
