"""The edge as a server: which paths there are, which pages may connect, and the orderly end. How many may is in `admission.py`.

GET /            the page
GET /healthz     200 once the edge serves
GET /v1/socket   the WebSocket, subprotocols `trademesh.v1+proto` and `trademesh.v1+json`
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import random
import socket
import sys
import termios
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response

from trademesh_edge.admission import LOCAL_HOSTS, Admission
from trademesh_edge.browser import close_in_time
from trademesh_edge.file_limit import BESIDES_SOCKETS, raise_file_limit
from trademesh_edge.formats import BINARY, FORMATS, JSON
from trademesh_edge.hub import Channels
from trademesh_edge.hubs import Hubs
from trademesh_edge.session import Mesh, Session
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.static_files import answer, file_answer, load_static_files
from trademesh_edge.upstream import Upstream
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.logs import get_logger

SOCKET_PATH = "/v1/socket"
BACKLOG = 1024
SEND_BUFFER_BYTES = 64 * 1024
"""Of a socket, in the kernel: without it a browser that stands still hides megabytes there."""
CLOSE_RESTART = 1012
CLOSED_AT_ONCE = 100
"""The edge that goes down closes sockets in groups of so many."""


class EdgeBindError(TrademeshError):
    """The address cannot be bound, or must not be."""


class _EdgeConnection(ServerConnection):
    """A socket that tells the admission when it comes and goes."""

    def __init__(self, admission: Admission, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._admission = admission

    @property
    def has_asked(self) -> bool:
        """True if its request is in."""
        return self.request is not None

    @property
    def waits_for_us(self) -> bool:
        """True if it has sent something that we have not read yet."""
        unread = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, bytes(4))
        return int.from_bytes(unread, sys.byteorder) > 0

    def cut(self) -> None:
        """Ends it without an answer."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._admission.knocked(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._admission.left(self)
        super().connection_lost(exc)


