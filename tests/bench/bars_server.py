"""`python -m bench.bars_server recorded SETS | ready SET FIRST LAST`: MarketDataService with its store, or one block of it, ready, again and again.

The second is what a stream of such messages costs by itself: the same bytes, made once, over a bare grpc.aio server. Prints its port and serves
until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from trademesh.trading.v1 import market_data_service_pb2 as messages
from trademesh.trading.v1 import market_data_service_pb2_grpc
from trademesh_kernel.logs import configure_logs
from trademesh_kernel.server import MeshServer, registration
from trademesh_kernel.settings import ServerSettings
from trademesh_trading import wire
from trademesh_trading.market_data_service import MarketDataServicer
from trademesh_trading.packed_columns import sessions_of_block
from trademesh_trading.store import MarketStore

ALWAYS = 2**40


class ReadyBars:
    """Answers StreamBars with as many blocks as the set would have, all of them the first."""

    def __init__(self, set_name: str) -> None:
        data = MarketStore().get(set_name)
        columns = range(len(data.instruments))
        size = sessions_of_block(len(columns))
        self._block = wire.BlockResponses(data, columns, ALWAYS).response(range(size))
        self._blocks = len(data.sessions) // size

    async def stream(self, _request: messages.StreamBarsRequest, _context: Any) -> AsyncIterator[bytes]:
        """The block, as bytes."""
        for _ in range(self._blocks):
            yield self._block


async def serve(kind: str, what: str) -> None:
    """Serves until standard input ends."""
    configure_logs("bars_server")
    if kind == "recorded":
        registered = registration(
            market_data_service_pb2_grpc.add_MarketDataServiceServicer_to_server,
            MarketDataServicer(MarketStore(Path(what))),
            messages.DESCRIPTOR,
            "MarketDataService",
        )
        server = MeshServer(ServerSettings(), [registered], listen="127.0.0.1:0")
        await server.start()
        port = server.port
    else:
        bare = grpc.aio.server()
        handler = grpc.unary_stream_rpc_method_handler(
            ReadyBars(what).stream, request_deserializer=messages.StreamBarsRequest.FromString, response_serializer=None
        )
        service = grpc.method_handlers_generic_handler("trademesh.trading.v1.MarketDataService", {"StreamBars": handler})
        bare.add_generic_rpc_handlers((service,))
        port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
