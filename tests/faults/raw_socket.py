"""WebSockets by hand: for what a library would not send, and for a thousand of them at little cost."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress

TEXT, BINARY, CLOSE = 1, 2, 8
HANDSHAKE = (
    "GET /v1/socket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {subprotocol}\r\n{more}\r\n"
)


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame of a client's."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return _head(opcode, len(payload), 0x80) + mask + body


def unmasked(opcode: int, payload: bytes) -> bytes:
    """A frame that a client must not send."""
    return _head(opcode, len(payload), 0) + payload


def _head(opcode: int, length: int, mask_bit: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, mask_bit | length)
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, mask_bit | 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, mask_bit | 127, length)


class RawSocket:
    """A connection to the edge, after its handshake was sent. `status` is what the edge answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0

    @classmethod
    async def open(
        cls, port: int, *first: bytes, subprotocol: str = "trademesh.v1+proto", more: str = "", receive_buffer_bytes: int = 0
    ) -> RawSocket:
        """Connects, sends the handshake and these frames, and reads the answer's head."""
        found = socket.socket()
        if receive_buffer_bytes:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        found.setblocking(False)
        await asyncio.get_running_loop().sock_connect(found, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=found, limit=4096 if receive_buffer_bytes else 2**16)
        opened = cls(reader, writer)
        writer.write(HANDSHAKE.format(subprotocol=subprotocol, more=more).encode() + b"".join(first))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except BaseException:
            await opened.abandon()
            raise
        opened.status = int(head.split(b" ", 2)[1])
        return opened

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the edge; raises IncompleteReadError or ConnectionError if the connection ends."""
        first, second = await self.reader.readexactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """Reads to the close frame; 1006 if the connection ends without one."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                opcode, payload = await self.frame()
                if opcode == CLOSE:
                    return int(struct.unpack("!H", payload[:2])[0])
        return 1006

    async def abandon(self) -> None:
        """Drops the connection."""
        await dropped(self.writer)


async def dropped(writer: asyncio.StreamWriter) -> None:
    """Drops a connection, and waits until it is gone."""
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()