class EdgeServer:
    """The listener. `start`, then `stop`."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self._files = load_static_files()
        self._server: Server | None = None
        self._mesh: Mesh | None = None
        self._admission: Admission | None = None
        self._log = get_logger("edge")
        self.port = 0

    async def start(self) -> None:
        """Binds and serves.

        Raises:
            EdgeBindError: the address is taken, not ours, or open to others without credentials.
        """
        settings = self._settings
        if not settings.on_loopback and not settings.allow_insecure:
            raise EdgeBindError(
                f"{settings.edge_listen} can be reached from other machines and there are no credentials: "
                "bind 127.0.0.1, or set TRADEMESH_ALLOW_INSECURE=true if the network is trusted"
            )
        raise_file_limit(settings.edge_max_sockets + settings.edge_max_open_handshakes + BESIDES_SOCKETS)
        channels = Channels()
        upstream = Upstream(settings)
        self._mesh = Mesh(settings, upstream, Hubs(upstream, settings, channels), channels)
        admission = self._admission = Admission(settings, asyncio.get_running_loop().time)
        # Handshakes that fail are the browsers' faults: the library's own lines about them would let anyone fill our log.
        quiet = logging.getLogger("trademesh_edge.websockets")
        quiet.setLevel(logging.CRITICAL)
        self._server = await serve(
            self._handle,
            sock=_listener(settings.edge_listen),
            backlog=BACKLOG,
            subprotocols=[BINARY.subprotocol, JSON.subprotocol],
            process_request=self._process_request,
            compression=None,
            max_size=settings.edge_max_frame_bytes,
            max_queue=8,
            # Not above what makes a browser slow: lanes look only at those that are told to pause.
            write_limit=min(32 * 1024, settings.edge_slow_buffer_bytes),
            open_timeout=settings.edge_open_timeout_s,
            ping_interval=settings.edge_ping_interval_s,
            ping_timeout=settings.edge_ping_timeout_s,
            close_timeout=settings.edge_close_timeout_s,
            server_header=None,
            logger=quiet,
            create_connection=lambda *arguments, **options: _EdgeConnection(admission, *arguments, **options),  # type: ignore[arg-type]  # a factory does
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._log.info("listening", address=settings.edge_listen, port=self.port)

    @property
    def open_sockets(self) -> int:
        """How many browsers are connected."""
        return self._admission.sockets if self._admission is not None else 0

    async def stop(self) -> None:
        """Tells every browser when to come back, each another moment, and closes everything."""
        if self._server is None or self._mesh is None or self._admission is None:
            return
        self._server.close(close_connections=False)
        self._admission.cut_knocking()
        await self._send_everyone_away(list(self._server.connections))
        self._admission.cut_inside()
        await self._server.wait_closed()
        await self._mesh.hubs.close()
        await self._mesh.upstream.close()

    async def _send_everyone_away(self, connections: list[ServerConnection]) -> None:
        closing = list[asyncio.Task[None]]()
        for start in range(0, len(connections), CLOSED_AT_ONCE):
            for connection in connections[start : start + CLOSED_AT_ONCE]:
                retry_after_ms = random.randint(0, round(self._settings.edge_restart_spread_s * 1000))  # noqa: S311  # no secret
                closing.append(asyncio.create_task(self._send_away(connection, retry_after_ms)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*closing)

    async def _send_away(self, connection: ServerConnection, retry_after_ms: int) -> None:
        await close_in_time(connection, CLOSE_RESTART, f"retry_after_ms={retry_after_ms}", self._settings.edge_close_timeout_s)

    async def _handle(self, connection: ServerConnection) -> None:
        assert self._mesh is not None, "started"
        # Headers are of no more use, and an eighth of what an idle browser holds.
        for message in (connection.request, connection.response):
            if message is not None:
                message.headers.clear()
        await Session(connection, self._mesh).run()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers plain HTTP; None lets a WebSocket handshake go on."""
        assert self._admission is not None, "started"
        assert isinstance(connection, _EdgeConnection), "of our own making"
        self._admission.answered(connection)
        if not self._host_is_ours(request.headers):
            return answer(403, "Forbidden", b"unknown host: set TRADEMESH_EDGE_ORIGINS\n", Content_Type="text/plain")
        path = urlsplit(request.path).path
        if path == SOCKET_PATH:
            return self._refusal(connection, request.headers, self._admission)
        if path == "/healthz":
            return answer(200, "OK", b"ok\n", Content_Type="text/plain", Cache_Control="no-store")
        file = self._files.get(path)
        if file is None:
            return answer(404, "Not Found", b"not found\n", Content_Type="text/plain")
        return file_answer(file, request)

    def _refusal(self, connection: _EdgeConnection, headers: Headers, admission: Admission) -> Response | None:
        """Why a handshake may not go on, or None."""
        if not self._origin_is_ours(headers):
            return answer(403, "Forbidden", b"this origin may not connect: set TRADEMESH_EDGE_ORIGINS\n", Content_Type="text/plain")
        if not self._speaks_with_us(headers):
            return answer(400, "Bad Request", b"the subprotocol is trademesh.v1+proto or trademesh.v1+json\n", Content_Type="text/plain")
        why = admission.enter(connection, _address(connection))
        if why is not None:
            return answer(503, "Service Unavailable", f"{why}\n".encode(), Content_Type="text/plain", Retry_After="2")
        return None

    def _speaks_with_us(self, headers: Headers) -> bool:
        """True if one of our subprotocols is offered: who speaks another takes no place."""
        offered = {name.strip() for line in headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")}
        return not offered.isdisjoint(FORMATS)

    def _host_is_ours(self, headers: Headers) -> bool:
        """On loopback only local names are: another name that leads here is somebody's trick (DNS rebinding)."""
        host = _single(headers, "Host")
        if host is None:
            return False
        return not self._settings.on_loopback or _host_name(host) in LOCAL_HOSTS or self._is_listed(host)

    def _is_listed(self, host: str) -> bool:
        return any(urlsplit(origin).netloc == host.lower() for origin in self._settings.allowed_origins)

    def _origin_is_ours(self, headers: Headers) -> bool:
        """A page of ours, a listed one, or, on loopback, a program that is no browser."""
        if "Origin" not in headers:
            return self._settings.on_loopback
        origin, host = _single(headers, "Origin"), _single(headers, "Host")
        if origin is None or host is None:
            return False
        return urlsplit(origin).netloc.lower() == host.lower() or origin.rstrip("/").lower() in self._settings.allowed_origins


def _listener(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        listener.close()
        raise EdgeBindError(f"cannot bind {listen}: {error.strerror}") from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _single(headers: Headers, name: str) -> str | None:
    try:
        return headers.get(name)
    except MultipleValuesError:
        return None


def _host_name(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "").lower()


def _address(connection: ServerConnection) -> str:
    remote = connection.remote_address
    return str(remote[0]) if remote else "local"
