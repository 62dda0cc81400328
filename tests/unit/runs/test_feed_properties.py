"""Whatever readers, writers, compaction and restarts do to each other, each reader sees the journal's story, or is told what it misses.

Compaction here takes the rows out of the file and nothing more; that a fold of the rest is the same is `compaction.py`'s promise.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from trademesh.gateway.v1 import event_pb2
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.errors import HistoryCompacted
from trademesh_runs import journal_feed
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.feed_subscription import FeedSettings
from trademesh_runs.journal import Draft
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter

SMALL_RING, SMALL_BATCH = 16, 7
AGENTS = ("", "ann", "bob")
TICKERS = ("AAPL", "MSFT")
WITHIN_S = 10.0


class BriefFeed(JournalFeed):
    """A feed whose states say their place and nothing else."""

    async def snapshot(self, at: int | None) -> ServerState:
        return ServerState(as_of_sequence=self.head.sequence if at is None else at, epoch=self.head.epoch)


class Reader:
    """A client, what it wants, and how far it has come."""

    def __init__(self, after: int | None, wanted: feed.EventFilter, *, takes_snapshots: bool) -> None:
        self.through = after
        self.wanted = wanted
        self.takes_snapshots = takes_snapshots
        self.stream: AsyncIterator[Any] | None = None

    def wants(self, event: event_pb2.Event) -> bool:
        kind = event.WhichOneof("payload")
        named = {event.order_filled.ticker} if kind == "order_filled" else set()
        return (
            (not self.wanted.kinds or kind in self.wanted.kinds)
            and (not self.wanted.agent_ids or event.agent_id in self.wanted.agent_ids)
            and (not self.wanted.tickers or bool(named & set(self.wanted.tickers)))
        )


class Feeds(RuleBasedStateMachine):
    """A journal that is written, compacted and taken over, and readers of it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="trademesh-feed-"))
        self.path = self.folder / "journal.db"
        self.told = list[event_pb2.Event]()
        self.compacted = 0
        self.generation = 0
        self.readers = list[Reader]()
        self.ring, self.batch = journal_feed.RING_EVENTS, journal_feed.BATCH_EVENTS
        journal_feed.RING_EVENTS, journal_feed.BATCH_EVENTS = SMALL_RING, SMALL_BATCH

    @initialize()
    def open(self) -> None:
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.generation += 1
        self.writer = SqliteWriter(self.path, "demo", self.generation, lambda group: self.feed.publish(group))
        self.feed = BriefFeed("demo", SqliteReader(self.path), SqliteReader(self.path), finished=False)
        if self.compacted:
            self.feed.compacted(self.compacted)
        self.servicer = FeedServicer(only_source("demo", self.feed), FeedSettings(feed_checkpoint_s=0.001))

    @rule(events=st.lists(st.tuples(st.sampled_from(AGENTS), st.sampled_from([None, *TICKERS])), min_size=1, max_size=40))
    def write(self, events: list[tuple[str, str | None]]) -> None:
        for agent_id, ticker in events:
            payload = event_pb2.OrderFilled(ticker=ticker) if ticker else event_pb2.SessionOpened()
            kind = "order_filled" if ticker else "session_opened"
            self.writer.append(Draft(kind, payload, agent_id=agent_id, item=str(len(self.told))))
            content: dict[str, Any] = {kind: payload}
            self.told.append(event_pb2.Event(sequence=len(self.told) + 1, agent_id=agent_id, **content))
        self.runner.run(self.writer.flush())

    @rule(
        place=st.floats(0, 1),
        kinds=st.sets(st.sampled_from(["order_filled", "session_opened"]), max_size=1),
        agents=st.sets(st.sampled_from(AGENTS[1:]), max_size=2),
        tickers=st.sets(st.sampled_from(TICKERS), max_size=1),
        now=st.booleans(),
        takes_snapshots=st.booleans(),
    )
    def come(self, place: float, kinds: set[str], agents: set[str], tickers: set[str], *, now: bool, takes_snapshots: bool) -> None:
        wanted = feed.EventFilter(kinds=kinds, agent_ids=agents, tickers=tickers)
        self.readers.append(Reader(None if now else round(place * len(self.told)), wanted, takes_snapshots=takes_snapshots))

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 1000), messages=st.integers(1, 12))
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

    @rule(share=st.floats(0, 1))
    def compact(self, share: float) -> None:
        # A journal is never without an event: what follows the last settlement stays.
        through = round(share * (len(self.told) - 1))
        if through > self.compacted:
            with sqlite3.connect(self.path) as connection:
                connection.execute("DELETE FROM events WHERE sequence <= ?", (through,))
            connection.close()
            self.compacted = through
            self.feed.compacted(through)

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
            reader.through = message.snapshot.as_of_sequence
            assert reader.through == len(self.told)
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
            journal_feed.RING_EVENTS, journal_feed.BATCH_EVENTS = self.ring, self.batch
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
    max_examples=25, stateful_step_count=25, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)
