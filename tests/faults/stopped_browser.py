"""A browser in a process of its own, so that it can be stopped: prints the last sequence that it has, and at the end its close code."""

from __future__ import annotations

import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2

SUBSCRIBE = "/trademesh.gateway.v1.FeedService/Subscribe"


def main(port: str, run_id: str) -> None:
    """Follows a run until the socket is closed."""
    subprotocols = [Subprotocol("trademesh.v1+proto")]
    with connect(f"ws://127.0.0.1:{port}/v1/socket", subprotocols=subprotocols, compression=None, proxy=None, ping_interval=None) as socket:
        request = feed_service_pb2.SubscribeRequest(run_id=run_id, after_sequence=0).SerializeToString()
        socket.send(frame_pb2.EdgeFrame(hello=frame_pb2.Hello(client="stopped")).SerializeToString())
        socket.send(frame_pb2.EdgeFrame(call=frame_pb2.Call(id=1, method=SUBSCRIBE, request=request)).SerializeToString())
        try:
            while True:
                data = socket.recv()
                assert isinstance(data, bytes)
                payload = frame_pb2.EdgeFrame.FromString(data).message.payload
                last = feed_service_pb2.SubscribeResponse.FromString(payload).events.last_sequence
                if last:
                    print(last, flush=True)
        except ConnectionClosed as closed:
            print(closed.rcvd.code if closed.rcvd is not None else 1006, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
