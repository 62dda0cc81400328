"""`python -m bench.broadcast_server FILE`: a bare `websockets` server that sends recorded frames to everyone at the times of the recording.

What the edge is held against: `broadcast()` over sockets with the edge's own settings, pings too, and nothing else. FILE is JSON: a list of [seconds since the first, hexadecimal frame]. Prints its
port; begins at each line of standard input, says `done` after the last frame, and ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from websockets.asyncio.server import ServerConnection, broadcast, serve


async def serve_frames(frames: list[tuple[float, bytes]]) -> None:
    """Serves until standard input ends."""

    async def handle(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(
        handle, "127.0.0.1", 0, compression=None, subprotocols=["trademesh.v1+proto"], ping_interval=10, ping_timeout=10
    ) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            began = time.perf_counter()
            for at, frame in frames:
                wait_s = began + at - time.perf_counter()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                broadcast(server.connections, frame)
            print("done", flush=True)


if __name__ == "__main__":
    recorded = json.loads(Path(sys.argv[1]).read_text())
    asyncio.run(serve_frames([(at, bytes.fromhex(frame)) for at, frame in recorded]))
