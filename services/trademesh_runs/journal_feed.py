"""The feed of a journal while its writer is in this process: the newest events from memory, older ones from the file.

What a stream makes of it is `feed_subscription.py`'s.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_runs.feed_batch import BATCH_BYTES, BATCH_EVENTS, SCANNED_EVENTS, Batch, batch_of, read_batches, selected
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.fold import fold_journal
from trademesh_runs.journal import Head, JournalReader, StoredEvent
from trademesh_runs.quote_board import QuoteBoard
from trademesh_runs.wake import Wake

RING_EVENTS = 8192
RING_BYTES = 8 * 1024 * 1024
QUICK_READ_S = 0.005
"""A batch that the system has in memory is read in a tenth of this: then the event loop does it itself, since a thread costs more than that."""
READS_AFTER_A_SLOW_ONE = 8
"""So many are left to the thread before the loop tries again: a slow disk may hold it up for one read of these at most."""

Answer = TypeVar("Answer")


class JournalFeed:
    """A FeedSource over a journal and a ring of its newest events."""

    def __init__(
        self,
        run_id: str,
        reader: JournalReader,
        fold_reader: JournalReader,
        *,
        finished: bool,
        quotes: QuoteBoard | None = None,
    ) -> None:
        """`fold_reader` reads the same journal for states of the past: a fold of decades must not hold up who reads events."""
        self._run_id = run_id
        self._reader = reader
        self._fold_reader = fold_reader
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal reader")
        self._fold_thread = ThreadPoolExecutor(1, thread_name_prefix="journal folds")
        self._reading = threading.Lock()
        """Held by who reads: the thread, or the event loop, which never waits for it."""
        self._reads_for_thread = 1
        self._ring = list[StoredEvent]()
        self._ring_bytes = 0
        self._made: tuple[int, int, Batch] | None = None
        """The batch that was last made of all events, for which place and head: readers at the same place share it."""
        self.changed = Wake()
        self.head = reader.head()
        self.finished = finished
        self.draining = False
        self.fenced = False
        self.quotes = quotes

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Takes in events that were committed."""
        self._ring.extend(events)
        self._ring_bytes += sum(len(event.data) for event in events)
        over = over_bytes = 0
        while len(self._ring) - over > RING_EVENTS or self._ring_bytes - over_bytes > RING_BYTES:
            over_bytes += len(self._ring[over].data)
            over += 1
        del self._ring[:over]
        self._ring_bytes -= over_bytes
        self.head = Head(self.head.epoch, events[-1].sequence, self.head.compacted_through)
        self.changed.wake()

    def compacted(self, through: int) -> None:
        """Events up to a sequence were taken out of the journal; readers behind it are told so."""
        self.head = Head(self.head.epoch, self.head.sequence, through)
        kept = [event for event in self._ring if event.sequence > through]
        self._ring, self._ring_bytes = kept, sum(len(event.data) for event in kept)
        self._made = None
        self.changed.wake()

    def end(self) -> None:
        """Says that no event will follow."""
        self.finished = True
        self.changed.wake()

    def drain(self) -> None:
        """Ends every stream with its cursor."""
        self.draining = True
        self.changed.wake()

    def fence(self) -> None:
        """Another gateway writes the journal: ends every stream with its cursor, and says so."""
        self.fenced = True
        self.changed.wake()

    async def batches(self, after: int, wanted: FeedFilter | None) -> list[Batch]:
        """What is to be sent next to a reader that is at a sequence."""
        if not self._in_ring(after):
            return self._read_at_once(after) if wanted is None and self._may_read_at_once() else await self._read_in_thread(after, wanted)
        if wanted is not None:
            found = selected(self._from_ring(after, SCANNED_EVENTS), wanted)
            return [] if found is None else [found]
        events = self._from_ring(after, BATCH_EVENTS)
        if events and (self._made is None or self._made[:2] != (after, self.head.sequence)):
            self._made = (after, self.head.sequence, batch_of([(event.sequence, event.data) for event in _fitting(events)]))
        return [self._made[2]] if events and self._made is not None else []

    def _may_read_at_once(self) -> bool:
        return self._reads_for_thread == 0 and self._reading.acquire(blocking=False)

    def _read_at_once(self, after: int) -> list[Batch]:
        """One batch, in the event loop; `_reading` is held, and let go here."""
        began = time.perf_counter()
        try:
            return read_batches(self._reader, after, self.head.sequence, None, 1)
        finally:
            self._reading.release()
            if time.perf_counter() - began > QUICK_READ_S:
                self._reads_for_thread = READS_AFTER_A_SLOW_ONE

    async def _read_in_thread(self, after: int, wanted: FeedFilter | None) -> list[Batch]:
        self._reads_for_thread = max(0, self._reads_for_thread - 1)
        return await self._in_thread(read_batches, self._reader, after, self.head.sequence, wanted)

    async def read(self, after: int, limit: int, through: int | None = None) -> Sequence[StoredEvent]:
        """Events after a sequence, from the ring if it has them."""
        last = self.head.sequence if through is None else min(through, self.head.sequence)
        if self._in_ring(after):
            return self._from_ring(after, min(limit, max(0, last - after)))
        return await self._in_thread(self._reader.read, after, limit, last)

    def _in_ring(self, after: int) -> bool:
        return bool(self._ring) and after + 1 >= self._ring[0].sequence

    def _from_ring(self, after: int, limit: int) -> list[StoredEvent]:
        first = after + 1 - self._ring[0].sequence
        return self._ring[first : first + limit]

    async def read_before(self, before: int, limit: int) -> Sequence[StoredEvent]:
        """Events before a sequence, newest first."""
        return await self._in_thread(self._reader.read_before, min(before, self.head.sequence + 1), limit)

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence, folded from the journal."""
        through = self.head.sequence if at is None else at
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._fold_thread, lambda: fold_journal(self._run_id, self._fold_reader, through).state())

    async def _in_thread(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        def alone() -> Answer:
            with self._reading:
                return work(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self._thread, alone)

    def close(self) -> None:
        """Closes the journal."""
        for thread, reader in ((self._thread, self._reader), (self._fold_thread, self._fold_reader)):
            thread.shutdown()
            reader.close()


def _fitting(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    size_bytes = 0
    for place, event in enumerate(events):
        size_bytes += len(event.data)
        if size_bytes >= BATCH_BYTES:
            return events[: place + 1]
    return events
