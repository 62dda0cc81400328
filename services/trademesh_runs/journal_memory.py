"""A journal in memory: the same promises without a disk, for tests and for proof that callers know the protocols alone.

Durability is what it lacks. It can be said to be `full`, so that what follows can be tested without a disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from trademesh_runs.chain import check_chain
from trademesh_runs.journal import KIND_NUMBERS, SETTLED, FencedError, Head, Link, Published, Snapshot, Stalled, StoredEvent
from trademesh_runs.journal_writer import GroupWriter, NoRoomError


class MemoryStore:
    """A journal in memory (a JournalStore)."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.events: list[StoredEvent] = []
        self.links: list[Link] = []
        self.snapshot: Snapshot | None = None
        self.epoch = 1
        self.generation = 0
        self.full = False
        """True: there is no room for another group."""

    def head(self) -> Head:
        """Where the journal ends."""
        compacted = self.snapshot.sequence if self.snapshot else 0
        return Head(self.epoch, self.events[-1].sequence if self.events else compacted, compacted)

    def reader(self) -> MemoryReader:
        """Opens it for reading."""
        return MemoryReader(self)

    def writer(
        self, run_id: str, generation: int, published: Published, *, watermark: Head | None = None, stalled: Stalled | None = None
    ) -> GroupWriter:
        """Takes it over for a generation."""
        return GroupWriter(_MemoryStorage(self), run_id, generation, published, watermark=watermark, stalled=stalled)

    def compactor(self) -> MemoryCompactor:
        """Opens it for compaction."""
        return MemoryCompactor(self)


class MemoryReader:
    """Reads a journal in memory (a JournalReader)."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._still: tuple[list[StoredEvent], list[Link], Snapshot | None, Head] | None = None

    def _now(self) -> tuple[list[StoredEvent], list[Link], Snapshot | None, Head]:
        if self._still is not None:
            return self._still
        with self._store.lock:
            return list(self._store.events), list(self._store.links), self._store.snapshot, self._store.head()

    def head(self) -> Head:
        """Where the journal ends now."""
        return self._now()[3]

    def read(self, after: int, limit: int, through: int | None = None, kinds: Collection[int] | None = None) -> list[StoredEvent]:
        """Events after a sequence, oldest first, of some kinds if said."""
        found = (
            event
            for event in self._now()[0]
            if event.sequence > after and (through is None or event.sequence <= through) and (kinds is None or event.kind in kinds)
        )
        return [event for event, _ in zip(found, range(limit), strict=False)]

    def read_encoded(self, after: int, limit: int, most_bytes: int, through: int | None = None) -> list[tuple[int, bytes]]:
        """Sequences and encoded events after a sequence, oldest first. Ends soon after `most_bytes` are reached."""
        found, size_bytes = list[tuple[int, bytes]](), 0
        for event in self.read(after, limit, through):
            if size_bytes >= most_bytes:
                break
            found.append((event.sequence, event.data))
            size_bytes += len(event.data)
        return found

    def read_before(self, before: int, limit: int) -> list[StoredEvent]:
        """Events before a sequence, newest first."""
        return [event for event in reversed(self._now()[0]) if event.sequence < before][:limit]

    def read_kind(self, kind: str, through: int | None = None, newest: int | None = None) -> list[StoredEvent]:
        """Events of one kind, oldest first; only so many of the newest if said."""
        number = KIND_NUMBERS[kind]
        found = [event for event in self._now()[0] if event.kind == number and (through is None or event.sequence <= through)]
        return found if newest is None else found[max(0, len(found) - newest) :]

    def count(self, kind: str, through: int) -> int:
        """How many events of one kind are kept, up to a sequence."""
        return len(self.read_kind(kind, through))

    def links(self, after: int, limit: int) -> list[Link]:
        """The hash chain after a sequence, oldest first."""
        return [link for link in self._now()[1] if link.sequence > after][:limit]

    def snapshot(self) -> Snapshot | None:
        """What takes the place of compacted events, if any were."""
        return self._now()[2]

    def check(self) -> Head:
        """Reads everything and proves it whole; raises JournalDamagedError."""
        if self._still is not None:
            return check_chain(self)
        with self.standing_still():
            return check_chain(self)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """While this lasts the journal is read as it was when it began, whatever its writer adds."""
        self._still = self._now()
        try:
            yield
        finally:
            self._still = None

    def close(self) -> None:
        """Nothing is open."""


class _MemoryStorage:
    """Where groups go (a JournalStorage)."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._generation = 0

    def take_over(self, generation: int) -> None:
        """Fences earlier generations off."""
        with self._store.lock:
            if generation <= self._store.generation:
                raise FencedError(f"generation {generation} is not newer than {self._store.generation}")
            self._generation = self._store.generation = generation

    def head(self) -> Head:
        """Where the journal ends."""
        return self._store.head()

    def last_hash(self) -> bytes:
        """The end of the chain."""
        if self._store.links:
            return self._store.links[-1].hash
        return self._store.snapshot.chain if self._store.snapshot else b""

    def open_session(self) -> list[StoredEvent]:
        """Events after the last settlement: those that may be done again."""
        events = self._store.events
        settled = max((event.sequence for event in events if event.kind == SETTLED), default=0)
        return [event for event in events if event.sequence > settled]

    def commit(
        self, group: Sequence[StoredEvent], added: Sequence[Link], epoch: int | None = None, prepared: Callable[[], None] | None = None
    ) -> None:
        """One transaction."""
        if prepared is not None:
            prepared()
        with self._store.lock:
            if self._store.generation != self._generation:
                raise FencedError(f"generation {self._generation} has been replaced")
            if self._store.full:
                raise NoRoomError("there is no room to write the journal: it was said to be full")
            self._store.epoch = epoch or self._store.epoch
            self._store.events += group
            self._store.links += added

    def give_room(self) -> bool:
        """Memory holds none back."""
        return False

    def hold_room(self) -> bool:
        """Memory holds none back."""
        return not self._store.full

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""


class MemoryCompactor:
    """Takes events out of a journal in memory (a JournalCompactor)."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def cut(self, snapshot: Snapshot) -> int:
        """Puts a snapshot in the place of all events up to its own; returns how many went."""
        with self._store.lock:
            kept = [event for event in self._store.events if event.sequence > snapshot.sequence]
            gone = len(self._store.events) - len(kept)
            self._store.events = kept
            self._store.links = [link for link in self._store.links if link.sequence > snapshot.sequence]
            self._store.snapshot = snapshot
            return gone

    def close(self) -> None:
        """Nothing is open."""
