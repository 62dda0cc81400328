"""A relay between two servers, which can reset its connections: a reset as the network makes it, not an orderly end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    """Passes bytes on, both ways."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers = set[asyncio.StreamWriter]()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        ours = {writer, up_writer}
        self._writers |= ours
        try:
            await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
        finally:
            self._writers -= ours
            for one in ours:
                one.transport.abort()

    def reset(self) -> int:
        """Resets every connection; returns how many."""
        # One that is being closed has no socket any more.
        living = [writer for writer in self._writers if not writer.transport.is_closing()]
        for writer in living:
            found = writer.get_extra_info("socket")
            # Nothing is sent after this but RST.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return (len(living) + 1) // 2


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def relay(target_port: int) -> AsyncIterator[Relay]:
    """A relay to a port of this machine."""
    found = Relay(target_port)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        found.reset()
        await server.wait_closed()
