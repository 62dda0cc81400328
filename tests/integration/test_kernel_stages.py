"""The stages of the kernel around real calls of all four RPC kinds."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from conftest import StartServer
from trademesh.runtime.v1 import runtime_service_pb2
from trademesh_kernel.client import DEADLINE_MARGIN_S, ServiceClient
from trademesh_kernel.context import current_call, detached
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, Draining, NotFound, RemoteError
from trademesh_kernel.logs import configure_logs
from trademesh_kernel.probe import ProbeExit, probe
from trademesh_kernel.server import BindError, MeshServer, Registration
from trademesh_kernel.settings import ServerSettings

Behaviour = Callable[..., Any]
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
MAKERS = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


class Raw:
    """Bytes in place of a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # as messages call it
        return self._data


def echo_method(client: ServiceClient, kind: str = "unary_unary") -> Any:
    """/test.Echo/Say on a client's channel."""
    return getattr(client.channel, kind)(
        "/test.Echo/Say", request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
    )


def echo_registration(kind: str, during: Behaviour, request_type: Any = StringValue, path: str = "test.Echo") -> Registration:
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
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(path, {"Say": handler}),))

    return Registration(add, None, path)


async def say(server: MeshServer, kind: str, request: Any = None, path: str = "test.Echo", **options: Any) -> str:
    """Calls /test.Echo/Say and returns its answer."""
    message = request if request is not None else StringValue(value="hello")
    async with grpc.aio.insecure_channel(server.target) as channel:
        method = getattr(channel, kind)(
            f"/{path}/Say", request_serializer=type(message).SerializeToString, response_deserializer=StringValue.FromString
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


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_no_request_are_refused_without_the_text_of_an_exception(start_server: StartServer, kind: str) -> None:
    async def during(_request: Any) -> str:
        return "reached"

    server = await start_server([echo_registration(kind, during, runtime_service_pb2.StopRunRequest)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, kind, Raw(b"\xff\xff\xff"), metadata=(("x-request-id", "find-me"),))
    _, info = details_of(caught.value)
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert "Error" not in str(caught.value.details())
    assert dict(caught.value.trailing_metadata() or ())["x-request-id"] == "find-me"


async def test_calls_beyond_the_bound_are_refused_with_details_and_health_is_not(start_server: StartServer) -> None:
    entered, release = asyncio.Queue[int](), asyncio.Event()

    async def during(_request: Any) -> str:
        entered.put_nowait(1)
        await release.wait()
        return "done"

    async def at_once(_request: Any) -> str:
        return "at once"

    unbounded = replace(echo_registration("unary_unary", at_once, path="test.Supervision"), bounded=False)
    server = await start_server(
        [echo_registration("unary_stream", during), unbounded], settings=ServerSettings(max_concurrent_rpcs=2, default_deadline_s=20)
    )
    streams = [asyncio.create_task(say(server, "unary_stream")) for _ in range(2)]
    for _ in streams:
        await asyncio.wait_for(entered.get(), 10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(server, "unary_stream")
    status, info = details_of(caught.value)
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    assert any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)
    assert (await probe(server.target)).exit_code is ProbeExit.HEALTHY
    assert await say(server, "unary_unary", path="test.Supervision") == "at once"
    release.set()
    assert await asyncio.gather(*streams) == ["done", "done"]
    assert await say(server, "unary_stream") == "done"


@pytest.mark.parametrize(("error", "calls"), [(DependencyUnavailable("trading_service"), 1), (Draining("echo", retry_after_s=0.01), 4)])
async def test_only_what_was_not_begun_is_repeated_by_grpc(start_server: StartServer, error: Exception, calls: int) -> None:
    counted = list[int]()

    async def during(_request: Any) -> str:
        counted.append(1)
        raise error

    server = await start_server([echo_registration("unary_unary", during)])
    async with ServiceClient(server.target, "echo_service") as client:
        with pytest.raises(RemoteError):
            await client.call(echo_method(client), StringValue(), timeout_s=10)
    assert len(counted) == calls


async def test_a_server_that_goes_away_is_looked_for_again(start_server: StartServer) -> None:
    async def during(_request: Any) -> str:
        return "there"

    first = await start_server([echo_registration("unary_unary", during)])
    async with ServiceClient(first.target, "echo_service") as client:
        assert (await client.call(echo_method(client), StringValue())).value == "there"
        await first.stop(drain_delay_s=0, grace_s=0)
        second = MeshServer(ServerSettings(), [echo_registration("unary_unary", during)], listen=first.target)
        await second.start()
        try:
            assert (await client.call(echo_method(client), StringValue(), wait_for_ready=True)).value == "there"
        finally:
            await second.stop(drain_delay_s=0, grace_s=0)


async def test_work_that_outlives_a_call_does_not_run_on_its_deadline(start_server: StartServer) -> None:
    scopes = list[object]()

    async def later() -> None:
        scopes.append(current_call.get())

    async def during(_request: Any) -> str:
        await asyncio.create_task(later())
        await asyncio.create_task(later(), context=detached())
        return "done"

    server = await start_server([echo_registration("unary_unary", during)])
    await say(server, "unary_unary", timeout=5)
    assert scopes[0] is not None
    assert scopes[1] is None


async def test_a_stream_runs_on_the_deadline_of_the_call_that_reads_it(start_server: StartServer) -> None:
    async def for_ever(_request: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    innermost = await start_server([echo_registration("unary_stream", for_ever)])
    ended = asyncio.Event()

    async def outer(_request: Any) -> str:
        async with ServiceClient(innermost.target, "inner") as client:
            try:
                async for _ in client.stream(echo_method(client, "unary_stream"), StringValue()):
                    pass
            except DeadlinePassed:
                ended.set()
                raise
        return "never"

    outermost = await start_server([echo_registration("unary_unary", outer)])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await say(outermost, "unary_unary", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(ended.wait(), 5)


async def test_a_stream_that_falls_silent_is_given_up(start_server: StartServer) -> None:
    async def for_ever(_request: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    server = await start_server([echo_registration("unary_stream", for_ever)])
    async with ServiceClient(server.target, "echo_service") as client:
        with pytest.raises(DeadlinePassed):
            async for _ in client.stream(echo_method(client, "unary_stream"), StringValue(), idle_timeout_s=0.05):
                pass


async def test_calls_are_logged_with_their_request_and_run(start_server: StartServer, capsys: pytest.CaptureFixture[str]) -> None:
    async def during(_request: Any) -> str:
        raise NotFound("run", "demo")

    configure_logs("echo", log_format="json")
    try:
        server = await start_server([echo_registration("unary_unary", during, runtime_service_pb2.StopRunRequest)])
        with pytest.raises(grpc.aio.AioRpcError):
            await say(server, "unary_unary", runtime_service_pb2.StopRunRequest(run_id="demo"), metadata=(("x-request-id", "find-me"),))
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    (line,) = [line for line in lines if line["event"] == "call failed"]
    assert (line["request_id"], line["run_id"], line["method"], line["code"]) == ("find-me", "demo", "/test.Echo/Say", "NOT_FOUND")


async def test_metrics_are_served_on_a_port_of_their_own(start_server: StartServer) -> None:
    class Settings(ServerSettings):
        service = "echo"
        echo_metrics_port: int = 0

    async def during(_request: Any) -> str:
        return "done"

    with socket.socket() as probed:
        probed.bind(("127.0.0.1", 0))
        port = probed.getsockname()[1]
    server = await start_server([echo_registration("unary_unary", during)], settings=Settings(echo_metrics_port=port))
    await say(server, "unary_unary")
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode())
    assert 'trademesh_calls_total{code="OK",method="/test.Echo/Say"} 1.0' in text
    with pytest.raises(BindError, match=str(port)):
        await start_server([], settings=Settings(echo_metrics_port=port))


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
            return str((await client.call(echo_method(client), StringValue())).value)

    outermost = await start_server([echo_registration("unary_unary", outer)])
    assert await say(outermost, "unary_unary", timeout=8) == "done"
    # On the wire a deadline is rounded up to 10 ms, so half of the margin is what can be relied on.
    assert 5 < seen[0] < allowed[0] - DEADLINE_MARGIN_S / 2


async def test_the_client_facade_raises_what_the_server_said(start_server: StartServer) -> None:
    async def during(_request: Any) -> str:
        raise NotFound("run", "demo")

    server = await start_server([echo_registration("unary_unary", during)])
    async with ServiceClient(server.target, "echo_service") as client:
        with pytest.raises(RemoteError) as caught:
            await client.call(echo_method(client), StringValue())
    assert (caught.value.remote_reason, caught.value.metadata["name"]) == ("RESOURCE_NOT_FOUND", "demo")


async def test_a_service_that_is_down_is_named() -> None:
    async with ServiceClient("127.0.0.1:1", "trading_service") as client:
        with pytest.raises(DependencyUnavailable, match="trading_service"):
            await client.call(echo_method(client), StringValue(), timeout_s=10)


async def test_a_service_that_is_slow_passes_the_deadline(start_server: StartServer) -> None:
    async def during(_request: Any) -> str:
        await asyncio.Event().wait()
        return "never"

    server = await start_server([echo_registration("unary_unary", during)])
    async with ServiceClient(server.target, "echo_service") as client:
        with pytest.raises(DeadlinePassed):
            await client.call(echo_method(client), StringValue(), timeout_s=0.05)


def test_status_details_survive_the_way_there_and_back() -> None:
    assert rpc_status.GRPC_DETAILS_METADATA_KEY == "grpc-status-details-bin"
