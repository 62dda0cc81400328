"""A client of the edge's socket, as plain as can be: what a browser does, without one."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2

SUBSCRIBE = "/trademesh.gateway.v1.FeedService/Subscribe"
BINARY = Subprotocol("trademesh.v1+proto")


class EdgeClient:
    """One socket after its welcome. One call at a time."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = itertools.count(1)
        self.welcome = frame_pb2.Welcome()
        self.last_sequence = 0
        """Of all feeds on this socket, how far the furthest has come."""
        self.channel = 0
        """Where the messages of the call in hand come."""
        self.source: list[frame_pb2.Upstream] = []
        """What was said of the feed's source."""

    async def receive(self) -> frame_pb2.EdgeFrame:
        """The next frame."""
        data = await self.connection.recv()
        assert isinstance(data, bytes)
        return frame_pb2.EdgeFrame.FromString(data)

    async def send(self, **kind: Any) -> None:
        """Sends a frame of this kind."""
        await self.connection.send(frame_pb2.EdgeFrame(**kind).SerializeToString())

    async def begin(self, method: str, request: bytes) -> int:
        """Begins a call and returns its id."""
        call_id = next(self._ids)
        await self.send(call=frame_pb2.Call(id=call_id, method=method, request=request))
        return call_id

    async def pace(self, call_id: int, **action: Any) -> None:
        """Sets the pace of a feed."""
        await self.send(pace=frame_pb2.Pace(id=call_id, **action))

    async def payloads(self, call_id: int) -> AsyncIterator[bytes | frame_pb2.Status]:
        """Messages of a call; its status comes last."""
        while True:
            frame = await self.receive()
            if frame.WhichOneof("kind") == "opened" and frame.opened.id == call_id:
                self.channel = frame.opened.channel
            elif frame.WhichOneof("kind") == "upstream" and frame.upstream.channel == self.channel:
                self.source.append(frame.upstream)
            elif frame.WhichOneof("kind") == "message" and frame.message.channel == self.channel:
                yield frame.message.payload
            elif frame.WhichOneof("kind") == "status" and frame.status.id == call_id:
                yield frame.status
                return

    async def unary(self, method: str, request: Any) -> tuple[bytes, frame_pb2.Status]:
        """A unary call."""
        payload = b""
        async for item in self.payloads(await self.begin(method, request.SerializeToString())):
            if isinstance(item, frame_pb2.Status):
                return payload, item
            payload = item
        raise AssertionError("no status")

    async def subscribe(
        self, request: feed_service_pb2.SubscribeRequest
    ) -> AsyncIterator[feed_service_pb2.SubscribeResponse | frame_pb2.Status]:
        """A feed."""
        async for item in self.messages(await self.begin(SUBSCRIBE, request.SerializeToString())):
            yield item

    async def messages(self, call_id: int) -> AsyncIterator[feed_service_pb2.SubscribeResponse | frame_pb2.Status]:
        """Messages of a feed that was begun."""
        async for item in self.payloads(call_id):
            if isinstance(item, frame_pb2.Status):
                yield item
                continue
            message = feed_service_pb2.SubscribeResponse.FromString(item)
            self.last_sequence = max(self.last_sequence, message.events.last_sequence)
            yield message


@asynccontextmanager
async def edge_client(port: int, *, token: str = "", **options: Any) -> AsyncIterator[EdgeClient]:
    """A socket that has said hello and was welcomed."""
    url = f"ws://127.0.0.1:{port}/v1/socket"
    async with connect(url, subprotocols=[BINARY], compression=None, max_size=None, proxy=None, **options) as connection:
        client = EdgeClient(connection)
        await client.send(hello=frame_pb2.Hello(client="test", token=token))
        frame = await client.receive()
        assert frame.WhichOneof("kind") == "welcome"
        client.welcome.CopyFrom(frame.welcome)
        yield client
