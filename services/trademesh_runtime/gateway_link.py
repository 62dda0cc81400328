"""What runtime_service asks of one gateway by RPC: is it alive, is it ready, how far is it, and to drain. What follows from the answers is
the policy's (`policy.py`), carried to it by `supervisor.py`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2

from trademesh.gateway.v1 import feed_service_pb2, feed_service_pb2_grpc, supervision_service_pb2_grpc
from trademesh.gateway.v1 import supervision_service_pb2 as supervision
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.health import LIVENESS
from trademesh_runtime.policy import Timers

SNAPSHOT_WITHIN_S = 1.0


async def state_from_gateway(run_id: str, target: str) -> ServerState | None:
    """The desk as its gateway has it now; None if it does not answer within a second."""
    async with ServiceClient(target, "gateway") as client:
        stub = client.stub(feed_service_pb2_grpc.FeedServiceStub)
        request = feed_service_pb2.GetSnapshotRequest(run_id=run_id)
        try:
            answer: feed_service_pb2.GetSnapshotResponse = await client.call(stub.GetSnapshot, request, timeout_s=SNAPSHOT_WITHIN_S)
        except TrademeshError:
            return None
        return answer.state


@dataclass(frozen=True)
class Answer:
    """What came of a Check: if not SERVING a word on it, and how much later than its deadline we ourselves were to notice."""

    serving: bool
    why_not: str = ""
    own_lag_s: float = 0.0
    refused: bool = False
    """True if nobody takes calls there."""
    in_time: bool = True
    """False if no answer came at all."""


class GatewayLink:
    """A channel to one gateway, known by its generation and nonce. `async with` closes it."""

    def __init__(self, target: str, generation: int, nonce: str, timers: Timers) -> None:
        self._generation = generation
        self._nonce = nonce
        self._timers = timers
        self._client = ServiceClient(target, "gateway")
        self._stub = self._client.stub(supervision_service_pb2_grpc.SupervisionServiceStub)
        self._check = self._client.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._watch = self._client.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    async def is_alive(self) -> Answer:
        """Whether it makes progress. A unary Check with a deadline is the only proof of life."""
        return await self._ask(LIVENESS)

    async def is_ready(self) -> Answer:
        """Whether it has all that it needs."""
        return await self._ask("")

    async def _ask(self, name: str) -> Answer:
        began = time.monotonic()
        try:
            answer = await self._check(health_pb2.HealthCheckRequest(service=name), timeout=self._timers.probe_timeout_s)
        except grpc.aio.AioRpcError as error:
            # An answer that came before the deadline is taken even if we come late: only a deadline can be blamed on us.
            late_s = time.monotonic() - began - self._timers.probe_timeout_s
            what = f"{name or 'readiness'}: {error.code().name}"
            overdue = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Answer(False, what, max(0.0, late_s) if overdue else 0.0, error.code() is grpc.StatusCode.UNAVAILABLE, in_time=False)
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        return Answer(serving, "" if serving else f"{name or 'readiness'}: NOT_SERVING")

    async def hint_at_changes(self, hint: asyncio.Event) -> None:
        """Sets `hint` whenever readiness has changed, so that it is checked at once. Silence proves nothing. Never returns."""
        while True:
            call = self._watch(health_pb2.HealthCheckRequest())
            try:
                async for _ in call:
                    hint.set()
            except grpc.aio.AioRpcError:
                pass
            finally:
                call.cancel()
            await asyncio.sleep(self._timers.probe_interval_s)

    async def heartbeat(self) -> supervision.HeartbeatResponse | None:
        """Renews its lease, and learns how far it is; None if it does not answer in time."""
        request = supervision.HeartbeatRequest(generation=self._generation, nonce=self._nonce)
        try:
            answer: supervision.HeartbeatResponse = await self._client.call(
                self._stub.Heartbeat, request, timeout_s=self._timers.probe_timeout_s
            )
        except TrademeshError:
            return None
        return answer

    async def drain(self) -> None:
        """Asks it to finish what it does; returns when it has, or will not in time."""
        within = Duration(seconds=max(1, int(self._timers.drain_s)))
        request = supervision.DrainRequest(generation=self._generation, nonce=self._nonce, within=within)
        try:
            await self._client.call(self._stub.Drain, request, timeout_s=self._timers.drain_s)
        except TrademeshError:
            return

    async def __aenter__(self) -> GatewayLink:
        return self

    async def __aexit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        await self._client.close()
