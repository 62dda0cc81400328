"""Faults of readers of the feed and of what they ask for. Real gRPC; what is measured has a process of its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

import grpc
import psutil
import pytest
from fault_timers import FULL
from paced_feed import RUN, paced_feed

from conftest import StartServer
from random_journals import Session, drafts_of
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import RemoteError
from trademesh_kernel.server import registration
from trademesh_runs.compaction import compact
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteStore
from waiting import until

pytestmark = pytest.mark.timeout(120)

SLOW_AFTER_S = 60.0 if FULL else 3.0
STALLED_READERS = 20
STALLED_KIB = 256
SUBSCRIBERS = 200
EVENTS_PER_S = 1000


class Served:
    """A journal and its feed behind a server."""

    def __init__(self, path: Path) -> None:
        self._store = SqliteStore(path)
        self.writer = self._store.writer(RUN, 1, lambda group: self.feed.publish(group))
        self.feed = JournalFeed(RUN, self._store.reader(), self._store.reader(), finished=False)
        self._sessions = 0

    async def write(self, through_session: int) -> None:
        """Two events for the run, three for each session: the last of a session settles it."""
        drafts = drafts_of([Session()] * through_session)
        for draft in drafts[2 + 3 * self._sessions if self._sessions else 0 :]:
            self.writer.append(draft)
        await self.writer.flush()
        self._sessions = through_session

    async def compact(self, through: int) -> None:
        """In place. Nobody does so to a live run, but for a reader it is the worst that can happen."""
        done = await asyncio.to_thread(compact, RUN, self._store, through)
        assert done.compacted_through == through
        self.feed.compacted(through)


@asynccontextmanager
async def served(start_server: StartServer, folder: Path) -> AsyncIterator[tuple[Served, ServiceClient]]:
    found = Served(folder / "journal.db")
    server = await start_server(
        [
            registration(
                feed_service_pb2_grpc.add_FeedServiceServicer_to_server,
                FeedServicer(only_source(RUN, found.feed)),
                feed.DESCRIPTOR,
                "FeedService",
            )
        ]
    )
    async with ServiceClient(server.target, "feed") as client:
        yield found, client
    found.feed.drain()
    await found.writer.close()
    found.feed.close()


def subscribe(client: ServiceClient, **fields: Any) -> AsyncIterator[feed.SubscribeResponse]:
    request = feed.SubscribeRequest(**{"run_id": RUN, **fields})
    return client.stream(client.stub(feed_service_pb2_grpc.FeedServiceStub).Subscribe, request, idle_timeout_s=20)


async def test_f1_to_f4_what_a_feed_cannot_tell_is_refused_at_once_and_the_connection_stays(
    start_server: StartServer, tmp_path: Path
) -> None:
    async with served(start_server, tmp_path) as (journal, client):
        await journal.write(16)
        assert journal.feed.head.sequence == 50
        await journal.compact(20)
        for row, fields, code, reason in (
            ("F1", {"after_sequence": 51}, grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_AHEAD"),
            ("F2", {"after_sequence": 19}, grpc.StatusCode.OUT_OF_RANGE, "HISTORY_COMPACTED"),
            ("F3", {"after_sequence": 30, "epoch": 2}, grpc.StatusCode.ABORTED, "EPOCH_CHANGED"),
            ("F4", {"run_id": "nobody"}, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND"),
        ):
            # The quickest of three: the others tell how busy the machine is.
            took_s = 1e9
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(RemoteError) as refused:
                    await anext(subscribe(client, **fields))
                took_s = min(took_s, time.monotonic() - began)
            assert (refused.value.remote_code, refused.value.remote_reason) == (code, reason), row
            assert took_s <= 0.1, f"{row} was refused after {took_s * 1000:.0f} ms"
            assert client.channel.get_state() is grpc.ChannelConnectivity.READY
        message = await anext(subscribe(client, after_sequence=20))
        assert (message.events.first_sequence, message.events.last_sequence) == (21, 50)


async def test_j7_compaction_under_a_reader_is_a_gap_and_a_snapshot_and_from_there_on_gapless(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trademesh_runs.journal_feed.RING_EVENTS", 64)
    async with served(start_server, tmp_path) as (journal, client):
        await journal.write(6_666)
        stream = subscribe(client, after_sequence=0, snapshot=True)
        message = await anext(stream)
        cursor = message.events.last_sequence
        assert message.events.first_sequence == 1
        await journal.compact(19_991)
        began = time.monotonic()
        async for message in stream:
            if message.HasField("gap"):
                break
            # Batches that were on their way.
            assert message.events.first_sequence == cursor + 1
            cursor = message.events.last_sequence
        took_s = time.monotonic() - began
        assert (message.gap.reason, message.gap.compacted_through) == (feed.GAP_REASON_COMPACTED, 19_991)
        assert took_s < 1.0, f"the gap was told after {took_s:.2f} s"
        state = (await anext(stream)).snapshot
        cursor = state.as_of_sequence
        assert (cursor, state.pipeline.sessions_settled, len(state.equity)) == (20_000, 6_666, 6_666)
        for more in range(1, 21):
            await journal.write(6_666 + 2 * more)
        while cursor < 20_120:
            message = await anext(stream)
            assert message.events.first_sequence == cursor + 1
            cursor = message.events.last_sequence


async def _latencies(target: str, count: int) -> list[float]:
    """Milliseconds from the recording of so many new events to their arrival."""
    found = list[float]()
    async with ServiceClient(target, "feed") as client:
        async for message in subscribe(client):
            now = time.time()
            found += [1000 * (now - event.recorded_at.ToNanoseconds() / 1e9) for event in message.events.events]
            if len(found) >= count:
                return found
    raise AssertionError("the feed ended")


def _p99(latencies: list[float]) -> float:
    return quantiles(latencies, n=100)[98]


async def test_f5_a_reader_that_never_reads_holds_little_delays_nobody_and_is_sent_away(tmp_path: Path) -> None:
    environment = {**os.environ, "TRADEMESH_FEED_SLOW_AFTER_S": str(SLOW_AFTER_S)}
    with paced_feed(tmp_path, 200, environment) as (target, pid):
        server = psutil.Process(pid)
        calm = _p99(await _latencies(target, 400))
        before = server.memory_info().rss
        clients = [ServiceClient(target, "feed") for _ in range(STALLED_READERS)]
        began = time.monotonic()
        calls = [
            client.stub(feed_service_pb2_grpc.FeedServiceStub).Subscribe(feed.SubscribeRequest(run_id=RUN, after_sequence=0))
            for client in clients
        ]
        others = asyncio.create_task(_latencies(target, 400))
        await until(lambda: time.monotonic() - began > 1.5 * SLOW_AFTER_S, 3 * SLOW_AFTER_S)
        each_kib = (server.memory_info().rss - before) / 1024 / STALLED_READERS
        # The first reads again while it can still be told; the others are too late.
        cursor = 0
        async for message in calls[0]:
            if message.HasField("end"):
                assert message.end.reason == feed.STREAM_END_REASON_SLOW
                assert message.end.resume_after_sequence == cursor
                break
            cursor = message.events.last_sequence
        else:
            raise AssertionError("the slow reader was not told")
        beside = _p99(await others)
        await until(lambda: time.monotonic() - began > 2 * SLOW_AFTER_S + 2, 3 * SLOW_AFTER_S + 10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in calls[1]:
                pass
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call, client in zip(calls, clients, strict=True):
            call.cancel()
            await client.close()
    assert each_kib <= STALLED_KIB, f"each reader that stands still holds {each_kib:.0f} KiB"
    assert beside <= 2 * calm + 50, f"p99 of others was {calm:.1f} ms and is {beside:.1f} ms beside them"


async def _follow(client: ServiceClient, after: int | None, through: int) -> int:
    """Reads to a sequence; how many events there were. Asserts that each came once."""
    cursor, count = after, 0
    fields = {} if after is None else {"after_sequence": after}
    async for message in subscribe(client, **fields):
        for event in message.events.events:
            assert cursor is None or event.sequence == cursor + 1, f"{event.sequence} came after {cursor}"
            cursor = event.sequence
            count += 1
        if cursor is not None and cursor >= through:
            return count
    raise AssertionError("the feed ended")


async def test_f6_whoever_comes_while_a_thousand_events_a_second_happen_misses_none_and_gets_none_twice(tmp_path: Path) -> None:
    with paced_feed(tmp_path, EVENTS_PER_S, dict(os.environ)) as (target, _pid):
        async with ServiceClient(target, "feed") as client:
            stub = client.stub(feed_service_pb2_grpc.FeedServiceStub)
            began = time.monotonic()
            readers = list[asyncio.Task[int]]()
            for number in range(SUBSCRIBERS):
                page = await client.call(stub.ListEvents, feed.ListEventsRequest(run_id=RUN, page_size=1, newest_first=True))
                # A place in history, just before the head, or wherever the head is.
                after = [max(0, page.head_sequence - 97 * number), max(0, page.head_sequence - number), None][number % 3]
                readers.append(asyncio.create_task(_follow(client, after, page.head_sequence + 2 * EVENTS_PER_S)))
            async with asyncio.timeout(60):
                counts = await asyncio.gather(*readers)
            took_s = time.monotonic() - began
    assert min(counts) > EVENTS_PER_S, f"{min(counts)} events"
    assert took_s < 30, f"{sum(counts):,} events to {SUBSCRIBERS} readers in {took_s:.1f} s"
