"""One stream of the feed. A subscriber is one integer, its cursor: it reads what lies after the cursor, and waits when there is nothing. So
there is no hand-over from history to live that could lose or repeat an event, and a slow reader holds no memory of ours.

How a stream gets to its client, and what becomes of a client that takes nothing, is `feed_service.py`'s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh_kernel.errors import DependencyUnavailable, EpochChanged, HistoryCompacted, SequenceAhead
from trademesh_runs.feed_batch import Batch
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.feed_source import FeedSource, FindSource
from trademesh_runs.quote_board import QuoteBoard
from trademesh_runs.wake import first_of

MOST_LAG_EVENTS = 1_000_000
"""A reader that falls so far behind where it began will never be at the head."""

RETRY_AFTER_S = 0.5
QUOTES_INTERVAL_S = 0.1


Message: TypeAlias = feed.SubscribeResponse | bytes
"""A message, or its encoded form."""


class FeedSettings(BaseSettings):
    """What the environment says about streams."""

    model_config = SettingsConfigDict(env_prefix="TRADEMESH_", extra="ignore", env_ignore_empty=True)

    feed_checkpoint_s: float = Field(default=5.0, gt=0, le=3_600)
    """A stream says so often at least that it is alive."""
    feed_slow_after_s: float = Field(default=60.0, gt=0, le=86_400)
    """A client that takes nothing for so long, while there is something for it, is sent away; after twice as long its call is ended."""


class Subscription:
    """A stream for one request, message by message."""

    def __init__(self, request: feed.SubscribeRequest, find: FindSource, source: FeedSource, settings: FeedSettings) -> None:
        """Raises InvalidRequest."""
        self._request = request
        self._find = find
        self._source = source
        self._settings = settings
        wanted = FeedFilter(request.filter)
        self._wanted = None if wanted.passes_all else wanted
        self.cursor = 0
        """Everything up to here was sent or left out."""
        self._told = 0
        """The client knows that it has everything up to here."""
        self._epoch = source.head.epoch
        self._first_lag = 0
        self._catching_up = True
        self.ended = False
        """True once the last message is on its way."""
        self._ahead = deque[Batch]()
        """Read already, and following the cursor."""
        self._reading: asyncio.Task[list[Batch]] | None = None
        """Reads what follows those."""
        self._proven = False
        """The client took what was read for it: for one that never reads nothing is read ahead."""
        self._seen_moves = 0
        self._quotes_due = 0.0
        self._alive_due = 0.0
        interval_s = request.quotes.min_interval.ToNanoseconds() / 1e9
        self._quotes_interval_s = max(QUOTES_INTERVAL_S, interval_s)
        self._quoted_tickers = frozenset(request.quotes.tickers)

    async def messages(self) -> AsyncIterator[Message]:
        """The stream, to its end.

        Raises:
            SequenceAhead, HistoryCompacted, EpochChanged: it cannot begin where the client says.
            DependencyUnavailable: the run was restarted: its gateway serves it now.
        """
        try:
            async for message in self._messages():
                yield message
        finally:
            self.forget_ahead()

    async def _messages(self) -> AsyncIterator[Message]:
        self._alive()
        for message in await self._begin():
            yield message
        while (end := self._end()) is None:
            try:
                found = await self._step()
            except DependencyUnavailable as error:
                if not error.moved:
                    raise
                # The journal was compacted, or its run restarted and ended again. If it lives, its gateway is told of.
                self._source = await self._find(self._request.run_id)
                self.forget_ahead()
                found = await self._go_on()
            for message in found:
                yield message
        self.ended = True
        yield end

    async def _begin(self) -> list[Message]:
        """Sets the cursor."""
        request, head = self._request, self._source.head
        has_place = request.HasField("after_sequence")
        self.cursor = self._told = request.after_sequence if has_place else head.sequence
        self._epoch = request.epoch if request.HasField("epoch") else head.epoch
        if request.snapshot and not has_place and self._epoch == head.epoch:
            found = await self._snapshot()
        else:
            found = await self._go_on()
        self._first_lag = self._source.head.sequence - self.cursor
        return found

    async def _go_on(self) -> list[Message]:
        """Makes sure that the source has what follows the cursor, or says that it has not."""
        head = self._source.head
        if self._epoch != head.epoch:
            if not self._request.snapshot:
                raise EpochChanged(head.epoch, self._epoch)
            return await self._gap(feed.GAP_REASON_EPOCH_CHANGED, head.compacted_through)
        if self.cursor > head.sequence:
            raise SequenceAhead(self.cursor, head.sequence)
        if self.cursor < head.compacted_through:
            return await self._compacted(head.compacted_through)
        return []

    async def _compacted(self, through: int) -> list[Message]:
        if not self._request.snapshot:
            raise HistoryCompacted(self.cursor, through)
        return await self._gap(feed.GAP_REASON_COMPACTED, through)

    async def _gap(self, reason: feed.GapReason.ValueType, compacted_through: int) -> list[Message]:
        self._epoch = self._source.head.epoch
        gap = feed.SubscribeResponse(gap=feed.Gap(reason=reason, compacted_through=compacted_through, epoch=self._epoch))
        return [gap, *await self._snapshot()]

    async def _snapshot(self) -> list[Message]:
        self.forget_ahead()
        state = await self._source.snapshot(None)
        self.cursor = self._told = state.as_of_sequence
        self._alive()
        return [feed.SubscribeResponse(snapshot=state)]

    async def _step(self) -> list[Message]:
        """What is to be sent next; nothing, after a wait, if there may be more now."""
        source, now = self._source, asyncio.get_running_loop().time()
        board = source.quotes if self._request.HasField("quotes") else None
        found = self._quotes(board, now) if board is not None else []
        if self.cursor < source.head.sequence:
            return found + await self._events()
        if now >= self._alive_due or (self._catching_up and self._told < self.cursor):
            # Of the end of history a filter may have let nothing pass.
            found.append(self._checkpoint())
        self._catching_up = False
        if not found:
            within_s, wakes = self._alive_due - now, [source.changed]
            if board is not None and board.has_moved(self._seen_moves):
                within_s = min(within_s, self._quotes_due - now)
            elif board is not None:
                wakes.append(board.moved)
            await first_of(wakes, within_s)
        return found

    def _quotes(self, board: QuoteBoard, now: float) -> list[Message]:
        if now < self._quotes_due or not board.has_moved(self._seen_moves):
            return []
        self._quotes_due = now + self._quotes_interval_s
        self._seen_moves, message = board.message(self._seen_moves, self._quoted_tickers)
        return [message] if message else []

    async def _events(self) -> list[Message]:
        batch = await self._batch()
        if batch is None or batch.first > self.cursor + 1:
            # They were taken out between a look at the head and this read.
            return await self._compacted(self._source.head.sequence if batch is None else batch.first - 1)
        self.cursor = batch.last
        if batch.count:
            first, self._told = self._told + 1, batch.last
            self._alive()
            return [batch.message(self._epoch, first)]
        if asyncio.get_running_loop().time() >= self._alive_due:
            return [self._checkpoint()]
        # Others get their turn, however much there is that nobody wants.
        await asyncio.sleep(0)
        return []

    async def _batch(self) -> Batch | None:
        """The batch after the cursor. While one part of history is sent the next is read."""
        if not self._ahead:
            reading, self._reading = self._reading, None
            found = await (reading or self._source.batches(self.cursor, self._wanted))
            if not found:
                return None
            self._ahead.extend(found)
            if len(found) > 1 and self._proven and found[-1].last < self._source.head.sequence:
                self._reading = asyncio.create_task(self._source.batches(found[-1].last, self._wanted), name="feed reads ahead")
                # What it raises is told to who waits for it, and otherwise of no interest.
                self._reading.add_done_callback(lambda reading: reading.cancelled() or reading.exception())
            self._proven = True
        return self._ahead.popleft()

    def forget_ahead(self) -> None:
        """Lets go what was read already: the client takes its time, and it can be read again."""
        self._ahead.clear()
        self._proven = False
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _checkpoint(self) -> feed.SubscribeResponse:
        self._told = self.cursor
        self._alive()
        return feed.SubscribeResponse(checkpoint=feed.Checkpoint(through_sequence=self.cursor, head_sequence=self._source.head.sequence))

    def _alive(self) -> None:
        self._alive_due = asyncio.get_running_loop().time() + self._settings.feed_checkpoint_s

    def _end(self) -> feed.SubscribeResponse | None:
        """The last message, if it is time for it."""
        source = self._source
        at_head = self.cursor >= source.head.sequence
        if source.fenced:
            return self.end(feed.STREAM_END_REASON_FENCED)
        if source.finished and at_head:
            return self.end(feed.STREAM_END_REASON_RUN_ENDED)
        if source.draining:
            # Before the backlog: who is far behind would be cut off without a cursor.
            return self.end(feed.STREAM_END_REASON_DRAINING)
        if source.head.sequence - self.cursor - self._first_lag > MOST_LAG_EVENTS:
            return self.end(feed.STREAM_END_REASON_SLOW)
        return None

    def end(self, reason: feed.StreamEndReason.ValueType) -> feed.SubscribeResponse:
        """The last message, with the cursor to come back with."""
        retry_after = Duration()
        if reason != feed.STREAM_END_REASON_RUN_ENDED:
            retry_after.FromMilliseconds(round(RETRY_AFTER_S * 1000))
        return feed.SubscribeResponse(end=feed.StreamEnd(reason=reason, resume_after_sequence=self.cursor, retry_after=retry_after))
