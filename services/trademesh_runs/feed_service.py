"""FeedService: the streams of `feed_subscription.py` brought to clients, pages of events, and states of the past."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh_kernel.context import Context
from trademesh_kernel.errors import LimitReached, SequenceAhead
from trademesh_kernel.paging import PAGE_BYTES, page_token, read_page_place
from trademesh_kernel.settings import load_settings
from trademesh_kernel.stages import answers_in_bytes, end_call
from trademesh_runs.feed_batch import BATCH_EVENTS
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.feed_source import FindSource
from trademesh_runs.feed_subscription import FeedSettings, Subscription
from trademesh_runs.journal import StoredEvent

DEFAULT_PAGE_SIZE = 100
STALLED_S = 1.0
"""A message that waits so long for its client waits for one that stands still."""


class FeedServicer(feed_service_pb2_grpc.FeedServiceServicer):
    """The feed by RPC."""

    def __init__(self, find: FindSource, settings: FeedSettings | None = None) -> None:
        """`settings` are those of the environment if not given."""
        self._find = find
        self._settings = settings or load_settings(FeedSettings)

    @answers_in_bytes
    async def Subscribe(self, request: feed.SubscribeRequest, context: Context) -> AsyncIterator[Any]:
        source = await self._find(request.run_id)
        subscription = Subscription(request, self._find, source, self._settings)
        patience = _Patience(context, self._settings.feed_slow_after_s, subscription.forget_ahead)
        try:
            async for message in subscription.messages():
                patience.begin()
                yield message
                if patience.end() and not subscription.ended:
                    yield subscription.end(feed.STREAM_END_REASON_SLOW)
                    return
        finally:
            patience.close()
            subscription.forget_ahead()

    async def ListEvents(self, request: feed.ListEventsRequest, context: Context) -> feed.ListEventsResponse:
        source = await self._find(request.run_id)
        wanted = FeedFilter(request.filter)
        size = request.page_size or DEFAULT_PAGE_SIZE
        place = read_page_place(request, request.page_token)
        # Beyond the head there is nothing yet; a number that no journal can have must not reach one.
        cursor = min(request.after_sequence if place is None else place, source.head.sequence + 1)
        if request.newest_first and cursor == 0:
            cursor = source.head.sequence + 1
        found = list[StoredEvent]()
        more, size_bytes = True, 0
        while more and len(found) < size and size_bytes < PAGE_BYTES:
            part = await (source.read_before(cursor, BATCH_EVENTS) if request.newest_first else source.read(cursor, BATCH_EVENTS))
            more = bool(part)
            for event in part:
                cursor = event.sequence
                if wanted.passes(event):
                    found.append(event)
                    size_bytes += len(event.data)
                    if len(found) == size or size_bytes >= PAGE_BYTES:
                        more = True
                        break
        at_end = cursor <= source.head.compacted_through + 1 if request.newest_first else cursor >= source.head.sequence
        return feed.ListEventsResponse(
            events=[event.parse() for event in found],
            next_page_token="" if at_end or not more else page_token(request, [cursor]),
            head_sequence=source.head.sequence,
            compacted_through=source.head.compacted_through,
        )

    async def GetSnapshot(self, request: feed.GetSnapshotRequest, context: Context) -> feed.GetSnapshotResponse:
        source = await self._find(request.run_id)
        at = request.at_sequence if request.HasField("at_sequence") else None
        if at is not None and at > source.head.sequence:
            raise SequenceAhead(at, source.head.sequence)
        return feed.GetSnapshotResponse(state=await source.snapshot(at))


_endings = set[asyncio.Task[None]]()
"""Ends of slow readers that are on their way: a task that nobody holds may be collected."""


class _Patience:
    """With a client that takes nothing. gRPC lets nothing be said to it meanwhile: it is told when it reads again. If it never does, its
    call is ended after twice the time, and what gRPC holds for it is let go.
    """

    def __init__(self, context: Context, slow_after_s: float, stalled: Callable[[], None]) -> None:
        """`stalled` is called when a message has waited for a moment: there is time to read again what was read ahead."""
        self._context = context
        self._slow_after_s = slow_after_s
        self._stalled = stalled
        self._look_each_s = min(STALLED_S, slow_after_s / 2)
        self._loop = asyncio.get_running_loop()
        self._call = asyncio.current_task()
        self._since: float | None = None
        self._timer = self._loop.call_later(self._look_each_s, self._look)

    def begin(self) -> None:
        """A message is handed to gRPC."""
        self._since = self._loop.time()

    def end(self) -> bool:
        """The message has gone; True if that took too long."""
        since, self._since = self._since, None
        return since is not None and self._loop.time() - since > self._slow_after_s

    def _look(self) -> None:
        waited_s = self._loop.time() - self._since if self._since is not None else 0.0
        if waited_s >= self._look_each_s / 2:
            self._stalled()
        if waited_s >= 2 * self._slow_after_s:
            ending = asyncio.create_task(self._give_up(), name="end of a slow reader")
            _endings.add(ending)
            ending.add_done_callback(_endings.discard)
        else:
            self._timer = self._loop.call_later(self._look_each_s, self._look)

    async def _give_up(self) -> None:
        text = "nothing was read of this stream for too long: come back with the last sequence"
        refused = LimitReached(text, limit="feed_slow_after_s", value=round(self._slow_after_s))
        ending = asyncio.create_task(end_call(self._context, refused))
        # It is done when the client has taken all that was sent before, which is not to be expected.
        await asyncio.wait({ending}, timeout=STALLED_S)
        if self._call is not None:
            self._call.cancel()
        # Until the client reads its status or its connection is gone. A call that is let go before leaves a client waiting for ever.
        await asyncio.gather(ending, return_exceptions=True)

    def close(self) -> None:
        """The stream is over."""
        self._timer.cancel()
