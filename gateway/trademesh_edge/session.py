"""One browser's socket: hello, calls, cancels, pings, within bounds. A fault of the protocol closes the socket with a code that says what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version

from google.rpc import status_pb2
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from trademesh.edge.v1 import frame_pb2
from trademesh_edge.browser import Browser, BrowserGoneError
from trademesh_edge.hub import Channels
from trademesh_edge.hubs import Hubs
from trademesh_edge.methods import ALLOWED_METHODS, SUBSCRIBE, AllowedMethod
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.subscriber import Subscriber, read_subscribe
from trademesh_edge.upstream import Upstream, stream, unary
from trademesh_edge.wire import BadFrameError, message_frame, opened_frame, pong_frame, read_frame, status_frame, welcome_frame
from trademesh_kernel.context import CallScope, current_call, new_request_id
from trademesh_kernel.errors import LimitReached, NotAllowed, TrademeshError
from trademesh_kernel.logs import get_logger
from trademesh_kernel.status import internal_status, status_of

CLOSE_PROTOCOL = 4400
"""The browser breaks the protocol: coming back does not help."""
CLOSE_RATE = 4429
"""Too many messages: come back later."""
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

    def __init__(self, connection: ServerConnection, mesh: Mesh) -> None:
        self._connection = connection
        self._mesh = mesh
        self._browser = Browser(connection, mesh.settings.edge_stall_timeout_s)
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._cancelled = set[asyncio.Task[None]]()
        self._allowance = _Allowance(mesh.settings.edge_max_messages_per_s, asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Serves the socket until it closes; ends every call that is open then."""
        try:
            await self._hello()
            async for data in self._connection:
                await self._take(self._frame(data))
        except _ProtocolError as error:
            await self._connection.close(error.code, error.reason)
        except (ConnectionClosed, BrowserGoneError):
            pass
        finally:
            calls = [*self._calls.values(), *self._cancelled]
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    def _frame(self, data: str | bytes) -> frame_pb2.EdgeFrame:
        if not self._allowance.take(asyncio.get_running_loop().time()):
            raise _ProtocolError(CLOSE_RATE, f"more than {self._mesh.settings.edge_max_messages_per_s:g} messages a second")
        if isinstance(data, str):
            raise _ProtocolError(CLOSE_PROTOCOL, "frames of this subprotocol are binary")
        try:
            return read_frame(data)
        except BadFrameError as error:
            raise _ProtocolError(CLOSE_PROTOCOL, str(error)) from None

    async def _hello(self) -> None:
        settings = self._mesh.settings
        try:
            async with asyncio.timeout(settings.edge_hello_timeout_s):
                frame = self._frame(await self._connection.recv())
        except TimeoutError:
            raise _ProtocolError(CLOSE_PROTOCOL, f"no hello within {settings.edge_hello_timeout_s:g} s") from None
        if frame.WhichOneof("kind") != "hello":
            raise _ProtocolError(CLOSE_PROTOCOL, "the first frame must be hello")
        await self._browser.send(welcome_frame(settings.edge_max_calls, settings.edge_max_frame_bytes, version("trademesh")))

    async def _take(self, frame: frame_pb2.EdgeFrame) -> None:
        kind = frame.WhichOneof("kind")
        if kind == "ping":
            await self._browser.send(pong_frame(frame.ping.nonce))
        elif kind == "cancel":
            # Its place is free at once, and the browser hears no more of it; what it holds is let go when the loop comes to it.
            call = self._calls.pop(frame.cancel.id, None)
            if call is not None:
                self._cancelled.add(call)
                call.add_done_callback(self._cancelled.discard)
                call.cancel()
        elif kind == "call":
            await self._begin(frame.call)
        else:
            raise _ProtocolError(CLOSE_PROTOCOL, "hello comes once")

    async def _begin(self, call: frame_pb2.Call) -> None:
        if call.id == 0 or call.id in self._calls:
            raise _ProtocolError(CLOSE_PROTOCOL, f"call id {call.id} is zero or in use")
        limit = self._mesh.settings.edge_max_calls
        if len(self._calls) >= limit:
            error = LimitReached(f"{limit} calls are open on this socket: end one first", limit="calls", value=limit)
            await self._browser.send(status_frame(call.id, status_of(error)))
            return
        task = self._calls[call.id] = asyncio.create_task(self._call(call))
        # However it ends: a task that is cancelled before its first step runs nothing of its own.
        task.add_done_callback(lambda done: self._free(call.id, done))

    def _free(self, call_id: int, task: asyncio.Task[None] | None) -> None:
        if self._calls.get(call_id) is task:
            del self._calls[call_id]

    async def _call(self, call: frame_pb2.Call) -> None:
        request_id = new_request_id()
        current_call.set(CallScope(call.method, None, request_id=request_id))
        status: status_pb2.Status | None = None
        try:
            method = ALLOWED_METHODS.get(call.method)
            if method is None:
                raise NotAllowed(f"{call.method} cannot be called from a browser", call.method)
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
            await self._browser.send(status_frame(call.id, status))
        except BrowserGoneError:
            return

    async def _answer(self, call: frame_pb2.Call, method: AllowedMethod) -> None:
        if method.name == SUBSCRIBE:
            request = read_subscribe(call.request)
            async with self._mesh.hubs.following(request.run_id) as hub:
                await Subscriber(call.id, request, hub, self._browser).run()
            return
        channel = self._mesh.channels.next()
        async with self._mesh.upstream.serving(method, call.request) as client:
            if method.server_streaming:
                await self._browser.send(opened_frame(call.id, channel))
                async for payload in stream(client, method.name, call.request):
                    await self._browser.send(message_frame(channel, payload))
            else:
                payload = await unary(client, method.name, call.request, self._mesh.settings.edge_unary_timeout_s)
                await self._browser.send(opened_frame(call.id, channel))
                await self._browser.send(message_frame(channel, payload))
