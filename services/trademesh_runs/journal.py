"""The journal of a run: what an event is in it, how it is encoded, and what a journal can do. Callers know these protocols alone.

Storage is `journal_sqlite.py`'s and `journal_memory.py`'s; the order of writing is `journal_writer.py`'s, hashes are `chain.py`'s.

An encoded event is its *core* (session, phase, agent, payload) followed by its *header* (sequence, id, time, generation); both parts are
the same message, so the whole parses as one Event. What the desk did is in the cores alone.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.gateway.v1.event_pb2 import Event
from trademesh_kernel.wire_format import prefix, varint

KIND_NUMBERS: dict[str, int] = {field.name: field.number for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
KIND_NAMES = {number: name for name, number in KIND_NUMBERS.items()}
SETTLED = KIND_NUMBERS["settled"]
_KEPT_ORIGINS = 1024
_RECORDED_SHIFT = 20
"""Nanoseconds to about milliseconds: events of one such moment are said to be recorded at the same time."""
_SEQUENCE_TAG, _ID_PREFIX = varint(Event.SEQUENCE_FIELD_NUMBER << 3), prefix(Event.EVENT_ID_FIELD_NUMBER, len(str(uuid.NAMESPACE_URL)))
_prefix = lru_cache(8192)(prefix)
_stored = tuple.__new__
"""Makes a StoredEvent in half the time that its class takes."""
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class EncodedPayload(NamedTuple):
    """A payload in its encoded form, from who has it so already: in the place of its message."""

    data: bytes

    def SerializeToString(self) -> bytes:  # the name that messages have for it
        """The same bytes that the message would give."""
        return self.data


class Draft(NamedTuple):
    """An event before the journal takes it in. `item` tells events of one (session, phase, agent, kind) apart, for example an order id."""

    kind: str
    payload: Message | EncodedPayload
    session_date: str = ""
    phase: int = 0
    agent_id: str = ""
    item: str = ""


class StoredEvent(NamedTuple):
    """An event as the journal keeps it: a row of it, as it is."""

    sequence: int
    kind: int
    agent_id: str
    core_length: int
    data: bytes

    def parse(self) -> Event:
        """The event."""
        return Event.FromString(self.data)


@dataclass(frozen=True, slots=True)
class Head:
    """Newest sequence of a journal, 0 if it is empty, and the epoch that it is in. Events up to `compacted_through` are gone."""

    epoch: int
    sequence: int
    compacted_through: int = 0


class Link(NamedTuple):
    """The hash chain at one sequence. There is a link at every commit and after every settled event."""

    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What takes the place of events that were compacted: all that later ones need."""

    sequence: int
    chain: bytes
    """The hash chain after this event."""
    desk: bytes
    """The digest of what the desk did, up to this event."""
    state: bytes
    """gateway.v1.ServerState after this event."""


Published = Callable[[Sequence[StoredEvent]], None]
Stalled = Callable[[str | None], None]
"""Told why a journal cannot be written for now, and None once it can."""


class JournalReader(Protocol):
    """Reads a journal, also while another process writes it. Not for two threads at once."""

    def head(self) -> Head:
        """Where the journal ends now."""

    def read(self, after: int, limit: int, through: int | None = None, kinds: Collection[int] | None = None) -> list[StoredEvent]:
        """Events after a sequence, oldest first, of some kinds if said. Where they were compacted it begins with the first that is kept."""

    def read_encoded(self, after: int, limit: int, most_bytes: int, through: int | None = None) -> list[tuple[int, bytes]]:
        """Sequences and encoded events after a sequence, oldest first: for who passes them on unread. Ends soon after `most_bytes`."""

    def read_before(self, before: int, limit: int) -> list[StoredEvent]:
        """Events before a sequence, newest first."""

    def read_kind(self, kind: str, through: int | None = None, newest: int | None = None) -> list[StoredEvent]:
        """Events of one kind, oldest first; only so many of the newest if said."""

    def count(self, kind: str, through: int) -> int:
        """How many events of one kind are kept, up to a sequence."""

    def links(self, after: int, limit: int) -> list[Link]:
        """The hash chain after a sequence, oldest first."""

    def snapshot(self) -> Snapshot | None:
        """What takes the place of compacted events, if any were; raises JournalDamagedError."""

    def check(self) -> Head:
        """Reads everything and proves it whole; raises JournalDamagedError."""

    def standing_still(self) -> AbstractContextManager[None]:
        """While this lasts the journal is read as it was when it began, whatever its writer adds."""

    def close(self) -> None:
        """Ends the use of the journal."""


class JournalWriter(Protocol):
    """Writes a journal from one event loop. There is one at a time: a later generation fences an earlier one off."""

    epoch: int
    assigned: int
    """Newest sequence given."""
    committed: int
    """Newest sequence that is durable and published."""
    stalled: str
    """Why nothing can be written for now; empty if it can."""
    delay_s: float
    """How long the first event of a group waits for others."""

    def append(self, draft: Draft) -> bool:
        """Takes an event in; False if the journal has it already."""

    async def room(self) -> None:
        """Waits while too much is pending."""

    async def flush(self) -> None:
        """Waits until everything taken in so far is durable and published."""

    async def broken(self) -> None:
        """Waits until the journal fails for good, and raises why; returns when it is closed."""

    async def close(self) -> None:
        """Writes what is pending and lets go."""


