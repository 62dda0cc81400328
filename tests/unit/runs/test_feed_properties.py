"""Whatever readers, writers, compaction and restarts do to each other, each reader sees the journal's story, or is told what it misses."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from random_journals import SESSION, TICKERS, Session, drafts_of
from trademesh.gateway.v1 import event_pb2
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh_kernel.errors import HistoryCompacted
from trademesh_runs import feed_batch, journal_feed
from trademesh_runs.compaction import compact
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.feed_subscription import FeedSettings
from trademesh_runs.journal import Head
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteCompactor, SqliteStore

SMALL_RING, SMALL_BATCH = 16, 7
AGENTS = ("analyst-0", "analyst-1")
KINDS = ("order_filled", "session_opened", "settled")
WITHIN_S = 10.0


FILTERS = st.builds(
    feed.EventFilter,
    kinds=st.sets(st.sampled_from(KINDS), max_size=1),
    agent_ids=st.sets(st.sampled_from(AGENTS), max_size=1),
    tickers=st.sets(st.sampled_from(TICKERS), max_size=1),
)


class HastyCompactor(SqliteCompactor):
    """Leaves the file as it is after the last cut: the end of a compaction waits a second for each open reader, and all of ours are open."""

    def close(self) -> None:
        self._file.abandon()


class Store(SqliteStore):
    """A journal that is compacted while it is read."""

    def compactor(self) -> SqliteCompactor:
        return HastyCompactor(self._path)


def named(event: event_pb2.Event) -> set[str]:
    """Tickers that an event names."""
    accounts = (event.settled.portfolio, event.state_checkpoint.portfolio)
    held = {position.ticker for account in accounts for position in account.positions}
    return {event.order_filled.ticker, *event.run_started.tickers, *held}


class Reader:
    """A client, what it wants, and how far it has come."""

    def __init__(self, after: int | None, wanted: feed.EventFilter, *, takes_snapshots: bool) -> None:
        self.through = after
        self.wanted = wanted
        self.takes_snapshots = takes_snapshots
        self.stream: AsyncIterator[Any] | None = None

    def wants(self, event: event_pb2.Event) -> bool:
        kind = event.WhichOneof("payload")
        return (
            (not self.wanted.kinds or kind in self.wanted.kinds)
            and (not self.wanted.agent_ids or event.agent_id in self.wanted.agent_ids)
            and (not self.wanted.tickers or bool(named(event) & set(self.wanted.tickers)))
        )


class Feeds(RuleBasedStateMachine):
    """A journal that is written, compacted and taken over, and readers of it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="trademesh-feed-"))
        self.store = Store(self.folder / "journal.db")
        self.sessions = list[Session]()
        self.told = list[event_pb2.Event]()
        self.compacted = 0
        self.generation = 0
        self.readers = list[Reader]()
        # So that a few events are history of many batches.
        self.small = pytest.MonkeyPatch()
        self.small.setattr(journal_feed, "RING_EVENTS", SMALL_RING)
        for module in (journal_feed, feed_batch):
            self.small.setattr(module, "BATCH_EVENTS", SMALL_BATCH)
            self.small.setattr(module, "SCANNED_EVENTS", 2 * SMALL_BATCH)
        self.small.setattr(feed_batch, "PASSED_OVER_EVENTS", 3 * SMALL_BATCH)

    @initialize(sessions=st.lists(SESSION, min_size=4, max_size=8))
    def open(self, sessions: list[Session]) -> None:
        self.runner.run(self._open())
        self._write(sessions, settles_last=True)

    async def _open(self) -> None:
        self.generation += 1
        self.writer = self.store.writer("demo", self.generation, lambda group: self.feed.publish(group))
        self.feed = JournalFeed("demo", self.store.reader(), self.store.reader(), finished=False)
        assert self.feed.head == Head(1, len(self.told), self.compacted)
        self.servicer = FeedServicer(only_source("demo", self.feed), FeedSettings(feed_checkpoint_s=0.001))

    @rule(sessions=st.lists(SESSION, min_size=1, max_size=4), settles_last=st.booleans())
    def write(self, sessions: list[Session], *, settles_last: bool) -> None:
        self._write(sessions, settles_last=settles_last)

    def _write(self, sessions: list[Session], *, settles_last: bool) -> None:
        self.sessions += sessions
        # What was told of earlier sessions is the same again.
        for draft in drafts_of(self.sessions, settle_last=settles_last)[len(self.told) :]:
            assert self.writer.append(draft)
            content: dict[str, Any] = {draft.kind: draft.payload}
            self.told.append(event_pb2.Event(sequence=len(self.told) + 1, agent_id=draft.agent_id, **content))
        self.runner.run(self.writer.flush())

    @rule(percent=st.integers(0, 100), wanted=st.one_of(st.just(feed.EventFilter()), FILTERS), now=st.booleans(), snapshots=st.booleans())
    def come(self, percent: int, wanted: feed.EventFilter, *, now: bool, snapshots: bool) -> None:
        place = None if now and percent > 50 else percent * len(self.told) // 100
        self.readers.append(Reader(place, wanted, takes_snapshots=snapshots))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 1000), messages=st.integers(1, 4))
    def read(self, which: int, messages: int) -> None:
        reader = self.readers[which % len(self.readers)]
        for _ in range(messages):
            if self.runner.run(self._take(reader)):
                break

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 1000))
    def leave(self, which: int) -> None:
        """A reader that was cut off comes back where it was."""
        reader = self.readers[which % len(self.readers)]
        self.runner.run(self._cut_off(reader))

    @precondition(lambda self: self._settled_since_compaction())
    @rule(percent=st.integers(0, 99))
    def compact(self, percent: int) -> None:
        settled = self._settled_since_compaction()
        through = compact("demo", self.store, settled[percent * len(settled) // 100], most_rows=30).compacted_through
        assert through > self.compacted
        self.compacted = through
        self.feed.compacted(through)

    def _settled_since_compaction(self) -> list[int]:
        return [event.sequence for event in self.told if event.HasField("settled") and event.sequence > self.compacted]

    @rule()
    def restart(self) -> None:
        self.runner.run(self._close())
        self.runner.run(self._open())

    async def _close(self) -> None:
        self.feed.drain()
        for reader in self.readers:
            while reader.stream is not None and not await self._take(reader):
                pass
        await self.writer.close()
        self.feed.close()

    async def _cut_off(self, reader: Reader) -> None:
        stream, reader.stream = reader.stream, None
        if stream is not None:
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator

    async def _take(self, reader: Reader) -> bool:
        """One message; True if the stream is at its end, or the reader at the head."""
        if reader.stream is None:
            request = feed.SubscribeRequest(run_id="demo", filter=reader.wanted, snapshot=reader.takes_snapshots)
            if reader.through is not None:
                request.after_sequence, request.epoch = reader.through, 1
            elif not reader.takes_snapshots:
                reader.through = len(self.told)
            reader.stream = aiter(self.servicer.Subscribe(request, None))  # type: ignore[arg-type]  # the context is not looked at
        try:
            async with asyncio.timeout(WITHIN_S):
                sent = await anext(reader.stream)
        except HistoryCompacted:
            assert not reader.takes_snapshots
            assert reader.through is not None
            assert reader.through < self.compacted
            # What a client without snapshots can do: begin behind what is gone.
            reader.through, reader.stream = self.compacted, None
            return False
        message = feed.SubscribeResponse.FromString(sent) if isinstance(sent, bytes) else sent
        return await self._check(reader, message)

    async def _check(self, reader: Reader, message: feed.SubscribeResponse) -> bool:
        if message.HasField("gap"):
            assert reader.takes_snapshots
            assert reader.through is not None
            assert reader.through < message.gap.compacted_through <= self.compacted
            return False
        if message.HasField("snapshot"):
            # It was made together with the gap before it: events may have followed since.
            assert (reader.through or 0) <= message.snapshot.as_of_sequence <= len(self.told)
            reader.through = message.snapshot.as_of_sequence
            assert message.snapshot.fills == sum(event.HasField("order_filled") for event in self.told[: reader.through])
            return False
        assert reader.through is not None, "nothing has a place before the snapshot"
        if message.HasField("events"):
            assert message.events.first_sequence == reader.through + 1
            self._expect(reader, message.events.last_sequence, list(message.events.events))
        elif message.HasField("checkpoint"):
            assert message.checkpoint.head_sequence == len(self.told)
            self._expect(reader, message.checkpoint.through_sequence, [])
            return message.checkpoint.through_sequence == len(self.told)
        else:
            assert self.feed.draining or self.feed.finished
            self._expect(reader, message.end.resume_after_sequence, [])
            await self._cut_off(reader)
            return True
        return False

    def _expect(self, reader: Reader, through: int, events: list[event_pb2.Event]) -> None:
        """What lies between the reader's place and another is exactly these events, as far as it wants them."""
        assert reader.through is not None
        wanted = [event for event in self.told[reader.through : through] if reader.wants(event)]
        assert [event.sequence for event in events] == [event.sequence for event in wanted]
        assert all(mine.WhichOneof("payload") == theirs.WhichOneof("payload") for mine, theirs in zip(events, wanted, strict=True))
        reader.through = through

    def teardown(self) -> None:
        try:
            self.runner.run(self._read_to_the_end())
        finally:
            self.runner.close()
            self.small.undo()
            shutil.rmtree(self.folder)

    async def _read_to_the_end(self) -> None:
        if not hasattr(self, "feed"):
            return
        self.feed.end()
        for reader in self.readers:
            while not (await self._take(reader) and reader.stream is None):
                pass
            assert reader.through == len(self.told)
        await self.writer.close()
        self.feed.close()


TestFeeds = Feeds.TestCase
# A failure is told by its steps as they were: to make them fewer takes longer than a test may.
TestFeeds.settings = settings(
    max_examples=30, stateful_step_count=50, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)
