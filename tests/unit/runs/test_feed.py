"""The feed of a journal: whoever reads, from wherever, however fast, gets every event once and in order."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from random_journals import Session, drafts_of
from trademesh.gateway.v1 import event_pb2, feed_service_pb2
from trademesh_kernel.errors import EpochChanged, HistoryCompacted, SequenceAhead
from trademesh_runs import feed_subscription, journal_feed
from trademesh_runs.compaction import compact
from trademesh_runs.feed_batch import read_batches
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.feed_service import FeedServicer
from trademesh_runs.feed_source import only_source
from trademesh_runs.feed_subscription import FeedSettings
from trademesh_runs.journal import Draft, StoredEvent
from trademesh_runs.journal_feed import JournalFeed
from trademesh_runs.journal_sqlite import SqliteReader, SqliteStore, SqliteWriter
from trademesh_runs.quote_board import QuoteBoard
from waiting import until

LAST = 600


def told(message: Any) -> feed_service_pb2.SubscribeResponse:
    """A message of a stream, whether it was encoded already or not."""
    return feed_service_pb2.SubscribeResponse.FromString(message) if isinstance(message, bytes) else message


class Live:
    """A journal that is written while it is read."""

    def __init__(self, path: Path, settings: FeedSettings | None = None) -> None:
        self.writer = SqliteWriter(path, "demo", 1, self._published)
        self.feed = JournalFeed("demo", SqliteReader(path), SqliteReader(path), finished=False)
        self.servicer = FeedServicer(only_source("demo", self.feed), settings)
        self._number = 0

    def _published(self, group: list[StoredEvent]) -> None:
        self.feed.publish(group)

    def write(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            kind = "session_opened" if self._number % 3 else "settled"
            payload = event_pb2.SessionOpened() if self._number % 3 else event_pb2.Settled()
            self.writer.append(Draft(kind, payload, agent_id="ann" if self._number % 2 else "", item=str(self._number)))

    def stream(self, request: feed_service_pb2.SubscribeRequest) -> Any:
        return self.servicer.Subscribe(request, None)  # type: ignore[arg-type]  # the context is not looked at

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


@pytest.mark.parametrize("agents", [[], ["ann"]])
async def test_a_journal_hands_out_no_more_than_the_kinds_that_a_filter_names(tmp_path: Path, agents: list[str]) -> None:
    live = Live(tmp_path / "j.db")
    live.write(90)
    await live.writer.flush()
    reader, handed_out = SqliteReader(tmp_path / "j.db"), list[int]()
    read_all = reader.read

    def counted(after: int, limit: int, through: int | None = None, kinds: Collection[int] | None = None) -> list[StoredEvent]:
        found = read_all(after, limit, through, kinds)
        handed_out.append(len(found))
        return found

    reader.read = counted  # type: ignore[method-assign]  # to see what is asked of it
    wanted = FeedFilter(feed_service_pb2.EventFilter(kinds=["settled"], agent_ids=agents))
    (batch,) = read_batches(reader, 10, 80, wanted)
    settled = [number for number in range(11, 81) if number % 3 == 0]
    message = feed_service_pb2.SubscribeResponse.FromString(batch.message(1, 11)).events
    assert (message.first_sequence, message.last_sequence) == (11, 80)
    assert [event.sequence for event in message.events] == [number for number in settled if number % 2 or not agents]
    assert sum(handed_out) == len(settled) + 1  # and one that tells where events begin
    assert read_batches(reader, 90, 90, wanted) == []
    reader.close()
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


@pytest.mark.parametrize(
    ("epoch", "after", "error", "reason"),
    [
        (1, 3, HistoryCompacted, feed_service_pb2.GAP_REASON_COMPACTED),
        (7, 8, EpochChanged, feed_service_pb2.GAP_REASON_EPOCH_CHANGED),
    ],
)
async def test_a_cursor_whose_events_are_gone_is_refused_or_told_of_a_gap(
    tmp_path: Path, epoch: int, after: int, error: type[Exception], reason: feed_service_pb2.GapReason.ValueType
) -> None:
    live = Live(tmp_path / "j.db")
    live.write(9)
    await live.writer.flush()
    live.feed.compacted(4)
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=after, epoch=epoch)
    with pytest.raises(error):
        await anext(live.stream(request))
    request.snapshot = True
    stream = live.stream(request)
    gap = told(await anext(stream)).gap
    assert (gap.reason, gap.compacted_through, gap.epoch) == (reason, 4, 1)
    assert told(await anext(stream)).snapshot.as_of_sequence == 9
    live.write(1)
    await live.writer.flush()
    events = told(await anext(stream)).events
    assert (events.epoch, events.first_sequence) == (1, 10)
    await stream.aclose()
    await live.close()


async def test_a_snapshot_asked_for_beside_a_place_comes_only_if_it_is_needed(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.write(9)
    await live.writer.flush()
    stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=4, snapshot=True))
    assert told(await anext(stream)).events.first_sequence == 5
    await stream.aclose()
    await live.close()


async def test_a_stream_says_that_it_is_alive_and_how_far_it_looked_where_its_filter_passes_nothing(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db", FeedSettings(feed_checkpoint_s=0.05))
    live.write(3)
    await live.writer.flush()
    wanted = feed_service_pb2.EventFilter(kinds=["run_finished"])
    stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0, filter=wanted))
    for head in (3, 3, 8):
        if head > live.feed.head.sequence:
            live.write(head - live.feed.head.sequence)
            await live.writer.flush()
        checkpoint = told(await anext(stream)).checkpoint
        assert (checkpoint.through_sequence, checkpoint.head_sequence) == (head, head)
    await stream.aclose()
    await live.close()


async def test_a_stream_of_a_writer_that_was_replaced_says_so(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.write(2)
    await live.writer.flush()
    stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=2))
    last = asyncio.create_task(anext(stream))
    live.feed.fence()
    end = told(await asyncio.wait_for(last, 5)).end
    assert (end.reason, end.resume_after_sequence) == (feed_service_pb2.STREAM_END_REASON_FENCED, 2)
    await live.close()


async def test_a_client_that_took_nothing_for_too_long_is_sent_away_with_its_cursor(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db", FeedSettings(feed_slow_after_s=0.05))
    live.write(600)
    await live.writer.flush()
    stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0))
    taken = told(await anext(stream)).events.last_sequence
    slow_until = asyncio.get_running_loop().time() + 0.06
    await until(lambda: asyncio.get_running_loop().time() > slow_until)
    end = told(await anext(stream)).end
    assert (end.reason, end.resume_after_sequence) == (feed_service_pb2.STREAM_END_REASON_SLOW, taken)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await live.close()


async def test_a_reader_that_falls_ever_further_behind_is_sent_away_but_not_one_that_began_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_subscription, "MOST_LAG_EVENTS", 300)
    live = Live(tmp_path / "j.db")
    live.write(600)
    await live.writer.flush()
    stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0))
    assert told(await anext(stream)).events.last_sequence == 256
    live.write(600)
    await live.writer.flush()
    assert told(await anext(stream)).end.reason == feed_service_pb2.STREAM_END_REASON_SLOW
    await live.close()


async def test_events_that_name_a_ticker_anywhere_are_told_by_it_and_words_that_hold_it_are_not(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    position = event_pb2.Position(ticker="SPY", quantity=1)
    named = (
        Draft("order_filled", event_pb2.OrderFilled(ticker="SPY"), item="1"),
        Draft("signals", event_pb2.Signals(signals=[event_pb2.Signal(ticker="QQQ"), event_pb2.Signal(ticker="SPY")]), item="2"),
        Draft("settled", event_pb2.Settled(portfolio=event_pb2.PortfolioState(positions=[position])), item="3"),
        Draft("run_started", event_pb2.RunStarted(tickers=["QQQ", "SPY"]), item="4"),
    )
    unnamed = (
        Draft("order_filled", event_pb2.OrderFilled(ticker="SPYG"), item="5"),
        Draft("settled", event_pb2.Settled(baselines=[event_pb2.Baseline(name="index:SPY")]), item="6"),
        Draft("pipeline_state_changed", event_pb2.PipelineStateChanged(reason="SPY"), item="7"),
    )
    for draft in (*named, *unnamed):
        live.writer.append(draft)
    await live.writer.flush()
    live.feed.end()
    wanted = feed_service_pb2.EventFilter(tickers=["SPY"])
    request = feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0, filter=wanted)
    assert await read(live, request, random.Random(0)) == [1, 2, 3, 4]
    page = await live.servicer.ListEvents(feed_service_pb2.ListEventsRequest(run_id="demo", filter=wanted), None)  # type: ignore[arg-type]  # the context is not looked at
    assert [event.sequence for event in page.events] == [1, 2, 3, 4]
    await live.close()


async def test_a_reader_of_history_gets_the_journals_own_bytes_in_batches_that_a_bound_ends(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    for number in range(300):
        live.writer.append(Draft("pipeline_state_changed", event_pb2.PipelineStateChanged(reason="x" * 1000), item=str(number)))
    await live.writer.flush()
    stored = await live.feed.read(0, 300)
    for forget in (False, True):
        if forget:
            live.feed._ring.clear()
        stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0))
        seen = list[bytes]()
        while len(seen) < 300:
            message = await anext(stream)
            assert isinstance(message, bytes)
            assert len(message) <= 100_000
            seen += [event.SerializeToString() for event in told(message).events.events]
        assert seen == [event.parse().SerializeToString() for event in stored]
        await stream.aclose()
    await live.close()


async def test_quotes_go_beside_events_conflated_and_not_faster_than_asked(tmp_path: Path) -> None:
    live = Live(tmp_path / "j.db")
    live.feed.quotes = board = QuoteBoard()
    board.update("2008-01-02", 1, {"AAPL": 1, "MSFT": 1, "SPY": 1})
    wanted = feed_service_pb2.QuoteSelection(tickers=["AAPL", "SPY"])
    wanted.min_interval.FromMilliseconds(200)
    stream = live.stream(feed_service_pb2.SubscribeRequest(run_id="demo", after_sequence=0, quotes=wanted))
    first = told(await anext(stream)).quotes.quotes
    began = asyncio.get_running_loop().time()
    assert [(quote.ticker, quote.price_micros) for quote in first] == [("AAPL", 1), ("SPY", 1)]
    for price in (2, 3):
        board.update("2008-01-03", price, {"SPY": price})
    live.write(1)
    await live.writer.flush()
    assert told(await anext(stream)).events.last_sequence == 1
    second = told(await anext(stream)).quotes.quotes
    assert asyncio.get_running_loop().time() - began >= 0.19
    assert [(quote.ticker, quote.price_micros, quote.observed_at.seconds, quote.session_date) for quote in second] == [
        ("SPY", 3, 3, "2008-01-03")
    ]
    await stream.aclose()
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


@pytest.mark.parametrize("left", [44, 50])
async def test_pages_say_what_compaction_took_from_between_them(tmp_path: Path, left: int) -> None:
    path = tmp_path / "j.db"
    live = Live(path)
    for draft in drafts_of([Session()] * 16):
        live.writer.append(draft)
    await live.writer.flush()

    async def page(**fields: Any) -> feed_service_pb2.ListEventsResponse:
        request = feed_service_pb2.ListEventsRequest(run_id="demo", page_size=10, **fields)
        return await live.servicer.ListEvents(request, None)  # type: ignore[arg-type]  # the context is not looked at

    oldest, newest = await page(), await page(newest_first=True)
    assert (oldest.compacted_through, newest.compacted_through) == (0, 0)
    live.feed.compacted((await asyncio.to_thread(compact, "demo", SqliteStore(path), left)).compacted_through)
    on, back = await page(page_token=oldest.next_page_token), await page(newest_first=True, page_token=newest.next_page_token)
    assert [event.sequence for event in on.events] == list(range(left + 1, 51))
    assert not back.events
    for one in (on, back, await page(after_sequence=20)):
        assert (one.compacted_through, one.head_sequence, one.next_page_token) == (left, 50, "")
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
