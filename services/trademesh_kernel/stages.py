"""The stages of every call: request id, log, metrics, bound, deadline, validation, errors, in this order, from outside in.

They are composed into one wrapper per RPC kind and put around each handler once, when it is registered. As interceptors of their own five
of them cost 40 % of a server's throughput, and a single grpc.aio interceptor that does nothing costs 9 %. What is added to the server
itself, health and reflection, has no stages.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from trademesh_kernel.context import REQUEST_ID_KEY, CallScope, Context, current_call, new_request_id
from trademesh_kernel.errors import DeadlinePassed, FieldViolation, InvalidRequest, LimitReached, TrademeshError
from trademesh_kernel.logs import get_logger
from trademesh_kernel.status import internal_status, status_of
from trademesh_kernel.validation import check_request, has_constraints

if TYPE_CHECKING:
    from trademesh_kernel.telemetry import CallMetrics

READ_PREFIXES = ("Get", "List", "Watch", "Stream", "Subscribe", "Tail", "Check", "Validate", "Explain", "Heartbeat")
"""Methods that begin so change nothing, and are logged only when they fail or are slow."""

RETRY_PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""What gRPC's own retry makes of a status of ours. It is for servers that cannot be reached: an answer ends the call, -1, or each hop would
try four times what the one below has tried four times. RetryInfo tells the caller when to come back."""

_LATE_S = 0.005
"""A call that is cancelled with so little left was cancelled by its deadline."""


@dataclass
class Load:
    """How many calls are in hand, and how many may be. Shared by all services of a server that are bounded together."""

    limit: int
    calls: int = 0


@dataclass(frozen=True)
class StageOptions:
    """What the stages are told by the settings."""

    default_deadline_s: float = 30.0
    slow_call_s: float = 1.0
    metrics: CallMetrics | None = None
    load: Load | None = None
    """None: without a bound."""


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
    stages = _Stages(method, options, is_stream=handler.request_streaming or handler.response_streaming)
    if handler.request_streaming and handler.response_streaming:
        behaviour, make = stages.stream_stream(handler.stream_stream), grpc.stream_stream_rpc_method_handler
    elif handler.request_streaming:
        behaviour, make = stages.stream_unary(handler.stream_unary), grpc.stream_unary_rpc_method_handler
    elif handler.response_streaming:
        behaviour, make = stages.unary_stream(handler.unary_stream), grpc.unary_stream_rpc_method_handler
    else:
        behaviour, make = stages.unary_unary(handler.unary_unary), grpc.unary_unary_rpc_method_handler
    serialize = handler.response_serializer
    if getattr(handler.unary_stream, "answers_in_bytes", False):
        serialize = _passing_bytes(serialize)
    return make(behaviour, request_deserializer=_lenient(handler.request_deserializer), response_serializer=serialize)


Method = TypeVar("Method", bound=Callable[..., Any])


def answers_in_bytes(method: Method) -> Method:
    """Decorates a method of a servicer that streams to one request: what it yields may be encoded already."""
    method.answers_in_bytes = True  # type: ignore[attr-defined]  # functions take any
    return method