class JournalCompactor(Protocol):
    """Takes events out of a journal that nobody writes."""

    def cut(self, snapshot: Snapshot) -> int:
        """Puts a snapshot in the place of all events up to its own, in one transaction; returns how many went."""

    def close(self) -> None:
        """Gives the room of what went back, and lets go."""


class JournalStore(Protocol):
    """One journal, wherever it is kept."""

    def reader(self) -> JournalReader:
        """Opens it for reading; raises NewerJournalError."""

    def writer(
        self, run_id: str, generation: int, published: Published, *, watermark: Head | None = None, stalled: Stalled | None = None
    ) -> JournalWriter:
        """Takes it over for a generation; raises FencedError, NewerJournalError. See `journal_writer.GroupWriter`."""

    def compactor(self) -> JournalCompactor:
        """Opens it for compaction. Who asks has made sure that nobody writes."""


class JournalDamagedError(Exception):
    """The journal is not what was written; `sequence` is the first event that is in doubt."""

    def __init__(self, message: str, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence


class FencedError(Exception):
    """A later generation writes this journal."""


class NewerJournalError(Exception):
    """The journal was written by a later version of trademesh."""


class _Origin(NamedTuple):
    """What is the same for all events of a kind by one agent in one phase, encoded."""

    kind: int
    place: bytes
    """Phase and agent."""
    named: bytes
    """The part of their names that follows the session."""


class Encoder:
    """Encodes drafts of one run and generation. Half of an append is done here: what is the same for many events is made once."""

    def __init__(self, run_id: str, generation: int) -> None:
        self._named = hashlib.sha1(uuid.uuid5(uuid.NAMESPACE_URL, f"trademesh:{run_id}").bytes, usedforsecurity=False)
        self._generation = generation
        self._recorded_moment = 0
        self._recorded = b""
        self._session_date = ""
        self._session = b""
        self._origins: dict[tuple[str, int, str], _Origin] = {}

    def event_id(self, draft: Draft) -> str:
        """Name of what happened, a UUID of version 5: the same whenever it is done again."""
        kind, _, session_date, phase, agent_id, item = draft
        origin = self._origins.get((kind, phase, agent_id)) or self._origin(kind, phase, agent_id)
        named = self._named.copy()
        named.update(session_date.encode() + origin.named + item.encode())
        text = named.hexdigest()
        return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:32]}"

    def encode(self, draft: Draft, sequence: int, event_id: str) -> StoredEvent:
        """The event that a draft becomes at a sequence; `event_id` is what the function of that name gives."""
        kind, message, session_date, phase, agent_id, _ = draft
        number, place, _ = self._origins.get((kind, phase, agent_id)) or self._origin(kind, phase, agent_id)
        if session_date != self._session_date:
            self._session_date = session_date
            self._session = Event(session_date=session_date).SerializeToString()
        moment = time.time_ns() >> _RECORDED_SHIFT
        if moment != self._recorded_moment:
            self._recorded_moment, self._recorded = moment, self._recorded_now()
        # The same bytes every time: no payload has a map, whose order would be free (test_journal.py).
        payload = message.SerializeToString()
        # On the wire a message is its fields, in the order of their numbers; the payload is the last of the core.
        core = b"".join((self._session, place, _prefix(number, len(payload)), payload))
        header = (_SEQUENCE_TAG, varint(sequence), _ID_PREFIX, event_id.encode(), self._recorded)
        return _stored(StoredEvent, (sequence, number, agent_id, len(core), core + b"".join(header)))

    def _recorded_now(self) -> bytes:
        """The end of a header: time and generation, encoded."""
        # Not FromNanoseconds, which takes as long as the rest of an append.
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        return Event(generation=self._generation, recorded_at=Timestamp(seconds=seconds, nanos=nanos)).SerializeToString()

    def _origin(self, kind: str, phase: int, agent_id: str) -> _Origin:
        if len(self._origins) >= _KEPT_ORIGINS:
            self._origins.clear()
        place = Event(phase=phase, agent_id=agent_id).SerializeToString()  # type: ignore[arg-type]  # phases are numbers here
        found = _Origin(KIND_NUMBERS[kind], place, f"\0{phase}\0{agent_id}\0{kind}\0".encode())
        self._origins[kind, phase, agent_id] = found
        return found


def all_events(
    reader: JournalReader, after: int = 0, through: int | None = None, block: int = 2048, kinds: Collection[int] | None = None
) -> Iterator[StoredEvent]:
    """Every event after a sequence that is kept, read in blocks."""
    while True:
        part = reader.read(after, block, through, kinds)
        if not part:
            return
        yield from part
        after = part[-1].sequence
