"""The stages of every call: request id, log, metrics, deadline, validation, errors, in this order, from outside in.

They are composed into one wrapper per RPC kind and put around each handler once, when it is registered. As interceptors of their own five
of them cost 40 % of a server's throughput, and a single grpc.aio interceptor that does nothing costs 9 %. What is added to the server
itself, health and reflection, has no stages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from trademesh_kernel.context import REQUEST_ID_KEY, CallScope, Context, current_call, new_request_id
from trademesh_kernel.errors import DeadlinePassed, TrademeshError
from trademesh_kernel.logs import get_logger
from trademesh_kernel.status import internal_status, status_of
from trademesh_kernel.telemetry import CallMetrics
from trademesh_kernel.validation import check_request, has_constraints

READ_PREFIXES = ("Get", "List", "Watch", "Stream", "Subscribe", "Tail", "Check", "Validate", "Explain", "Heartbeat")
"""Methods that begin so change nothing, and are logged only when they fail or are slow."""

_LONGEST_REQUEST_ID = 128


@dataclass(frozen=True)
class StageOptions:
    """What the stages are told by the settings."""

    default_deadline_s: float = 30.0
    slow_call_s: float = 1.0
    metrics: CallMetrics | None = None


class StagedServer:
    """What generated `add_…_to_server` functions see of a server: handlers that are added here have the stages around them."""

    def __init__(self, server: grpc.aio.Server, options: StageOptions) -> None:
        self._server = server
        self._options = options

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds services."""
        self._server.add_generic_rpc_handlers([_StagedHandlers(handler, self._options) for handler in handlers])

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Any]) -> None:
        """What generated code says a second time, for servers that are not asyncio's."""


class _StagedHandlers(grpc.GenericRpcHandler):
    """The handlers of a service, each wrapped when it is first asked for."""

    def __init__(self, handlers: grpc.GenericRpcHandler, options: StageOptions) -> None:
        self._handlers = handlers
        self._options = options
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a method, or None."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = self._handlers.service(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = wrap_handler(method, handler, self._options)
        return wrapped


