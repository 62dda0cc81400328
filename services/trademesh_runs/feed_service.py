"""FeedService over a journal, live or finished: snapshot, history, live, without a gap or a duplicate.

A subscriber is one integer, its cursor. It reads from the journal what lies after the cursor, and waits when there is nothing: so there
is no hand-over from history to live that could lose or repeat an event, and a slow reader holds no memory of ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh.gateway.v1 import feed_service_pb2_grpc
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.context import Context
from trademesh_kernel.errors import EpochChanged, FieldViolation, InvalidRequest, NotFound, SequenceAhead
from trademesh_kernel.paging import PAGE_BYTES, fitting, page_token, read_page_place
from trademesh_kernel.wire_format import delimited
from trademesh_runs.fold import fold_journal
from trademesh_runs.journal import KIND_NUMBERS, Head, JournalReader, StoredEvent

BATCH_EVENTS = 256
BATCH_BYTES = 256 * 1024
RING_EVENTS = 8192
RING_BYTES = 8 * 1024 * 1024
CHECKPOINT_S = 5.0
DEFAULT_PAGE_SIZE = 100
RETRY_AFTER_S = 0.5

_EVENTS_FIELD = feed.EventBatch.DESCRIPTOR.fields_by_name["events"].number

Answer = TypeVar("Answer")


class FeedSource(Protocol):
    """The events of one run, as the feed needs them."""

    @property
    def head(self) -> Head:
        """Where the journal ends for readers: what is committed."""

    @property
    def finished(self) -> bool:
        """True if no event will follow."""

    @property
    def draining(self) -> bool:
        """True if streams are to end."""

    async def read(self, after: int, limit: int, through: int | None = None) -> Sequence[StoredEvent]:
        """Events after a sequence, oldest first."""

    async def read_before(self, before: int, limit: int) -> Sequence[StoredEvent]:
        """Events before a sequence, newest first."""

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence, or the newest."""

    async def changed(self, beyond: int, within_s: float) -> None:
        """Returns when the head is beyond a sequence, when the source ends or drains, or after a while."""


class JournalFeed:
    """The feed of a journal file, with a ring of the newest events while its writer is in this process."""

    def __init__(self, run_id: str, reader: JournalReader, fold_reader: JournalReader, *, finished: bool) -> None:
        """`fold_reader` reads the same journal for states of the past: a fold of decades must not hold up who reads events."""
        self._run_id = run_id
        self._reader = reader
        self._fold_reader = fold_reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal reader")
        self._fold_thread = ThreadPoolExecutor(1, thread_name_prefix="journal folds")
        self._ring: deque[StoredEvent] = deque()
        self._ring_bytes = 0
        self._wake = asyncio.Event()
        self.head = reader.head()
        self.finished = finished
        self.draining = False
        self.fenced = False

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Takes in events that were committed."""
        self._ring.extend(events)
        self._ring_bytes += sum(len(event.data) for event in events)
        while len(self._ring) > RING_EVENTS or self._ring_bytes > RING_BYTES:
            self._ring_bytes -= len(self._ring.popleft().data)
        self.head = Head(self.head.epoch, events[-1].sequence)
        self._notify()

    def end(self) -> None:
        """Says that no event will follow."""
        self.finished = True
        self._notify()

    def drain(self) -> None:
        """Ends every stream with its cursor."""
        self.draining = True
        self._notify()

    def fence(self) -> None:
        """Another gateway writes the journal: ends every stream with its cursor, and says so."""
        self.fenced = True
        self.drain()

    def _notify(self) -> None:
        wake, self._wake = self._wake, asyncio.Event()
        wake.set()

    async def changed(self, beyond: int, within_s: float) -> None:
        """Returns when the head is beyond a sequence, when the source ends or drains, or after a while."""
        # The event is taken before the head is read: a commit between the two is not missed.
        wake = self._wake
        if self.head.sequence > beyond or self.finished or self.draining:
            return
        try:
            async with asyncio.timeout(within_s):
                await wake.wait()
        except TimeoutError:
            return

    async def read(self, after: int, limit: int, through: int | None = None) -> Sequence[StoredEvent]:
        """Events after a sequence, from the ring if it has them."""
        last = self.head.sequence if through is None else min(through, self.head.sequence)
        if self._ring and after + 1 >= self._ring[0].sequence:
            first = after + 1 - self._ring[0].sequence
            count = min(limit, last - after)
            return [self._ring[place] for place in range(first, first + max(0, count))]
        return await self._in_thread(self._reader.read, after, limit, last)

    async def read_before(self, before: int, limit: int) -> Sequence[StoredEvent]:
        """Events before a sequence, newest first."""
        return await self._in_thread(self._reader.read_before, min(before, self.head.sequence + 1), limit)

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence, folded from the journal."""
        through = self.head.sequence if at is None else at
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._fold_thread, lambda: fold_journal(self._run_id, self._fold_reader, through).state())

    async def _in_thread(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments))

    def close(self) -> None:
        """Closes the journal."""
        for thread, reader in ((self._thread, self._reader), (self._fold_thread, self._fold_reader)):
            thread.shutdown()
            reader.close()


