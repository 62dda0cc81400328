"""`python -m paced_feed FOLDER EVENTS_PER_S`: a journal that grows at a pace, and its feed, in a process of their own that can be measured.

Prints its port and serves until its standard input ends. What a gateway adds to this, trading, is not there.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trademesh.gateway.v1 import event_pb2, feed_service_pb2, feed_service_pb2_grpc
from trademesh_kernel.logs import configure_logs
from trademesh_kernel.server import MeshServer, registration
from trademesh_kernel.settings import ServerSettings
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.journal import Draft
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter

RUN = "paced"
TICK_S = 0.01
HISTORY_EVENTS = 20_000
NOTE = "x" * 180


async def serve(folder: Path, events_per_s: float) -> None:
    """Serves until standard input ends."""
    path = folder / "journal.db"
    writer = SqliteWriter(path, RUN, 1, lambda group: feed.publish(group))
    feed = JournalFeed(RUN, SqliteReader(path), SqliteReader(path), finished=False)
    server = MeshServer(
        ServerSettings(),
        [
            registration(
                feed_service_pb2_grpc.add_FeedServiceServicer_to_server,
                FeedServicer(only_source(RUN, feed)),
                feed_service_pb2.DESCRIPTOR,
                "FeedService",
            )
        ],
        listen="127.0.0.1:0",
    )
    written = 0

    def write(through: int) -> None:
        nonlocal written
        for number in range(written, through):
            writer.append(Draft("pipeline_state_changed", event_pb2.PipelineStateChanged(reason=NOTE), item=str(number)))
        written = max(written, through)

    for part in range(1000, HISTORY_EVENTS + 1, 1000):
        write(part)
        await writer.flush()
    await server.start()
    print(server.port, flush=True)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    began = asyncio.get_running_loop().time()
    while not ended.done():
        write(HISTORY_EVENTS + int((asyncio.get_running_loop().time() - began) * events_per_s))
        await asyncio.wait({ended}, timeout=TICK_S)
    feed.drain()
    await server.stop(drain_delay_s=0.0, grace_s=0.5)
    await writer.close()
    feed.close()


@contextmanager
def paced_feed(folder: Path, events_per_s: float, environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Such a process for a while: its target and its process id."""
    command = [sys.executable, "-m", "paced_feed", str(folder), str(events_per_s)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None, "piped"
        assert process.stdout is not None, "piped"
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.stdin.close()
            process.wait(20)


if __name__ == "__main__":
    configure_logs("paced_feed", log_format="json", level="error")
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
