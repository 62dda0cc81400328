"""Hashes over a journal: the chain that covers every stored byte, and the digest of what the desk did. Both can be taken up in the middle.

The chain has a link at every commit and after every settled event. The digest begins anew after every settled event, from its value so
far. So a journal can be cut after any settled event and prove the same as before.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from trademesh_runs.journal import SETTLED, Head, JournalDamagedError, JournalReader, Link, Snapshot, StoredEvent

FIRST_DESK_FIELD = 40
"""Payload fields from here on tell what the desk did; those below tell about the process."""

_BLOCK = 2048
_AHEAD = 512
"""Events that are read at once: few enough to be still in the processor's cache when they are hashed and parsed."""
_MANY_BYTES = 64 * 1024
_KEEPS_INTERPRETER_BYTES = 2047
"""hashlib gives the interpreter up for more."""
_LENGTH = struct.Struct("<I")
_ROW = struct.Struct("<QHII")


def chain(previous: bytes, events: Iterable[StoredEvent]) -> bytes:
    """Hash over events and the hash before them: covers every stored byte."""
    parts = [previous]
    for sequence, kind, agent_id, core_length, data in events:
        agent = agent_id.encode()
        parts += (_ROW.pack(sequence, kind, core_length, len(agent)), agent, _LENGTH.pack(len(data)), data)
    hashed = b"".join(parts)
    if len(hashed) > _MANY_BYTES:
        # In one piece: other threads of ours run on meanwhile.
        return hashlib.sha256(hashed).digest()
    # In pieces for which the interpreter is not given up: to wake another thread and be in its way takes longer than to hash a few.
    digest = hashlib.sha256()
    for begin in range(0, len(hashed), _KEEPS_INTERPRETER_BYTES):
        digest.update(hashed[begin : begin + _KEEPS_INTERPRETER_BYTES])
    return digest.digest()


def links(previous: bytes, group: Sequence[StoredEvent]) -> list[Link]:
    """The links that a group adds to the chain."""
    found, begin = list[Link](), 0
    for place, event in enumerate(group):
        if event.kind == SETTLED or place == len(group) - 1:
            previous = chain(previous, group[begin : place + 1])
            found.append(Link(event.sequence, previous))
            begin = place + 1
    return found


class DeskDigest:
    """SHA-256 over what the desk did: equal for two runs of one configuration, whatever happened to their processes."""

    def __init__(self, settled: bytes = b"") -> None:
        """`settled` is the value of another digest after a settled event: this one goes on from there."""
        self.settled = settled
        """The value after the newest settled event."""
        self._digest = hashlib.sha256(settled)

    def add_all(self, events: Iterable[StoredEvent]) -> None:
        """Takes in the next events."""
        parts = list[bytes]()
        for _sequence, kind, _agent_id, core_length, data in events:
            if kind >= FIRST_DESK_FIELD:
                parts += (_LENGTH.pack(core_length), data[:core_length])
                if kind == SETTLED:
                    self._digest.update(b"".join(parts))
                    self.settled = self._digest.digest()
                    self._digest, parts = hashlib.sha256(self.settled), []
        self._digest.update(b"".join(parts))

    def hexdigest(self) -> str:
        """The value now, hexadecimal."""
        return self._digest.hexdigest()


def desk_digest(events: Iterable[StoredEvent], settled: bytes = b"") -> str:
    """The digest over events, hexadecimal; `settled` as in DeskDigest."""
    digest, left = DeskDigest(settled), iter(events)
    while part := tuple(islice(left, _AHEAD)):
        digest.add_all(part)
    return digest.hexdigest()


def seal(snapshot: Snapshot) -> bytes:
    """Hash over a snapshot, kept beside it: what it replaces is gone, and nothing else covers its bytes."""
    parts = (snapshot.chain, snapshot.desk, snapshot.state)
    return hashlib.sha256(_ROW.pack(snapshot.sequence, *map(len, parts)) + b"".join(parts)).digest()


class _EventsAhead:
    """Events of one link after the other, read for many links at once: most of the work of a small read is to begin it."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._ahead = list[StoredEvent]()
        self._given = 0

    def of(self, done: int, link: int, last: int) -> list[StoredEvent]:
        """As many events after `done` as there are up to a link, in which others are if some are missing. What is read on ends at `last`."""
        count = link - done
        if len(self._ahead) - self._given < count:
            kept = self._ahead[self._given :]
            try:
                read_on = self._reader.read(kept[-1].sequence if kept else done, max(_AHEAD, count), last)
            except Exception:
                # A page further on that cannot be read takes nothing with it that comes before: it is told when its own link is reached.
                self._ahead, self._given = [], 0
                return self._reader.read(done, count + 1, link)
            self._ahead, self._given = kept + read_on, 0
        begin, self._given = self._given, min(self._given + count, len(self._ahead))
        return self._ahead[begin : self._given]


def proven_links(reader: JournalReader, head: Head | None = None, block: int = _BLOCK) -> Iterator[tuple[Link, list[StoredEvent]]]:
    """Every link of the chain with the events that it covers, each proved before it is given.

    `head` is for a journal that may not be able to tell it. `block` links are read at a time.

    Raises:
        JournalDamagedError: an event is missing or not what was written, here or at the end.
    """
    snapshot = reader.snapshot()
    previous = b"" if snapshot is None else snapshot.chain
    done = 0 if snapshot is None else snapshot.sequence
    head = head or reader.head()
    if head.compacted_through != done:
        raise JournalDamagedError(f"the journal was compacted up to {head.compacted_through}, and its snapshot is of {done}", done)
    ahead = _EventsAhead(reader)
    while recorded := reader.links(done, block):
        for link in recorded:
            if link.sequence > head.sequence:
                raise JournalDamagedError(f"the journal breaks off after event {head.sequence}", head.sequence + 1)
            events = ahead.of(done, link.sequence, recorded[-1].sequence)
            for place, event in enumerate(events):
                if event.sequence != done + place + 1:
                    raise JournalDamagedError(f"event {done + place + 1} is missing", done + place + 1)
            if len(events) != link.sequence - done:
                raise JournalDamagedError(f"event {done + len(events) + 1} is missing", done + len(events) + 1)
            previous = chain(previous, events)
            if previous != link.hash:
                raise JournalDamagedError(f"events {done + 1} to {link.sequence} are not what was written", done + 1)
            yield link, events
            done = link.sequence
    if done != head.sequence:
        raise JournalDamagedError(f"the journal breaks off after event {done}", done + 1)


@contextmanager
def rows_of_their_kind() -> Iterator[None]:
    """What is read of a journal within is of the types that it was written with, or the journal is damaged.

    Raises:
        JournalDamagedError: it is not.
    """
    try:
        yield
    except (struct.error, TypeError, AttributeError, ValueError) as error:
        raise JournalDamagedError(f"a row of the journal is not of its kind: {error}", 0) from error


def proven_events(reader: JournalReader) -> Iterator[list[StoredEvent]]:
    """Every event, those of one link at a time, each proved before it is given: gapless, and every byte covered by the chain.

    An end that was cut off right after a link leaves a whole journal, only a shorter one: whoever has heard of later events finds that
    (`journal_writer.GroupWriter`'s watermark, `verification.py`).

    Raises:
        JournalDamagedError: an event is missing or not what was written, here or at the end.
    """
    with rows_of_their_kind():
        for _link, events in proven_links(reader):
            yield events


def check_chain(reader: JournalReader) -> Head:
    """Reads a journal and proves it whole, as `proven_events` does; raises JournalDamagedError."""
    for _ in proven_events(reader):
        pass
    return reader.head()
