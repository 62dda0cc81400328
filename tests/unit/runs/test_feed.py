"""The feed of a journal: whoever reads, from wherever, however fast, gets every event once and in order."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh_kernel.errors import EpochChanged, SequenceAhead
from trademesh_runs import journal_feed
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.journal import Draft, StoredEvent
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter

LAST = 600


def told(message: Any) -> feed_service_pb2.SubscribeResponse:
    """A message of a stream, whether it was encoded already or not."""
    return feed_service_pb2.SubscribeResponse.FromString(message) if isinstance(message, bytes) else message


class Live:
    """A journal that is written while it is read."""

    def __init__(self, path: Path) -> None:
        self.writer = SqliteWriter(path, "demo", 1, self._published)
        self.feed = JournalFeed("demo", SqliteReader(path), SqliteReader(path), finished=False)
        self.servicer = FeedServicer(only_source("demo", self.feed))
        self._number = 0

    def _published(self, group: list[StoredEvent]) -> None:
        self.feed.publish(group)

    def write(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            kind = "session_opened" if self._number % 3 else "settled"
            payload = event_pb2.SessionOpened() if self._number % 3 else event_pb2.Settled()
            self.writer.append(Draft(kind, payload, agent_id="ann" if self._number % 2 else "", item=str(self._number)))

    async def close(self) -> None:
        self.feed.end()
        await self.writer.close()
        self.feed.close()


@pytest.fixture
def small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few events in memory that most readers need the journal."""
    monkeypatch.setattr(journal_feed, "RING_EVENTS", 16)
    monkeypatch.setattr(journal_feed, "BATCH_EVENTS", 7)


async def read(live: Live, request: feed_service_pb2.SubscribeRequest, chance: random.Random) -> list[int]:
    """Sequences of a stream to its end; asserts that spans join."""
    seen, through = list[int](), request.after_sequence if request.HasField("after_sequence") else None
    async for sent in live.servicer.Subscribe(request, None):  # type: ignore[arg-type]  # the context is not looked at
        message = told(sent)
        if message.HasField("events"):
            assert through is None or message.events.first_sequence == through + 1
            through = message.events.last_sequence
            seen += [event.sequence for event in message.events.events]
            for _ in range(chance.choice([0, 0, 1, 20])):
                await asyncio.sleep(0)
        if message.HasField("end"):
            assert message.end.reason == feed_service_pb2.STREAM_END_REASON_RUN_ENDED
            return seen
    raise AssertionError("no end")


@pytest.mark.usefixtures("small_ring")
@pytest.mark.parametrize("seed", range(5))
async def test_readers_of_any_start_and_pace_get_every_event_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    live = Live(tmp_path / "j.db")
    readers = list[tuple[int, asyncio.Task[list[int]]]]()
    written = 0
    while written < LAST:
        count = min(LAST - written, chance.randint(1, 60))
        live.write(count)
        written += count
        if chance.random() < 0.7:
            await live.writer.flush()
        after = chance.randint(0, live.feed.head.sequence)
        request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=after)
        readers.append((after, asyncio.create_task(read(live, request, random.Random(written)))))
    await live.writer.flush()
    live.feed.end()
    async with asyncio.timeout(30):
        for after, reader in readers:
            assert await reader == list(range(after + 1, LAST + 1))
    await live.close()


@pytest.mark.usefixtures("small_ring")
async def test_a_filter_leaves_out_what_it_says_and_the_spans_still_join(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.write(100)
    await live.writer.flush()
    live.feed.end()
    wanted = feed_service_pb2.EventFilter(kinds=["settled"], agent_ids=["ann"])
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0, filter=wanted)
    assert await read(live, request, random.Random(0)) == [number for number in range(1, 101) if number % 3 == 0 and number % 2]
    await live.close()


async def test_a_cursor_of_another_epoch_or_beyond_the_head_is_refused(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.write(3)
    await live.writer.flush()
    for request, error in (
        (feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=4), SequenceAhead),
        (feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=1, epoch=7), EpochChanged),
    ):
        with pytest.raises(error):
            await anext(aiter(live.servicer.Subscribe(request, None)))  # type: ignore[arg-type]  # the context is not looked at
    await live.close()


async def test_a_stream_that_is_drained_ends_with_its_cursor(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.write(5)
    await live.writer.flush()
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0)
    stream = aiter(live.servicer.Subscribe(request, None))  # type: ignore[arg-type]  # the context is not looked at
    assert told(await anext(stream)).events.last_sequence == 5
    live.feed.drain()
    last = await asyncio.wait_for(anext(stream), 5)
    assert (last.end.reason, last.end.resume_after_sequence) == (feed_service_pb2.STREAM_END_REASON_DRAINING, 5)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await live.close()


@pytest.mark.usefixtures("small_ring")
async def test_pages_stay_valid_while_events_arrive(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.write(40)
    await live.writer.flush()
    for newest_first in (False, True):
        request = feed_service_pb2.ListEventsRequest(run_id="demo", page_size=9, newest_first=newest_first)
        head, seen = live.feed.head.sequence, list[int]()
        while True:
            page = await live.servicer.ListEvents(request, None)  # type: ignore[arg-type]  # the context is not looked at
            seen += [event.sequence for event in page.events]
            live.write(2)
            await live.writer.flush()
            if not page.next_page_token or len(seen) > 200:
                break
            request.page_token = page.next_page_token
            if not newest_first and len(seen) >= 90:
                break
        expected = range(head, 0, -1) if newest_first else range(1, len(seen) + 1)
        assert seen == list(expected)
    await live.close()


async def test_a_long_fold_holds_up_nobody_who_reads_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live(tmp_path / "j.db")
    live.write(5)
    await live.writer.flush()
    live.feed._ring.clear()
    release = threading.Event()
    monkeypatch.setattr(journal_feed, "fold_journal", lambda *_arguments: release.wait(30) or None)
    folding = asyncio.create_task(live.feed.snapshot(3))
    try:
        events = await asyncio.wait_for(live.feed.read(0, 10), 5)
        assert [event.sequence for event in events] == [1, 2, 3, 4, 5]
    finally:
        release.set()
        await asyncio.gather(folding, return_exceptions=True)
    await live.close()
