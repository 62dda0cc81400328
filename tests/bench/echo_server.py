"""`python -m bench.echo_server bare|kernel MESSAGES`: one servicer on a bare grpc.aio server, or on the mesh's kernel.

It answers the feed's own calls with constants, so that what differs between the two is what the kernel adds to a call: request id,
deadline, validation, log and error stages. Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from trademesh.gateway.v1 import event_pb2, feed_service_pb2, feed_service_pb2_grpc, state_pb2
from trademesh_kernel.logs import configure_logs
from trademesh_kernel.server import MeshServer, registration
from trademesh_kernel.settings import ServerSettings


class EchoFeed(feed_service_pb2_grpc.FeedServiceServicer):
    """A feed that has its answers ready."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._state = feed_service_pb2.GetSnapshotResponse(state=state_pb2.ServerState(run_id="bench", as_of_sequence=1, nav_micros=10**12))
        event = event_pb2.Event(
            sequence=1,
            event_id="0a6a4f9c-6f1e-5a4e-8f0e-1d1f5a0c7b3e",
            session_date="2008-09-15",
            session_opened=event_pb2.SessionOpened(session_number=1),
        )
        self._batch = feed_service_pb2.SubscribeResponse(
            events=feed_service_pb2.EventBatch(epoch=1, first_sequence=1, last_sequence=1, events=[event])
        )

    async def GetSnapshot(self, request: feed_service_pb2.GetSnapshotRequest, context: Any) -> feed_service_pb2.GetSnapshotResponse:
        """The same state whatever is asked."""
        return self._state

    async def Subscribe(
        self, request: feed_service_pb2.SubscribeRequest, context: Any
    ) -> AsyncIterator[feed_service_pb2.SubscribeResponse]:
        """One event of about 100 bytes, many times."""
        for _ in range(self._messages):
            yield self._batch


async def serve(kind: str, messages: int) -> None:
    """Serves until standard input ends."""
    configure_logs("echo_server")
    feed = EchoFeed(messages)
    if kind == "kernel":
        registered = registration(feed_service_pb2_grpc.add_FeedServiceServicer_to_server, feed, feed_service_pb2.DESCRIPTOR, "FeedService")
        server = MeshServer(ServerSettings(), [registered], listen="127.0.0.1:0")
        await server.start()
        port = server.port
    else:
        bare = grpc.aio.server()
        feed_service_pb2_grpc.add_FeedServiceServicer_to_server(feed, bare)  # type: ignore[no-untyped-call]  # as generated
        port = bare.add_insecure_port("127.0.0.1:0")
        await bare.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