def _passing_bytes(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda message: message if type(message) is bytes else serialize(message)


async def end_call(context: Context, error: TrademeshError) -> None:
    """Ends a call from outside of its handler, which is to be cancelled then. Returns when the client has taken all that was sent before."""
    with suppress(grpc.aio.AbortError):
        await context.abort_with_status(_WireStatus(status_of(error), new_request_id(), _pushback(error)))


class _Undecodable:
    """Stands for bytes that are not a message of the request's type."""


_UNDECODABLE = _Undecodable()


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer whose failure the stages see: gRPC would tell the client the exception's text, and nothing that it can act on."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNDECODABLE

    return read


class _Stages:
    """The stages of one method."""

    def __init__(self, method: str, options: StageOptions, *, is_stream: bool) -> None:
        self._method = method
        self._options = options
        self._load = options.load or Load(limit=2**62)
        name = method.rpartition("/")[2]
        self._always_logged = not name.startswith(READ_PREFIXES)
        self._is_stream = is_stream
        self._log = get_logger("rpc")
        self._has_constraints: bool | None = None
        """Of the request's type; known with the first request."""

    def unary_unary(self, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            allowed_s = context.time_remaining()
            scope, started = self._begin(context, self._options.default_deadline_s if allowed_s is None else allowed_s)
            try:
                self._validate(request, scope)
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
                response = await behaviour(self._validated(requests, scope), context)
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
                self._validate(request, scope)
                async for response in behaviour(request, context):
                    yield response
            except GeneratorExit:
                self._end(scope, started, _cancelled_code(scope))
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
                async for response in behaviour(self._validated(requests, scope), context):
                    yield response
            except GeneratorExit:
                self._end(scope, started, _cancelled_code(scope))
                raise
            except BaseException as error:
                await self._fail(error, scope, started, context)
                raise
            self._end(scope, started, "OK")

        return handle

    def _begin(self, context: Context, allowed_s: float | None) -> tuple[CallScope, float]:
        """Sets the scope of the call. Each RPC has a task of its own, so the variable needs no reset."""
        started = time.monotonic()
        self._load.calls += 1
        scope = CallScope(self._method, None if allowed_s is None else started + allowed_s, metadata=context.invocation_metadata)
        current_call.set(scope)
        if self._always_logged:
            # Where the log has a line of the call, its caller learns how to find it. Failures say so in any case; on the answers to reads
            # it would be 6 % of their throughput for nothing.
            context.set_trailing_metadata(((REQUEST_ID_KEY, scope.request_id),))
        return scope, started

    def _validate(self, request: Any, scope: CallScope) -> None:
        """Raises LimitReached, InvalidRequest."""
        if self._load.calls > self._load.limit:
            text = f"{self._load.limit} calls are in hand already: end streams that you do not need, or come back"
            raise LimitReached(text, limit="concurrent_calls", value=self._load.limit, retry_after_s=1.0)
        if request is _UNDECODABLE:
            raise InvalidRequest([FieldViolation("", f"the bytes sent are not the request message of {self._method}")])
        if self._has_constraints is None:
            self._has_constraints = isinstance(request, Message) and has_constraints(request.DESCRIPTOR)
        scope.run_id = getattr(request, "run_id", "")
        if self._has_constraints:
            check_request(request)

    async def _validated(self, requests: AsyncIterator[Any], scope: CallScope) -> AsyncIterator[Any]:
        async for request in requests:
            self._validate(request, scope)
            yield request

    async def _fail(self, error: BaseException, scope: CallScope, started: float, context: Context) -> None:
        """Ends the call with the status of an error; returns only if the error is not ours to translate."""
        if isinstance(error, grpc.aio.AbortError):
            self._end(scope, started, "ABORTED_BY_HANDLER")
            return
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._end(scope, started, _cancelled_code(scope))
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
            self._end(scope, started, "UNKNOWN")
            return
        self._end(scope, started, _code_name(status), status.message)
        await context.abort_with_status(_WireStatus(status, scope.request_id, _pushback(error)))

    def _end(self, scope: CallScope, started: float, code: str, message: str = "") -> None:
        self._load.calls -= 1
        seconds = time.monotonic() - started
        if self._options.metrics is not None:
            self._options.metrics.observe(self._method, code, None if self._is_stream else seconds)
        if code not in ("OK", "CANCELLED"):
            self._log.warning("call failed", code=code, reason=message, seconds=round(seconds, 4))
        elif self._always_logged or (seconds > self._options.slow_call_s and not self._is_stream):
            self._log.info("call", code=code, seconds=round(seconds, 4))


def _cancelled_code(scope: CallScope) -> str:
    remaining_s = scope.remaining_s()
    return "DEADLINE_EXCEEDED" if remaining_s is not None and remaining_s < _LATE_S else "CANCELLED"


def _code_name(status: status_pb2.Status) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == status.code)


def _pushback(error: BaseException) -> str:
    if isinstance(error, TrademeshError) and error.moved and error.retry_after_s is not None:
        return str(round(error.retry_after_s * 1000))
    return "-1"


class _WireStatus(grpc.Status):
    """A status whose trailing metadata carries the request id and the word on retries beside the details."""

    def __init__(self, status: status_pb2.Status, request_id: str, pushback_ms: str) -> None:
        plain: Any = rpc_status.to_status(status)
        self.code = plain.code
        self.details = plain.details
        self.trailing_metadata = (*plain.trailing_metadata, (REQUEST_ID_KEY, request_id), (RETRY_PUSHBACK_KEY, pushback_ms))
