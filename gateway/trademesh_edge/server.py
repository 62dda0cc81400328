"""The edge as a server: who may connect and how many, which paths there are, and the orderly end.

GET /            the page
GET /healthz     200 once the edge serves
GET /v1/socket   the WebSocket, subprotocol `trademesh.v1+proto`
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter, deque
from urllib.parse import urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from trademesh_edge.hub import Channels
from trademesh_edge.hubs import Hubs
from trademesh_edge.session import Mesh, Session
from trademesh_edge.settings import EdgeSettings
from trademesh_edge.static_files import answer, file_answer, load_static_files
from trademesh_edge.upstream import Upstream
from trademesh_kernel.errors import TrademeshError
from trademesh_kernel.logs import get_logger

SOCKET_PATH = "/v1/socket"
SUBPROTOCOL = Subprotocol("trademesh.v1+proto")
RETRY_AFTER_MS = 1_000
SEND_BUFFER_BYTES = 64 * 1024
"""Of a socket, in the kernel: without it a browser that stands still hides megabytes there."""
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class EdgeBindError(TrademeshError):
    """The address cannot be bound, or must not be."""


class EdgeServer:
    """The listener. `start`, then `stop`."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self._files = load_static_files()
        self._sockets: Counter[str] = Counter()
        self._handshakes: deque[float] = deque()
        self._server: Server | None = None
        self._mesh: Mesh | None = None
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
        channels = Channels()
        upstream = Upstream(settings)
        self._mesh = Mesh(settings, upstream, Hubs(upstream, settings, channels), channels)
        # Handshakes that fail are the browsers' faults: the library's own lines about them would let anyone fill our log.
        quiet = logging.getLogger("trademesh_edge.websockets")
        quiet.setLevel(logging.CRITICAL)
        self._server = await serve(
            self._handle,
            sock=_listener(settings.edge_listen),
            subprotocols=[SUBPROTOCOL],
            process_request=self._process_request,
            compression=None,
            max_size=settings.edge_max_frame_bytes,
            max_queue=8,
            write_limit=32 * 1024,
            open_timeout=5,
            ping_interval=10,
            ping_timeout=10,
            close_timeout=2,
            server_header=None,
            logger=quiet,
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._log.info("listening", address=settings.edge_listen, port=self.port)

    @property
    def open_sockets(self) -> int:
        """How many browsers are connected."""
        return self._sockets.total()

    async def stop(self) -> None:
        """Tells every browser to come back in a moment, and closes everything."""
        if self._server is None or self._mesh is None:
            return
        self._server.close(code=1012, reason=f"retry_after_ms={RETRY_AFTER_MS}")
        await self._server.wait_closed()
        await self._mesh.hubs.close()
        await self._mesh.upstream.close()

    async def _handle(self, connection: ServerConnection) -> None:
        assert self._mesh is not None, "started"
        address = _address(connection)
        self._sockets[address] += 1
        try:
            await Session(connection, self._mesh).run()
        finally:
            self._sockets[address] -= 1
            if not self._sockets[address]:
                del self._sockets[address]

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers plain HTTP; None lets a WebSocket handshake go on."""
        if not self._host_is_ours(request.headers):
            return answer(403, "Forbidden", b"unknown host: set TRADEMESH_EDGE_ORIGINS\n", Content_Type="text/plain")
        path = urlsplit(request.path).path
        if path == SOCKET_PATH:
            return self._refusal(connection, request.headers)
        if path == "/healthz":
            return answer(200, "OK", b"ok\n", Content_Type="text/plain", Cache_Control="no-store")
        file = self._files.get(path)
        if file is None:
            return answer(404, "Not Found", b"not found\n", Content_Type="text/plain")
        return file_answer(file, request)

    def _refusal(self, connection: ServerConnection, headers: Headers) -> Response | None:
        """Why a handshake may not go on, or None."""
        settings = self._settings
        if not self._origin_is_ours(headers):
            return answer(403, "Forbidden", b"this origin may not connect: set TRADEMESH_EDGE_ORIGINS\n", Content_Type="text/plain")
        now = asyncio.get_running_loop().time()
        while self._handshakes and self._handshakes[0] < now - 1:
            self._handshakes.popleft()
        address = _address(connection)
        crowded = not _is_local(address) and self._sockets[address] >= settings.edge_max_sockets_per_address
        full = self._sockets.total() >= settings.edge_max_sockets or len(self._handshakes) >= settings.edge_max_handshakes_per_s
        if crowded or full:
            return answer(503, "Service Unavailable", b"too many sockets: try again later\n", Content_Type="text/plain", Retry_After="2")
        self._handshakes.append(now)
        return None

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
    listener.listen(1024)
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


def _is_local(address: str) -> bool:
    return address in LOCAL_HOSTS or address.startswith("127.") or address == "local"
