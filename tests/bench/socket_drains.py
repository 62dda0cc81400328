"""`python -m bench.socket_drains PORT COUNT RUN_ID MODE`: WebSocket clients that take in bytes and look at none of them.

MODE is `drain` (reads all), `stall` (reads the welcome and then nothing) or `bare` (no hello: for a server that just sends). They exist so that
a measurement is of the server: a client that parses costs more than what it is sent. Says `ready` when all are connected, then serves until
its standard input ends, and says how many bytes each took in on average.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import time

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2

_HANDSHAKE = (
    "GET /v1/socket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: trademesh.v1+proto\r\n\r\n"
)
RECEIVE_BUFFER_BYTES = 64 * 1024
PING_OPCODE = 9


def masked(payload: bytes, opcode: int = 2) -> bytes:
    """A client's frame with a mask of zeros, which leaves the payload as it is."""
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        return head + bytes([0x80 | len(payload)]) + bytes(4) + payload
    return head + bytes([0x80 | 126]) + len(payload).to_bytes(2, "big") + bytes(4) + payload


class Drain:
    """One client."""

    def __init__(self, port: int, run_id: str, mode: str) -> None:
        self.socket = socket.socket()
        if mode == "stall":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.socket.settimeout(30)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(_HANDSHAKE.format(port=port).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(1)
        assert b" 101 " in answer, answer
        if mode != "bare":
            self._send(frame_pb2.EdgeFrame(hello=frame_pb2.Hello(client="drain")))
            self.socket.recv(65536)
            request = feed_service_pb2.SubscribeRequest(run_id=run_id).SerializeToString()
            method = "/trademesh.gateway.v1.FeedService/Subscribe"
            self._send(frame_pb2.EdgeFrame(call=frame_pb2.Call(id=1, method=method, request=request)))
        self.bytes = 0

    def _send(self, frame: frame_pb2.EdgeFrame) -> None:
        self.socket.sendall(masked(frame.SerializeToString()))

    def take(self, buffer: bytearray) -> bool:
        """Takes in what is there; answers a ping that stands at the end. False at the end."""
        count = self.socket.recv_into(buffer)
        self.bytes += count
        # A server without other news sends pings alone, so that the first byte of what comes tells.
        if count and buffer[0] == 0x80 | PING_OPCODE:
            self.socket.sendall(masked(bytes(buffer[2 : 2 + (buffer[1] & 0x7F)]), opcode=10))
        return count > 0


def main() -> None:
    """Connects, says so, and drains."""
    port, count, run_id, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    selector = selectors.DefaultSelector()
    drains = list[Drain]()
    for _ in range(count):
        drain = Drain(port, run_id, mode)
        drains.append(drain)
        if mode != "stall":
            selector.register(drain.socket, selectors.EVENT_READ, drain)
        time.sleep(0.006)
    print("ready", flush=True)
    threading.Thread(target=_leave_at_end_of_input, args=(drains,), daemon=True).start()
    buffer = bytearray(262144)
    while True:
        # In blocks: one system call for each frame would cost more than the server's.
        time.sleep(0.01)
        for key, _ in selector.select(1.0):
            if not key.data.take(buffer):
                selector.unregister(key.fileobj)


def _leave_at_end_of_input(drains: list[Drain]) -> None:
    sys.stdin.read()
    print(sum(drain.bytes for drain in drains) // max(1, len(drains)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