FindSource = Callable[[str], Any]
"""From a run id to an awaitable of its FeedSource; raises NotFound."""


def only_source(run_id: str, source: FeedSource) -> FindSource:
    """A finder that knows one run."""

    async def find(asked: str) -> FeedSource:
        if asked != run_id:
            raise NotFound("run", asked)
        return source

    return find


class FeedServicer(feed_service_pb2_grpc.FeedServiceServicer):
    """The feed by RPC."""

    def __init__(self, find: FindSource) -> None:
        self._find = find

    async def Subscribe(self, request: feed.SubscribeRequest, context: Context) -> AsyncIterator[feed.SubscribeResponse]:
        source: FeedSource = await self._find(request.run_id)
        wanted = _Filter(request.filter)
        if request.HasField("epoch") and request.epoch != source.head.epoch:
            raise EpochChanged(source.head.epoch, request.epoch)
        if request.snapshot:
            state = await source.snapshot(None)
            cursor = state.as_of_sequence
            yield feed.SubscribeResponse(snapshot=state)
        else:
            cursor = request.after_sequence if request.HasField("after_sequence") else source.head.sequence
            if cursor > source.head.sequence:
                raise SequenceAhead(cursor, source.head.sequence)
        while True:
            if source.draining and not (source.finished and cursor >= source.head.sequence):
                # Before the backlog: who is far behind would be cut off without a cursor.
                fenced = getattr(source, "fenced", False)
                yield _end(feed.STREAM_END_REASON_FENCED if fenced else feed.STREAM_END_REASON_DRAINING, cursor)
                return
            part = fitting(await source.read(cursor, BATCH_EVENTS), lambda event: len(event.data), BATCH_BYTES)
            if part:
                yield _batch(source.head.epoch, part, wanted)
                cursor = part[-1].sequence
            elif source.finished:
                yield _end(feed.STREAM_END_REASON_RUN_ENDED, cursor)
                return
            else:
                await source.changed(cursor, CHECKPOINT_S)
                if source.head.sequence == cursor and not (source.finished or source.draining):
                    yield feed.SubscribeResponse(checkpoint=feed.Checkpoint(through_sequence=cursor, head_sequence=cursor))

    async def ListEvents(self, request: feed.ListEventsRequest, context: Context) -> feed.ListEventsResponse:
        source: FeedSource = await self._find(request.run_id)
        wanted = _Filter(request.filter)
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
        at_end = cursor <= 1 if request.newest_first else cursor >= source.head.sequence
        return feed.ListEventsResponse(
            events=[event.parse() for event in found],
            next_page_token="" if at_end or not more else page_token(request, [cursor]),
            head_sequence=source.head.sequence,
        )

    async def GetSnapshot(self, request: feed.GetSnapshotRequest, context: Context) -> feed.GetSnapshotResponse:
        source: FeedSource = await self._find(request.run_id)
        at = request.at_sequence if request.HasField("at_sequence") else None
        if at is not None and at > source.head.sequence:
            raise SequenceAhead(at, source.head.sequence)
        return feed.GetSnapshotResponse(state=await source.snapshot(at))


class _Filter:
    """The conditions of an EventFilter."""

    def __init__(self, message: feed.EventFilter) -> None:
        unknown = [kind for kind in message.kinds if kind not in KIND_NUMBERS]
        if unknown:
            raise InvalidRequest([FieldViolation("filter.kinds", f"{kind} is not a kind of event") for kind in unknown])
        self._kinds = frozenset(KIND_NUMBERS[kind] for kind in message.kinds)
        self._agents = frozenset(message.agent_ids)

    def passes(self, event: StoredEvent) -> bool:
        """True if an event meets every condition."""
        return (not self._kinds or event.kind in self._kinds) and (not self._agents or event.agent_id in self._agents)


def _batch(epoch: int, part: Sequence[StoredEvent], wanted: _Filter) -> feed.SubscribeResponse:
    """A batch with the events' own bytes: a message on the wire is its fields one after the other, so that none is decoded here."""
    span = feed.EventBatch(epoch=epoch, first_sequence=part[0].sequence, last_sequence=part[-1].sequence)
    pieces = [span.SerializeToString()]
    for event in part:
        if wanted.passes(event):
            pieces.append(delimited(_EVENTS_FIELD, event.data))
    return feed.SubscribeResponse(events=feed.EventBatch.FromString(b"".join(pieces)))


def _end(reason: feed.StreamEndReason.ValueType, cursor: int) -> feed.SubscribeResponse:
    retry_after = Duration()
    if reason != feed.STREAM_END_REASON_RUN_ENDED:
        retry_after.FromMilliseconds(round(RETRY_AFTER_S * 1000))
    return feed.SubscribeResponse(end=feed.StreamEnd(reason=reason, resume_after_sequence=cursor, retry_after=retry_after))
