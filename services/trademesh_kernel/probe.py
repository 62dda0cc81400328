"""Asks a server for its health, with the exit codes of grpc-health-probe."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2


class ProbeExit(enum.IntEnum):
    """Exit codes, as grpc-health-probe has them."""

    HEALTHY = 0
    BAD_ARGUMENTS = 1
    CONNECTION_FAILED = 2
    RPC_FAILED = 3
    UNHEALTHY = 4


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found."""

    exit_code: ProbeExit
    message: str


def _check(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]:
    """grpc.health.v1.Health/Check; its published stub is typed for servers only."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


async def probe(target: str, service: str = "", *, connect_timeout_s: float = 1.0, rpc_timeout_s: float = 1.0) -> ProbeResult:
    """Connects and asks once. Never raises for what the other side does."""
    if not target.strip():
        # gRPC would wait for ever, deaf to any time-out.
        return ProbeResult(ProbeExit.BAD_ARGUMENTS, "the target is empty: name one, for example 127.0.0.1:8000")
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), connect_timeout_s)
        except TimeoutError:
            return ProbeResult(ProbeExit.CONNECTION_FAILED, f"no connection to {target} within {connect_timeout_s:g} s")
        try:
            response = await _check(channel)(health_pb2.HealthCheckRequest(service=service), timeout=rpc_timeout_s)
        except grpc.aio.AioRpcError as error:
            return ProbeResult(ProbeExit.RPC_FAILED, f"{error.code().name}: {error.details()}")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    if response.status == health_pb2.HealthCheckResponse.SERVING:
        return ProbeResult(ProbeExit.HEALTHY, f"status: {name}")
    return ProbeResult(ProbeExit.UNHEALTHY, f"status: {name}")