def wrap_handler(method: str, handler: Any, options: StageOptions) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same kind with all stages around its behaviour."""
    stages = _Stages(method, options)
    if handler.request_streaming and handler.response_streaming:
        behaviour, make = stages.stream_stream(handler.stream_stream), grpc.stream_stream_rpc_method_handler
    elif handler.request_streaming:
        behaviour, make = stages.stream_unary(handler.stream_unary), grpc.stream_unary_rpc_method_handler
    elif handler.response_streaming:
        behaviour, make = stages.unary_stream(handler.unary_stream), grpc.unary_stream_rpc_method_handler
    else:
        behaviour, make = stages.unary_unary(handler.unary_unary), grpc.unary_unary_rpc_method_handler
    return make(behaviour, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer)


class _Stages:
    """The stages of one method."""

    def __init__(self, method: str, options: StageOptions) -> None:
        self._method = method
        self._options = options
        name = method.rpartition("/")[2]
        self._always_logged = not name.startswith(READ_PREFIXES)
        # A stream is meant to last.
        self._slow_is_notable = not name.startswith(("Watch", "Stream", "Subscribe", "Tail"))
        self._log = get_logger("rpc")
        self._has_constraints: bool | None = None
        """Of the request's type; known with the first request."""

    def unary_unary(self, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            allowed_s = context.time_remaining()
            scope, started = self._begin(context, self._options.default_deadline_s if allowed_s is None else allowed_s)
            try:
                self._validate(request)
                if allowed_s is None:
                    async with asyncio.timeout(self._options.default_deadline_s):
                        response = await behaviour(request, context)
                else:
                    response = await behaviour(request, context)
            except BaseException as error:
                await self._fail(error, scope, started, context)
                raise
            self._end(scope, started, "OK")
            return response

        return handle

    def stream_unary(self, behaviour: Callable[[AsyncIterator[Any], Context], Awaitable[Any]]) -> Any:
        async def handle(requests: AsyncIterator[Any], context: Context) -> Any:
            scope, started = self._begin(context, context.time_remaining())
            try:
                response = await behaviour(self._validated(requests), context)
            except BaseException as error:
                await self._fail(error, scope, started, context)
                raise
            self._end(scope, started, "OK")
            return response

        return handle

    def unary_stream(self, behaviour: Callable[[Any, Context], AsyncIterator[Any]]) -> Any:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            scope, started = self._begin(context, context.time_remaining())
            try:
                self._validate(request)
                async for response in behaviour(request, context):
                    yield response
            except GeneratorExit:
                self._end(scope, started, "CANCELLED")
                raise
            except BaseException as error:
                await self._fail(error, scope, started, context)
                raise
            self._end(scope, started, "OK")

        return handle

    def stream_stream(self, behaviour: Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]) -> Any:
        async def handle(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            scope, started = self._begin(context, context.time_remaining())
            try:
                async for response in behaviour(self._validated(requests), context):
                    yield response
            except GeneratorExit:
                self._end(scope, started, "CANCELLED")
                raise
            except BaseException as error:
                await self._fail(error, scope, started, context)
                raise
            self._end(scope, started, "OK")

        return handle

    def _begin(self, context: Context, allowed_s: float | None) -> tuple[CallScope, float]:
        """Sets the scope of the call. Each RPC has a task of its own, so the variable needs no reset."""
        request_id = ""
        for key, value in context.invocation_metadata() or ():
            if key == REQUEST_ID_KEY and isinstance(value, str):
                request_id = value[:_LONGEST_REQUEST_ID]
        request_id = request_id or new_request_id()
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        started = time.monotonic()
        scope = CallScope(request_id, self._method, None if allowed_s is None else started + allowed_s)
        current_call.set(scope)
        return scope, started

    def _validate(self, request: Any) -> None:
        if self._has_constraints is None:
            self._has_constraints = isinstance(request, Message) and has_constraints(request.DESCRIPTOR)
        if self._has_constraints:
            check_request(request)

    async def _validated(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self._validate(request)
            yield request

    async def _fail(self, error: BaseException, scope: CallScope, started: float, context: Context) -> None:
        """Ends the call with the status of an error; returns only if the error is not ours to translate."""
        if isinstance(error, grpc.aio.AbortError):
            self._end(scope, started, "ABORTED_BY_HANDLER")
            return
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._end(scope, started, "CANCELLED")
                return
            # A handler that raises this by itself would leave the client waiting to its deadline.
            self._log.error("a handler cancelled itself")
            status = internal_status(scope.request_id)
        elif isinstance(error, TimeoutError) and (remaining := scope.remaining_s()) is not None and remaining <= 0.001:
            status = status_of(DeadlinePassed(self._method))
        elif isinstance(error, TrademeshError):
            status = status_of(error)
        elif isinstance(error, Exception):
            self._log.exception("a call failed by a fault of ours")
            status = internal_status(scope.request_id)
        else:
            return
        self._end(scope, started, _code_name(status), status.message)
        await context.abort_with_status(_with_request_id(status, scope.request_id))

    def _end(self, scope: CallScope, started: float, code: str, message: str = "") -> None:
        seconds = time.monotonic() - started
        if self._options.metrics is not None:
            self._options.metrics.observe(self._method, code, seconds)
        if code not in ("OK", "CANCELLED"):
            self._log.warning("call failed", code=code, reason=message, seconds=round(seconds, 4))
        elif self._always_logged or (self._slow_is_notable and seconds > self._options.slow_call_s):
            self._log.info("call", code=code, seconds=round(seconds, 4))


def _code_name(status: status_pb2.Status) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == status.code)


class _StatusWithRequestId:
    """A status whose trailing metadata carries the request id beside the details."""

    def __init__(self, status: Any, request_id: str) -> None:
        self.code = status.code
        self.details = status.details
        self.trailing_metadata = (*status.trailing_metadata, (REQUEST_ID_KEY, request_id))


def _with_request_id(status: status_pb2.Status, request_id: str) -> Any:
    return _StatusWithRequestId(rpc_status.to_status(status), request_id)
