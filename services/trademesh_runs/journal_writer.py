"""How events get into a journal, whatever keeps it: numbered at once, written in groups by a thread, published after their commit.

A group is 1,024 events, 256 KiB or 20 ms, whichever is first (`delay_s`: less where what is journaled is acted on). Where it is written is the storage's (`journal_sqlite.py`,
`journal_memory.py`). A disk without room is waited for: nothing is lost, and whoever asks is told.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from trademesh.gateway.v1.event_pb2 import JournalTruncated
from trademesh_runs.chain import links
from trademesh_runs.journal import Draft, Encoder, FencedError, Head, Link, Published, Stalled, StoredEvent

BATCH_EVENTS = 1024
BATCH_BYTES = 256 * 1024
BATCH_DELAY_S = 0.02
MOST_PENDING_GROUPS = 2
"""One is written while the next is made: more would wait in memory, and no event would be written sooner."""
RETRY_S = 0.5
HAND_OVER_S = 0.005

Answer = TypeVar("Answer")


class NoRoomError(OSError):
    """The storage has no room for a group now, and holds what it held before."""


class JournalStorage(Protocol):
    """Where a writer's groups go. Used by one thread at a time."""

    def take_over(self, generation: int) -> None:
        """Fences earlier generations off; raises FencedError."""

    def head(self) -> Head:
        """Where the journal ends."""

    def last_hash(self) -> bytes:
        """The end of the chain."""

    def open_session(self) -> list[StoredEvent]:
        """Events after the last settlement: those that may be done again."""

    def commit(
        self, group: Sequence[StoredEvent], added: Sequence[Link], epoch: int | None = None, prepared: Callable[[], None] | None = None
    ) -> None:
        """One durable transaction, in a new epoch if said; raises FencedError, NoRoomError.

        `prepared` is called when the rest is the storage's own work, beside which our other threads can run.
        """

    def give_room(self) -> bool:
        """Gives up the room that was held back for this, so that what happens can still be told; False if there was none."""

    def hold_room(self) -> bool:
        """Holds room back; False while there is too little."""

    def close(self) -> None:
        """Leaves the journal tidy for readers, and lets go of it."""

    def abandon(self) -> None:
        """Lets go of the journal as it is: another may write it."""


