"""`trademesh up --reload`: a service is restarted when its source changes, and runs get a new gateway when theirs does.

A source that does not start is said, and the next change awaited; nothing else of the mesh is touched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_cli.processes import Stack, StackError
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import TrademeshError

PROCESSES = {
    "trademesh_agent": "agent_service",
    "trademesh_trading": "trading_service",
    "trademesh_news": "news_service",
    "trademesh_runtime": "runtime_service",
    "trademesh_edge": "edge",
}
"""Which process runs a package that only one runs."""
GATEWAY = "trademesh_gateway"
IGNORED = ("trademesh_cli", "trademesh_sandbox")
LIVE = (runtime_pb2.RUN_STATE_RUNNING, runtime_pb2.RUN_STATE_DEGRADED, runtime_pb2.RUN_STATE_BACKOFF)


def sources_to_watch() -> tuple[Path, ...]:
    """The source roots of the checkout that we run from.

    Raises:
        StackError: this is an installed package.
    """
    root = Path(__file__).parents[2]
    found = tuple(root / name for name in ("services", "gateway", "gen/python"))
    if not all(path.is_dir() for path in found):
        raise StackError("--reload watches the sources of a checkout, and this is an installed package")
    return found


def touched(packages: Iterable[str]) -> tuple[list[str], bool]:
    """What is to be restarted for changes in packages: processes, and whether gateways are too. What all share restarts all."""
    changed = set(packages).difference(IGNORED)
    if changed.difference(PROCESSES, [GATEWAY]):
        return list(PROCESSES.values()), True
    return [process for package, process in PROCESSES.items() if package in changed], GATEWAY in changed


class Reloader:
    """Watches the sources. `run` never returns."""

    def __init__(self, stack: Stack, runtime: ServiceClient, sources: tuple[Path, ...]) -> None:
        self._stack = stack
        self._runtime = runtime
        self._sources = sources

    async def run(self) -> None:
        """Restarts what has changed, again and again."""
        import watchfiles  # Needed for this only.

        async for changes in watchfiles.awatch(*self._sources, watch_filter=watchfiles.PythonFilter()):
            paths = [Path(path) for _change, path in changes]
            packages = {path.relative_to(root).parts[0] for path in paths for root in self._sources if path.is_relative_to(root)}
            processes, gateways = touched(packages)
            for name in processes:
                await self._restart(name)
            if gateways:
                await self._restart_gateways()

    async def _restart(self, name: str) -> None:
        _say(f"restarting {name}")
        try:
            await self._stack.restart(name)
        except StackError as error:
            _say(f"{error}; waiting for the next change")

    async def _restart_gateways(self) -> None:
        stub = self._runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
        try:
            listing = await self._runtime.call(stub.ListRuns, runtime_service_pb2.ListRunsRequest(states=LIVE, page_size=500))
            for run in listing.runs:
                _say(f"restarting the gateway of {run.run_id}")
                request = runtime_service_pb2.RestartRunRequest(run_id=run.run_id, reason="its source has changed")
                await self._runtime.call(stub.RestartRun, request)
        except TrademeshError as error:
            _say(f"gateways were not restarted: {error.message}")


def _say(text: str) -> None:
    print(f"trademesh up: {text}", file=sys.stderr)
