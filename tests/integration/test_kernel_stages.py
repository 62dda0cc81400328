"""The stages of the kernel around real calls of all four RPC kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from conftest import StartServer
from trademesh.runtime.v1 import runtime_service_pb2
from trademesh_kernel.client import DEADLINE_MARGIN_S, ServiceClient
from trademesh_kernel.context import current_call
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, NotFound, RemoteError
from trademesh_kernel.server import MeshServer, Registration
from trademesh_kernel.settings import ServerSettings

Behaviour = Callable[..., Any]
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
MAKERS = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


def echo_registration(kind: str, during: Behaviour, request_type: Any = StringValue) -> Registration:
    """A service of one method, /test.Echo/Say, that runs `during` and answers with its result."""

    async def unary(request: Any, context: Any) -> Any:
        return StringValue(value=str(await during(request)))

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        yield StringValue(value=str(await during(request)))

    async def first(requests: AsyncIterator[Any]) -> Any:
        async for request in requests:
            return request

    async def stream_in(requests: AsyncIterator[Any], context: Any) -> Any:
        return await unary(await first(requests), context)

    async def stream_both(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        yield await unary(await first(requests), context)

    behaviour = {"unary_unary": unary, "unary_stream": stream, "stream_unary": stream_in, "stream_stream": stream_both}[kind]

    def add(_servicer: Any, server: grpc.aio.Server) -> None:
        handler = MAKERS[kind](behaviour, request_deserializer=request_type.FromString, response_serializer=StringValue.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))

    return Registration(add, None, "test.Echo")


async def say(server: MeshServer, kind: str, request: Any = None, **options: Any) -> str:
    """Calls /test.Echo/Say and returns its answer."""
    message = request if request is not None else StringValue(value="hello")
    async with grpc.aio.insecure_channel(server.target) as channel:
        method = getattr(channel, kind)(
            "/test.Echo/Say", request_serializer=type(message).SerializeToString, response_deserializer=StringValue.FromString
        )
        argument: Any = message
        if kind.startswith("stream"):

            async def requests() -> AsyncIterator[Any]:
                yield message

            argument = requests()
        if kind.endswith("unary"):
            return str((await method(argument, **options)).value)
        return "".join([response.value async for response in method(argument, **options)])


def details_of(error: grpc.aio.AioRpcError) -> tuple[status_pb2.Status, error_details_pb2.ErrorInfo]:
    """Status and its one ErrorInfo."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    return status, info


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_sees_its_request_id_and_method(start_server: StartServer, kind: str) -> None:
    async def during(_request: Any) -> str:
        scope = current_call.get()
        assert scope is not None
        return f"{scope.request_id} {scope.method}"

    server = await start_server([echo_registration(kind, during)])
    assert await say(server, kind, metadata=(("x-request-id", "given"),)) == "given /test.Echo/Say"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_ours_becomes_a_status_with_one_error_info(start_server: StartServer, kind: str) -> None:
    async def during(_request: Any) -> str:
        raise NotFound("run", "demo")

    server = await start_server([echo_registration(kind, during)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, kind)
    status, info = details_of(caught.value)
    assert (caught.value.code(), info.reason, info.domain) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "trademesh")
    assert dict(info.metadata) == {"type": "run", "name": "demo"}
    assert status.message == caught.value.details()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_text_of_a_fault_of_ours_does_not_reach_the_client(start_server: StartServer, kind: str) -> None:
    async def during(_request: Any) -> str:
        raise ValueError("the password is swordfish")

    server = await start_server([echo_registration(kind, during)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, kind, metadata=(("x-request-id", "find-me"),))
    status, info = details_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert info.metadata["request_id"] == "find-me"
    assert "swordfish" not in str(status)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_that_cancels_itself_does_not_leave_the_client_waiting(start_server: StartServer, kind: str) -> None:
    async def during(_request: Any) -> str:
        raise asyncio.CancelledError

    server = await start_server([echo_registration(kind, during)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, kind, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("kind", KINDS)
async def test_every_field_that_breaks_the_contract_is_named(start_server: StartServer, kind: str) -> None:
    async def during(_request: Any) -> str:
        return "reached"

    server = await start_server([echo_registration(kind, during, runtime_service_pb2.StopRunRequest)])
    request = runtime_service_pb2.StopRunRequest(run_id="NOT A NAME", reason="x" * 501)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, kind, request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status, info = details_of(caught.value)
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert {violation.field for violation in bad_request.field_violations} == {"run_id", "reason"}
    assert info.metadata["violations"] == "2"


async def test_a_unary_call_without_a_deadline_gets_the_default_one(start_server: StartServer) -> None:
    async def during(_request: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    server = await start_server([echo_registration("unary_unary", during)], settings=ServerSettings(default_deadline_s=0.05))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, "unary_unary")
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert details_of(caught.value)[1].reason == "DEADLINE_EXCEEDED"


async def test_a_deadline_is_passed_on_less_a_margin(start_server: StartServer) -> None:
    allowed, seen = list[float](), list[float]()

    async def inner(_request: Any) -> str:
        scope = current_call.get()
        assert scope is not None
        remaining = scope.remaining_s()
        assert remaining is not None
        seen.append(remaining)
        return "done"

    innermost = await start_server([echo_registration("unary_unary", inner)])

    async def outer(_request: Any) -> str:
        scope = current_call.get()
        assert scope is not None
        remaining = scope.remaining_s()
        assert remaining is not None
        allowed.append(remaining)
        async with ServiceClient(innermost.target, "inner", default_timeout_s=60) as client:
            method = client.channel.unary_unary(
                "/test.Echo/Say", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
            )
            return str((await client.call(method, StringValue())).value)

    outermost = await start_server([echo_registration("unary_unary", outer)])
    assert await say(outermost, "unary_unary", timeout=8) == "done"
    # On the wire a deadline is rounded up to 10 ms, so half of the margin is what can be relied on.
    assert 5 < seen[0] < allowed[0] - DEADLINE_MARGIN_S / 2


async def test_the_client_facade_raises_what_the_server_said(start_server: StartServer) -> None:
    async def during(_request: Any) -> str:
        raise NotFound("run", "demo")

    server = await start_server([echo_registration("unary_unary", during)])
    async with ServiceClient(server.target, "echo_service") as client:
        method = client.channel.unary_unary(
            "/test.Echo/Say", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
        )
        with pytest.raises(RemoteError) as caught:
            await client.call(method, StringValue())
    assert (caught.value.remote_reason, caught.value.metadata["name"]) == ("RESOURCE_NOT_FOUND", "demo")


async def test_a_service_that_is_down_is_named() -> None:
    async with ServiceClient("127.0.0.1:1", "trading_service") as client:
        method = client.channel.unary_unary(
            "/test.Echo/Say", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
        )
        with pytest.raises(DependencyUnavailable, match="trading_service"):
            await client.call(method, StringValue(), timeout_s=10)


async def test_a_service_that_is_slow_passes_the_deadline(start_server: StartServer) -> None:
    async def during(_request: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    server = await start_server([echo_registration("unary_unary", during)])
    async with ServiceClient(server.target, "echo_service") as client:
        method = client.channel.unary_unary(
            "/test.Echo/Say", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
        )
        with pytest.raises(DeadlinePassed):
            await client.call(method, StringValue(), timeout_s=0.05)


def test_status_details_survive_the_way_there_and_back() -> None:
    assert rpc_status.GRPC_DETAILS_METADATA_KEY == "grpc-status-details-bin"
