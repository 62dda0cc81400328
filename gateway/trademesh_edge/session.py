"""One browser's socket: hello, calls, cancels, pings, paces, within bounds. A fault of the protocol closes the socket with a code that says
what to do.
"""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass
from importlib.metadata import version

from google.rpc import status_pb2
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from trademesh.edge.v1 import frame_pb2
from trademesh_edge.browser import Browser, BrowserGoneError
from trademesh_edge.formats import BINARY, FORMATS, BadFrameError, Received
from trademesh_edge.hub import Channels
from trademesh_edge.hubs import Hubs
from trademesh_edge.methods import ALLOWED_METHODS, SUBSCRIBE, AllowedMethod, Destination
from trademesh_edge.pace import BadPaceError, Pace
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.subscriber import Subscriber, history_is_over
from trademesh_edge.upstream import FEED_RETRIES_S, Upstream, is_lost, stream, unary
from trademesh_edge.wire import read_subscribe
from trademesh_kernel.context import CallScope, current_call, new_request_id
from trademesh_kernel.errors import LimitReached, NotAllowed, TrademeshError
from trademesh_kernel.logs import get_logger
from trademesh_kernel.status import internal_status, status_of

VERSION = version("trademesh")
"""Read once: it stands in a file."""
BURST_S = 2.0

_log = get_logger("session")


@dataclass(frozen=True)
class Mesh:
    """What sessions share."""

    settings: EdgeSettings
    upstream: Upstream
    hubs: Hubs
    channels: Channels