class GroupWriter:
    """Writes a journal from one event loop (a JournalWriter)."""

    def __init__(
        self,
        storage: JournalStorage,
        run_id: str,
        generation: int,
        published: Published,
        *,
        watermark: Head | None = None,
        stalled: Stalled | None = None,
    ) -> None:
        """Takes a journal over for a generation.

        `published` is told of every group after its commit. `watermark` is the newest head that anybody has heard of: a journal that ends
        before it has lost its end, and goes on in a new epoch, which begins with JournalTruncated. `stalled` is told when there is no
        room to write, and with None when there is again.

        Raises:
            FencedError: a later generation has it.
        """
        self._storage = storage
        self.delay_s = BATCH_DELAY_S
        self._encoder = Encoder(run_id, generation)
        self._published = published
        self._tell_stalled = stalled
        self.stalled = ""
        try:
            head = self._take_over(generation, watermark)
            self._known = {event.parse().event_id for event in storage.open_session()}
            storage.hold_room()
        except BaseException:
            storage.abandon()
            raise
        self.epoch = head.epoch
        self.assigned = self.committed = self._wanted = head.sequence
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._groups = deque([list[StoredEvent]()])
        """What waits to be written: whole groups, and at the end one that is being made."""
        self._last_bytes = 0
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._committed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._failure: BaseException | None = None
        self._task = asyncio.create_task(self._write_groups(), name="journal writer")

    def _take_over(self, generation: int, watermark: Head | None) -> Head:
        self._storage.take_over(generation)
        self._hash = self._storage.last_hash()
        head = self._storage.head()
        if watermark is not None and (watermark.epoch, watermark.sequence) > (head.epoch, head.sequence):
            return self._begin_epoch(head, watermark, generation)
        return head

    def _begin_epoch(self, head: Head, watermark: Head, generation: int) -> Head:
        """Says in the journal that its end was lost. No number is then used twice in one epoch."""
        lost = JournalTruncated(
            kept_through=head.sequence,
            known_through=watermark.sequence,
            earlier_epoch=watermark.epoch,
            reason=f"event {watermark.sequence} of epoch {watermark.epoch} was known to be written and is not in the journal",
        )
        draft = Draft("journal_truncated", lost, item=str(generation))
        event = self._encoder.encode(draft, head.sequence + 1, self._encoder.event_id(draft))
        added = links(self._hash, [event])
        self._storage.commit([event], added, watermark.epoch + 1)
        self._hash = added[-1].hash
        return self._storage.head()

    def append(self, draft: Draft) -> bool:
        """Takes an event in; False if the journal has it already. Does not wait: see `room` and `flush`.

        Raises:
            FencedError, sqlite3.Error: an earlier group could not be written.
        """
        if self._failure is not None:
            raise self._failure
        event_id = self._encoder.event_id(draft)
        if self._known and event_id in self._known:
            return False
        event = self._encoder.encode(draft, self.assigned + 1, event_id)
        self.assigned += 1
        group, size_bytes = self._groups[-1], len(event.data)
        group.append(event)
        self._last_bytes += size_bytes
        self._pending_bytes += size_bytes
        if len(group) >= BATCH_EVENTS or self._last_bytes >= BATCH_BYTES:
            self._groups.append([])
            self._last_bytes = 0
            self._wake.set()
        elif len(group) == 1:
            self._wake.set()
        return True

    async def room(self) -> None:
        """Waits while too much is pending: the back pressure of the disk on the pipeline."""
        await self._until(self._has_room)

    def _has_room(self) -> bool:
        pending = self.assigned - self.committed
        return pending < MOST_PENDING_GROUPS * BATCH_EVENTS and self._pending_bytes < MOST_PENDING_GROUPS * BATCH_BYTES

    async def flush(self) -> None:
        """Waits until everything taken in so far is durable and published."""
        goal = self._wanted = self.assigned
        self._wake.set()
        await self._until(lambda: self.committed >= goal)

    async def broken(self) -> None:
        """Waits until a group cannot be written for good, and raises why; returns when the journal is closed."""
        await self._until(self._task.done)

    async def _until(self, condition: Callable[[], bool]) -> None:
        if self._failure is None and not condition():
            async with self._committed:
                await self._committed.wait_for(lambda: self._failure is not None or condition())
        if self._failure is not None:
            raise self._failure

    async def _write_groups(self) -> None:
        try:
            while True:
                await self._until_a_group()
                group = self._next_group()
                if group:
                    await self._write(group)
                    self._published(group)
                    async with self._committed:
                        self.committed = group[-1].sequence
                        self._pending_bytes -= sum([len(event.data) for event in group])
                        self._committed.notify_all()
                if self.stalled:
                    room = await self._in_thread(self._storage.hold_room)
                    if room:
                        self._say_stalled(None)
                if self._closing.is_set() and not self._is_pending():
                    return
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
            async with self._committed:
                self._committed.notify_all()

    def _is_pending(self) -> bool:
        return len(self._groups) > 1 or bool(self._groups[0])

    def _next_group(self) -> list[StoredEvent]:
        """The oldest group that waits, empty if none does."""
        group = self._groups.popleft()
        if not self._groups:
            self._groups.append([])
            self._last_bytes = 0
        return group

    def _may_wait(self) -> bool:
        """True if there is one group, not whole yet, and nobody asks for it."""
        return len(self._groups) == 1 and bool(group := self._groups[0]) and group[0].sequence > self._wanted and not self._closing.is_set()

    async def _until_a_group(self) -> None:
        if not self._is_pending():
            # Without anything to write nothing tells a stalled writer that there is room again: it looks by itself.
            await _wait(self._wake, RETRY_S if self.stalled else None)
        self._wake.clear()
        if self._may_wait():
            # The first event of a group waits for others; a whole group, a flush or the end wakes us at once.
            await _wait(self._wake, self.delay_s)
            self._wake.clear()

    async def _write(self, group: list[StoredEvent]) -> None:
        """Commits a group; while there is no room it is kept and tried again."""
        # Not in the thread: each hash would give way to the event loop there, and wait for it afterwards.
        added = links(self._hash, group)
        prepared = threading.Event()
        while True:
            last_try = self._closing.is_set()
            try:
                written = self._in_thread(lambda: self._storage.commit(group, added, prepared=prepared.set))
                # A thread that needs the interpreter gets it late from a loop that is busy, and one that has what it needs runs beside it.
                prepared.wait(HAND_OVER_S)
                await written
            except NoRoomError as error:
                if not self.stalled:
                    self._say_stalled(str(error))
                if await self._in_thread(self._storage.give_room):
                    continue
                if last_try:
                    raise
                await _wait(self._closing, RETRY_S)
            else:
                self._hash = added[-1].hash
                return

    def _say_stalled(self, reason: str | None) -> None:
        self.stalled = reason or ""
        if self._tell_stalled is not None:
            self._tell_stalled(reason)

    def _in_thread(self, work: Callable[[], Answer]) -> asyncio.Future[Answer]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Writes what is pending, and lets go. What no room is found for is not written: it was never published."""
        self._closing.set()
        self._wake.set()
        await self._task
        async with self._committed:
            self._committed.notify_all()
        self._thread.shutdown()
        if isinstance(self._failure, FencedError):
            self._storage.abandon()
        else:
            self._storage.close()


async def _wait(event: asyncio.Event, within_s: float | None) -> None:
    """Returns when an event is set, or after a while if there is one."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return
