"""`python -m bench.replay_server FILE`: a bare grpc.aio server that streams messages it has in memory, whatever is asked.

What a feed is held against: no journal, no decoding, no encoding. Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc


async def serve(messages: list[bytes]) -> None:
    """Serves until standard input ends."""

    async def subscribe(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    handler = grpc.method_handlers_generic_handler(
        "trademesh.gateway.v1.FeedService", {"Subscribe": grpc.unary_stream_rpc_method_handler(subscribe)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve([bytes.fromhex(text) for text in json.loads(Path(sys.argv[1]).read_text())]))