class _ProtocolError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Allowance:
    """So many messages a second, with a burst; a token bucket."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s = per_s
        self._tokens = per_s * BURST_S
        self._at = now

    def take(self, now: float) -> bool:
        """False if there have been too many."""
        self._tokens = min(self._per_s * BURST_S, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        self._tokens -= 1
        return self._tokens >= 0


class Session:
    """A browser from its hello to its end."""

    __slots__ = ("__weakref__", "_allowance", "_browser", "_calls", "_cancelled", "_connection", "_form", "_mesh", "_paces")

    def __init__(self, connection: ServerConnection, mesh: Mesh) -> None:
        self._connection = connection
        self._mesh = mesh
        self._form = FORMATS.get(connection.subprotocol, BINARY)
        self._browser = Browser(connection, mesh.settings.edge_stall_timeout_s, mesh.settings.edge_close_timeout_s, self._form)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._paces: dict[int, Pace] = {}
        self._cancelled = set[asyncio.Task[None]]()
        self._allowance = _Allowance(mesh.settings.edge_max_messages_per_s, asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Serves the socket until it closes; ends every call that is open then."""
        try:
            await self._hello()
            async for data in self._connection:
                await self._take(self._frame(data))
        except _ProtocolError as error:
            await self._browser.close(error.code, error.reason)
        except (ConnectionClosed, BrowserGoneError):
            pass
        finally:
            calls = [*self._calls.values(), *self._cancelled]
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _frame(self, data: str | bytes) -> Received:
        if not self._allowance.take(asyncio.get_running_loop().time()):
            raise _ProtocolError(frame_pb2.CLOSE_CODE_RATE, f"more than {self._mesh.settings.edge_max_messages_per_s:g} messages a second")
        try:
            return self._form.read(data)
        except BadFrameError as error:
            raise _protocol_error(str(error)) from None

    async def _hello(self) -> None:
        settings = self._mesh.settings
        try:
            async with asyncio.timeout(settings.edge_hello_timeout_s):
                frame = self._frame(await self._connection.recv()).frame
        except TimeoutError:
            raise _ProtocolError(frame_pb2.CLOSE_CODE_UNAUTHENTICATED, f"no hello within {settings.edge_hello_timeout_s:g} s") from None
        if frame.WhichOneof("kind") != "hello":
            raise _protocol_error("the first frame must be hello")
        token = settings.edge_token.get_secret_value()
        if token and not hmac.compare_digest(frame.hello.token.encode(), token.encode()):
            raise _ProtocolError(frame_pb2.CLOSE_CODE_UNAUTHENTICATED, "the edge wants its token in hello")
        welcome = frame_pb2.Welcome(
            max_calls=settings.edge_max_calls,
            max_frame_bytes=settings.edge_max_frame_bytes,
            version=VERSION,
            heartbeat_s=settings.edge_checkpoint_interval_s,
            max_messages_per_s=settings.edge_max_messages_per_s,
        )
        await self._browser.send(self._form.frame(frame_pb2.EdgeFrame(welcome=welcome)))

    async def _take(self, received: Received) -> None:
        frame = received.frame
        kind = frame.WhichOneof("kind")
        if kind == "ping":
            await self._browser.send(self._form.frame(frame_pb2.EdgeFrame(pong=frame_pb2.Pong(nonce=frame.ping.nonce))))
        elif kind == "cancel":
            # Its place is free at once, and the browser hears no more of it; what it holds is let go when the loop comes to it.
            call = self._calls.pop(frame.cancel.id, None)
            self._paces.pop(frame.cancel.id, None)
            if call is not None:
                self._cancelled.add(call)
                call.add_done_callback(self._cancelled.discard)
                call.cancel()
        elif kind == "pace":
            self._set_pace(frame.pace)
        elif kind == "call":
            await self._begin(frame.call, received.refusal)
        else:
            raise _protocol_error("hello comes once")

    def _set_pace(self, frame: frame_pb2.Pace) -> None:
        """For a call that has just ended, or that is no feed, it means nothing."""
        pace = self._paces.get(frame.id)
        if pace is None:
            return
        try:
            pace.set(frame)
        except BadPaceError as error:
            raise _protocol_error(str(error)) from None

    async def _begin(self, call: frame_pb2.Call, refusal: TrademeshError | None) -> None:
        if call.id == 0 or call.id in self._calls:
            raise _protocol_error(f"call id {call.id} is zero or in use")
        limit = self._mesh.settings.edge_max_calls
        if len(self._calls) >= limit:
            error = LimitReached(f"{limit} calls are open on this socket: end one first", limit="calls", value=limit)
            await self._browser.send(self._form.status(call.id, status_of(error)))
            return
        if call.method == SUBSCRIBE:
            # Before the call's first step: a pace may be set at once.
            self._paces[call.id] = Pace()
        task = self._calls[call.id] = asyncio.create_task(self._call(call, refusal))
        # However it ends: a task that is cancelled before its first step runs nothing of its own.
        task.add_done_callback(lambda done: self._free(call.id, done))

    def _free(self, call_id: int, task: asyncio.Task[None] | None) -> None:
        if self._calls.get(call_id) is task:
            del self._calls[call_id]
            self._paces.pop(call_id, None)

    async def _call(self, call: frame_pb2.Call, refusal: TrademeshError | None) -> None:
        request_id = new_request_id()
        current_call.set(CallScope(call.method, None, request_id=request_id))
        status: status_pb2.Status | None = None
        try:
            method = ALLOWED_METHODS.get(call.method)
            if method is None:
                raise NotAllowed(f"{call.method} cannot be called from a browser", call.method)
            if refusal is not None:
                raise refusal
            await self._answer(call, method)
        except BrowserGoneError:
            return
        except TrademeshError as error:
            status = status_of(error)
        except Exception:
            _log.exception("call failed")
            status = internal_status(request_id)
        # The id is free before the browser hears so.
        self._free(call.id, asyncio.current_task())
        try:
            await self._browser.send(self._form.status(call.id, status))
        except BrowserGoneError:
            return

    async def _answer(self, call: frame_pb2.Call, method: AllowedMethod) -> None:
        if method.name == SUBSCRIBE:
            await self._follow(call, self._paces.get(call.id) or Pace())
            return
        channel = self._mesh.channels.next()
        opened = self._form.frame(frame_pb2.EdgeFrame(opened=frame_pb2.Opened(id=call.id, channel=channel)))
        if not method.server_streaming:
            payload = await self._unary(call, method)
            await self._browser.send(opened)
            await self._browser.send_message(channel, method.response_class, payload)
            return
        async with self._mesh.upstream.serving(method, call.request) as client:
            await self._browser.send(opened)
            async for payload in stream(client, method.name, call.request):
                await self._browser.send_message(channel, method.response_class, payload)

    async def _unary(self, call: frame_pb2.Call, method: AllowedMethod) -> bytes:
        """A run's feed moves when its gateway ends: who reads it is not told of that, but looks for it again."""
        upstream, timeout_s = self._mesh.upstream, self._mesh.settings.edge_unary_timeout_s
        for wait_s in (*FEED_RETRIES_S, None):
            try:
                async with upstream.serving(method, call.request) as client:
                    return await unary(client, method.name, call.request, timeout_s)
            except TrademeshError as error:
                if method.destination not in (Destination.RUN_FEED, Destination.RUN_GATEWAY) or not is_lost(error):
                    raise
                upstream.forget(method.run_id_of(call.request))
                if wait_s is None or method.destination is Destination.RUN_GATEWAY:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("the last round returns or raises")

    async def _follow(self, call: frame_pb2.Call, pace: Pace) -> None:
        """Follows a run; over the end of a journal too, if the browser wants a snapshot then."""
        request = read_subscribe(call.request)
        bridges = request.snapshot and request.HasField("after_sequence")
        while True:
            async with self._mesh.hubs.following(request.run_id) as hub:
                subscriber = Subscriber(call.id, request, hub, self._browser, pace)
                try:
                    await subscriber.run()
                    return
                except TrademeshError as error:
                    if not (bridges and hub.epoch and hub.failure is error and history_is_over(error)):
                        raise
                # The journal is in a new epoch: the next hub is of that, and tells the gap.
                request.after_sequence, request.epoch = subscriber.cursor, hub.epoch


def _protocol_error(reason: str) -> _ProtocolError:
    return _ProtocolError(frame_pb2.CLOSE_CODE_PROTOCOL, reason)
