"""`python -m bench.soak_browsers PORT RUN_ID`: 200 clients of the edge that check every sequence, until the run's end. Prints what they saw as JSON.

160 follow, 20 close their socket after a few seconds and come back with their cursor, 20 read a frame at a time with pauses and come back whenever they
are cut off.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass

from edge_client import edge_client
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from trademesh.edge.v1 import frame_pb2
from trademesh.gateway.v1 import feed_service_pb2

STEADY, RECONNECTING, SLOW = 160, 20, 20
PAUSE_S = 0.6
SLOW_RECEIVE_BUFFER_BYTES = 16 * 1024


@dataclass
class Seen:
    """What all browsers saw."""

    events: int = 0
    gaps: int = 0
    duplicates: int = 0
    resumed: int = 0
    cut_off: int = 0
    unfinished: int = 0


class BrowserLike:
    """One client with its cursor."""

    def __init__(self, port: int, run_id: str, kind: str, seen: Seen) -> None:
        self._port = port
        self._run_id = run_id
        self._kind = kind
        self._seen = seen
        self._cursor = 0
        self._ended = False
        self._choice = random.Random()

    async def follow(self) -> None:
        """Follows the run to its end, however often the socket is lost."""
        while not self._ended:
            try:
                async with asyncio.timeout(self._choice.uniform(2, 8) if self._kind == "reconnecting" else None):
                    await self._once()
            except TimeoutError:
                self._seen.resumed += 1
            except (ConnectionClosed, OSError, InvalidHandshake, InvalidMessage):
                self._seen.resumed += 1
                self._seen.cut_off += self._kind == "slow"
                await asyncio.sleep(self._choice.uniform(0.2, 1))

    async def _once(self) -> None:
        async with edge_client(self._port, max_queue=2) as client:
            request = feed_service_pb2.SubscribeRequest(run_id=self._run_id, after_sequence=self._cursor)
            async for message in client.subscribe(request):
                if isinstance(message, frame_pb2.Status):
                    # Not the run's end, which is a message: the edge had to give up the call, and says when to come back.
                    await asyncio.sleep(message.retry_after_ms / 1000 or 0.5)
                    return
                kind = message.WhichOneof("kind")
                if kind == "events":
                    self._take(message.events)
                elif kind == "end" and message.end.reason == feed_service_pb2.STREAM_END_REASON_RUN_ENDED:
                    self._ended = True
                    return
                if self._kind == "slow":
                    await asyncio.sleep(PAUSE_S)

    def _take(self, batch: feed_service_pb2.EventBatch) -> None:
        sequences = [event.sequence for event in batch.events]
        expected = list(range(self._cursor + 1, batch.last_sequence + 1))
        self._seen.events += len(sequences)
        self._seen.duplicates += sum(sequence <= self._cursor for sequence in sequences) + len(sequences) - len(set(sequences))
        self._seen.gaps += len(set(expected) - set(sequences))
        self._cursor = max(self._cursor, batch.last_sequence)

    @property
    def ended(self) -> bool:
        """True once the run's end was heard of."""
        return self._ended


async def main(port: int, run_id: str) -> None:
    """All browsers, until they are through or our input has ended for a while."""
    seen = Seen()
    kinds = ["steady"] * STEADY + ["reconnecting"] * RECONNECTING + ["slow"] * SLOW
    browsers = [BrowserLike(port, run_id, kind, seen) for kind in kinds]
    tasks = [asyncio.create_task(browser.follow()) for browser in browsers]
    await asyncio.to_thread(sys.stdin.read)
    _, late = await asyncio.wait(tasks, timeout=100)
    for task in late:
        task.cancel()
    seen.unfinished = sum(not browser.ended for browser in browsers)
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            print(repr(task.exception()), file=sys.stderr)
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
