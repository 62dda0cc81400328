"""Binding, health, reflection and drain of a server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from conftest import StartServer
from trademesh_kernel.health import LIVENESS, Readiness
from trademesh_kernel.probe import ProbeExit, probe
from trademesh_kernel.reflection import V1_NAME, V1ALPHA_NAME
from trademesh_kernel.server import BindError, MeshServer
from trademesh_kernel.settings import ServerSettings

Serving = health_pb2.HealthCheckResponse


async def test_a_server_is_not_serving_until_every_condition_holds(start_server: StartServer) -> None:
    readiness = Readiness("store", "peer")
    server = await start_server([], readiness=readiness)
    assert (await probe(server.target)).exit_code is ProbeExit.UNHEALTHY
    await readiness.hold("store")
    assert (await probe(server.target)).exit_code is ProbeExit.UNHEALTHY
    await readiness.hold("peer")
    assert (await probe(server.target)).exit_code is ProbeExit.HEALTHY
    await readiness.fail("peer", "does not answer")
    assert (await probe(server.target)).exit_code is ProbeExit.UNHEALTHY
    assert (await probe(server.target, LIVENESS)).exit_code is ProbeExit.HEALTHY


async def test_watch_tells_each_change_of_health(start_server: StartServer) -> None:
    readiness = Readiness("store")
    server = await start_server([], readiness=readiness)
    async with grpc.aio.insecure_channel(server.target) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=Serving.FromString,
        )(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert (await watch.read()).status == Serving.NOT_SERVING
        await readiness.hold("store")
        assert (await watch.read()).status == Serving.SERVING
        watch.cancel()


async def test_a_taken_port_is_refused_and_named(start_server: StartServer) -> None:
    first = await start_server([])
    second = MeshServer(ServerSettings(), [], listen=first.target)
    with pytest.raises(BindError, match=str(first.port)):
        await second.start()


async def test_an_address_that_others_can_reach_needs_leave() -> None:
    with pytest.raises(BindError, match="TRADEMESH_ALLOW_INSECURE"):
        await MeshServer(ServerSettings(), [], listen="0.0.0.0:0").start()
    server = MeshServer(ServerSettings(allow_insecure=True), [], listen="0.0.0.0:0")
    await server.start()
    try:
        assert (await probe(f"127.0.0.1:{server.port}")).exit_code is ProbeExit.HEALTHY
    finally:
        await server.stop(drain_delay_s=0.0, grace_s=0.0)


async def test_probe_tells_no_connection_from_a_failed_call(start_server: StartServer) -> None:
    server = await start_server([])
    assert (await probe("127.0.0.1:1", connect_timeout_s=0.3)).exit_code is ProbeExit.CONNECTION_FAILED
    assert (await probe(server.target, "no.such.Service")).exit_code is ProbeExit.RPC_FAILED


@pytest.mark.parametrize("name", [V1_NAME, V1ALPHA_NAME])
async def test_both_versions_of_reflection_describe_each_other(start_server: StartServer, name: str) -> None:
    server = await start_server([])

    async def requests() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=V1_NAME)
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=V1ALPHA_NAME)

    async with grpc.aio.insecure_channel(server.target) as channel:
        call = channel.stream_stream(
            f"/{name}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(requests(), timeout=10)
        listed, v1, v1alpha = [response async for response in call]
    assert {V1_NAME, V1ALPHA_NAME, "grpc.health.v1.Health"} <= {service.name for service in listed.list_services_response.service}
    assert v1.file_descriptor_response.file_descriptor_proto
    assert v1alpha.file_descriptor_response.file_descriptor_proto


async def test_a_drain_says_not_serving_before_calls_are_refused(start_server: StartServer) -> None:
    server = await start_server([])
    draining = asyncio.Event()
    server.drain_hooks.append(draining.set)
    stopping = asyncio.create_task(server.stop(drain_delay_s=5, grace_s=0))
    try:
        await asyncio.wait_for(draining.wait(), 5)
        assert (await probe(server.target)).exit_code is ProbeExit.UNHEALTHY
    finally:
        stopping.cancel()
