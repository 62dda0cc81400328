"""How a gateway is looked after while it lives: real calls to a server that stands still where a test wants it to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from trademesh.gateway.v1.supervision_service_pb2 import HeartbeatRequest, HeartbeatResponse
from trademesh_kernel.health import LIVENESS
from trademesh_runtime import policy
from trademesh_runtime.gateway_link import GatewayLink
from trademesh_runtime.gateway_probe import GatewayProbe
from trademesh_runtime.policy import State
from trademesh_runtime.process import ProcessHandle
from waiting import until

TIMERS = policy.Timers(probe_interval_s=0.2, probe_timeout_s=0.2)


class HalfStopped:
    """Answers each question so often, and then no more: as a process that is stopped between two of them."""

    def __init__(self, **answers: int) -> None:
        self.left = {"liveness": 0, "readiness": 0, "heartbeat": 0} | answers
        self.asked = list[str]()

    async def _take(self, what: str) -> None:
        self.asked.append(what)
        if not self.left[what]:
            await asyncio.Event().wait()
        self.left[what] -= 1

    async def check(self, request: health_pb2.HealthCheckRequest, _context: Any) -> health_pb2.HealthCheckResponse:
        await self._take("liveness" if request.service == LIVENESS else "readiness")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def heartbeat(self, _request: HeartbeatRequest, _context: Any) -> HeartbeatResponse:
        await self._take("heartbeat")
        return HeartbeatResponse()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Its address."""
        server = grpc.aio.server()
        checks = grpc.unary_unary_rpc_method_handler(
            self.check, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        )
        beats = grpc.unary_unary_rpc_method_handler(self.heartbeat, HeartbeatRequest.FromString, HeartbeatResponse.SerializeToString)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": checks}),
                grpc.method_handlers_generic_handler("trademesh.gateway.v1.SupervisionService", {"Heartbeat": beats}),
            )
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


class Findings:
    """What the probe has told."""

    state = State.RUNNING

    def __init__(self) -> None:
        self.probed = list[policy.Probed]()

    def feed(self, event: policy.Event) -> None:
        if isinstance(event, policy.Probed):
            self.probed.append(event)

    def found_health(self, health: int) -> None:
        return

    def found_progress(self, answer: HeartbeatResponse) -> None:
        return


async def test_one_that_stops_between_two_answers_is_asked_at_once_again_whether_it_lives() -> None:
    # A heartbeat that is waited for first would be the second that passes before the three checks which make a hang: more than five in all.
    gateway, findings = HalfStopped(liveness=1), Findings()
    async with gateway.served() as target, GatewayLink(target, 1, "n", TIMERS) as link:
        handle = ProcessHandle(os.getpid(), os.pidfd_open(os.getpid()))
        looking = asyncio.create_task(GatewayProbe(handle, link, TIMERS, findings).run())
        await until(lambda: len(findings.probed) >= 4)
        looking.cancel()
        handle.close()
    assert [(probed.alive, probed.ready) for probed in findings.probed[:4]] == [(True, False), *[(False, False)] * 3]
    assert gateway.asked[:5] == ["liveness", "readiness", *["liveness"] * 3]
