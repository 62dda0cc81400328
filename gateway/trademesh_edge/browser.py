"""What the rest of the edge may do with a browser's socket: send with back pressure, send at once, and see how far behind it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed


class BrowserGoneError(Exception):
    """The socket is closed, or was closed because the browser took in nothing."""


class Browser:
    """One socket, seen from the sending side."""

    def __init__(self, connection: ServerConnection, stall_timeout_s: float) -> None:
        self.connection = connection
        self._stall_timeout_s = stall_timeout_s

    @property
    def unsent_bytes(self) -> int:
        """What waits in our memory for this browser."""
        return self.connection.transport.get_write_buffer_size()

    async def send(self, frame: bytes) -> None:
        """Sends a frame and waits while the browser is behind.

        Raises:
            BrowserGoneError: the socket is closed, or nothing was taken in for too long, and we closed it.
        """
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self.connection.send(frame)
        except TimeoutError:
            # A closing handshake would wait behind what the browser does not read.
            self.connection.transport.abort()
            raise BrowserGoneError(f"took in nothing for {self._stall_timeout_s:g} s") from None
        except ConnectionClosed:
            raise BrowserGoneError("closed") from None

    def send_now(self, frame: bytes) -> None:
        """Puts a frame into the socket's buffer, between two awaits of the caller. For small frames."""
        broadcast((self.connection,), frame)


def send_to_all(browsers: Iterable[Browser], frame: bytes) -> None:
    """Puts one frame into many sockets' buffers; it is encoded once. The caller leaves out browsers that are behind."""
    broadcast([browser.connection for browser in browsers], frame)
