"""The mesh as the edge reaches it: which server answers a call, and channels to those servers.

Messages pass as bytes; what they mean is not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_edge.methods import AllowedMethod, Destination
from trademesh_edge.settings import EdgeSettings
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, RemoteError, StateConflict, TrademeshError

MAX_IDLE_CHANNELS = 16
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
FEED_RETRIES_S = (0.1, 0.3, 0.6, 1.0, 2.0)
"""A run's feed moves when its gateway ends: who asks for it in that moment looks again after so long each."""


@dataclass
class _Pooled:
    client: ServiceClient
    users: int = 0


@dataclass(frozen=True)
class _Route:
    run: runtime_pb2.Run
    until: float
    """Reading of the loop's clock after which the answer is asked for again."""


@dataclass
class Upstream:
    """Clients of the mesh's servers, shared by everyone at the edge. Create it inside the running loop; end with `close`."""

    settings: EdgeSettings
    _pool: dict[str, _Pooled] = field(default_factory=dict)
    _routes: dict[str, _Route] = field(default_factory=dict)

    @asynccontextmanager
    async def serving(self, method: AllowedMethod, request: bytes) -> AsyncIterator[ServiceClient]:
        """A client of the server that answers this call; raises as `run`."""
        fixed = {
            Destination.RUNTIME: self.settings.runtime_target,
            Destination.TRADING: self.settings.trading_target,
            Destination.NEWS: self.settings.news_target,
            Destination.AGENT: self.settings.agent_target,
        }.get(method.destination)
        if fixed is None:
            run = await self.run(method.run_id_of(request))
            fixed = run.feed_target
            if method.destination is Destination.RUN_GATEWAY:
                if not run.target:
                    state = runtime_pb2.RunState.Name(run.state)
                    text = f"run {run.run_id} has no gateway now: it is {state}"
                    raise StateConflict(text, resource_type="run", name=run.run_id, state=state)
                fixed = run.target
        async with self.client(fixed) as client:
            yield client

    async def run(self, run_id: str, *, fresh: bool = False) -> runtime_pb2.Run:
        """A run as runtime_service tells it, believed for a moment.

        Raises:
            RemoteError: there is no such run.
            DependencyUnavailable: runtime_service does not answer.
        """
        now = asyncio.get_running_loop().time()
        known = self._routes.get(run_id)
        if known is not None and known.until > now and not fresh:
            return known.run
        async with self.client(self.settings.runtime_target) as client:
            stub = client.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
            answer = await client.call(stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run_id))
        run: runtime_pb2.Run = answer.run
        if len(self._routes) > 1_000:
            self._routes.clear()
        self._routes[run_id] = _Route(run, now + self.settings.edge_route_ttl_s)
        return run

    def forget(self, run_id: str) -> None:
        """The next call asks anew where a run is served: its server has gone."""
        self._routes.pop(run_id, None)

    @asynccontextmanager
    async def client(self, target: str) -> AsyncIterator[ServiceClient]:
        """A client of a target; channels that nobody uses are closed when there are many."""
        pooled = self._pool.get(target)
        if pooled is None:
            pooled = self._pool[target] = _Pooled(ServiceClient(target, target, max_message_bytes=MAX_MESSAGE_BYTES))
        pooled.users += 1
        try:
            yield pooled.client
        finally:
            pooled.users -= 1
            idle = [name for name, entry in self._pool.items() if entry.users == 0]
            for name in idle[: max(0, len(idle) - MAX_IDLE_CHANNELS)]:
                await self._pool.pop(name).client.close()

    async def close(self) -> None:
        """Closes every channel."""
        pool, self._pool = self._pool, {}
        for pooled in pool.values():
            await pooled.client.close()


async def unary(client: ServiceClient, method: str, request: bytes, timeout_s: float) -> bytes:
    """One unary call, bytes in and out; raises as `ServiceClient.call`."""
    answer: bytes = await client.call(client.channel.unary_unary(method), request, timeout_s=timeout_s)
    return answer


async def stream(client: ServiceClient, method: str, request: bytes, *, idle_timeout_s: float | None = None) -> AsyncGenerator[bytes, None]:
    """A server stream, bytes in and out; raises as `ServiceClient.stream`."""
    call: Any = client.channel.unary_stream(method)
    messages = client.stream(call, request, idle_timeout_s=idle_timeout_s)
    try:
        async for message in messages:
            yield message
    finally:
        await messages.aclose()  # type: ignore[attr-defined]  # it is a generator: leaving it must end the call now


def is_lost(error: TrademeshError) -> bool:
    """True if the server went away, so that asking again, perhaps elsewhere, can help."""
    if isinstance(error, RemoteError):
        return error.remote_code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return isinstance(error, DependencyUnavailable | DeadlinePassed)


def reason_of(error: TrademeshError) -> str:
    """The reason that the contract names for an error, ours or another server's."""
    return error.remote_reason if isinstance(error, RemoteError) else error.reason
