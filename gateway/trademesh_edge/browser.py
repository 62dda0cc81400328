"""What the rest of the edge may do with a browser's socket: send with back pressure, send at once, close it, and see how far behind it is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from google.protobuf.message import Message
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from trademesh.edge.v1 import frame_pb2
from trademesh_edge.formats import BINARY, Format

REASON_BYTES = 120
"""A close frame has no room for more."""


class BrowserGoneError(Exception):
    """The socket is closed, or was closed because the browser took in nothing."""


class Browser:
    """One socket, seen from the sending side."""

    __slots__ = ("_close_timeout_s", "_stall_timeout_s", "connection", "form")

    def __init__(self, connection: ServerConnection, stall_timeout_s: float, close_timeout_s: float = 2.0, form: Format = BINARY) -> None:
        self.connection = connection
        self.form = form
        self._stall_timeout_s = stall_timeout_s
        self._close_timeout_s = close_timeout_s

    @property
    def unsent_bytes(self) -> int:
        """What waits in our memory for this browser."""
        return self.connection.transport.get_write_buffer_size()

    async def send(self, frame: bytes) -> None:
        """Sends a frame and waits while the browser is behind.

        Raises:
            BrowserGoneError: the socket is closed, or too little was taken in for too long, and we closed it.
        """
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self.connection.send(frame, text=self.form.text)
        except TimeoutError:
            # The close frame stands behind what was not read: who reads again sees it, the others are cut off.
            await self.close(frame_pb2.CLOSE_CODE_SLOW, f"took in too little for {self._stall_timeout_s:g} s")
            raise BrowserGoneError("slow") from None
        except ConnectionClosed:
            raise BrowserGoneError("closed") from None

    async def send_message(self, channel: int, message_class: type[Message], payload: bytes) -> None:
        """Sends a message of a channel; as `send`."""
        await self.send(self.form.message(channel, message_class, payload))

    def send_now(self, frame: bytes) -> None:
        """Puts a frame into the socket's buffer, between two awaits of the caller. For small frames."""
        send_to_all((self,), frame, self.form)

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket with a code, or cuts it off if the browser does not take that in in time."""
        await close_in_time(self.connection, code, reason, self._close_timeout_s)


def send_to_all(browsers: Iterable[Browser], frame: bytes, form: Format) -> None:
    """Puts one frame into many sockets' buffers; it is encoded once. The caller leaves out browsers that are behind."""
    # As the library's `broadcast` does, which wraps the frame anew for each socket. What goes past its protocol object here is one whole,
    # unmasked message of an open socket without extensions; such a message leaves no trace there.
    message = Frame(Opcode.TEXT if form.text else Opcode.BINARY, frame).serialize(mask=False)
    for browser in browsers:
        connection = browser.connection
        if connection.protocol.state is State.OPEN:
            connection.transport.write(message)


async def close_in_time(connection: ServerConnection, code: int, reason: str, within_s: float) -> None:
    """Closes a socket with a code; cuts it off if the other side does not answer in time."""
    try:
        async with asyncio.timeout(within_s):
            await connection.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))
    except TimeoutError:
        connection.transport.abort()
