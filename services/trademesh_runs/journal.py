"""The journal of a run: how an event is encoded, and what a journal can do. Storage is `journal_sqlite.py`'s.

An encoded event is its *core* (session, phase, agent, payload) followed by its *header* (sequence, id, time, generation); both parts are
the same message, so the whole parses as one Event. What the desk did is in the cores alone: `desk_digest` hashes those of payload
fields 40 and above, and is equal for two runs of one configuration.
"""

from __future__ import annotations

import hashlib
import struct
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message

from trademesh.gateway.v1.event_pb2 import Event

FIRST_DESK_FIELD = 40
"""Payload fields from here on tell what the desk did; those below tell about the process."""

KIND_NUMBERS: dict[str, int] = {field.name: field.number for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
KIND_NAMES = {number: name for name, number in KIND_NUMBERS.items()}

_LENGTH = struct.Struct("<I")
_ROW = struct.Struct("<QHI")


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before the journal takes it in. `item` tells events of one (session, phase, agent, kind) apart, for example an order id."""

    kind: str
    payload: Message
    session_date: str = ""
    phase: int = 0
    agent_id: str = ""
    item: str = ""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the journal keeps it."""

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
    """Newest sequence of a journal, 0 if it is empty, and the epoch that it is in."""

    epoch: int
    sequence: int
    compacted_through: int = 0


class JournalReader(Protocol):
    """Reads a journal, also while another process writes it."""

    def head(self) -> Head:
        """Where the journal ends now."""

    def read(self, after: int, limit: int, through: int | None = None) -> list[StoredEvent]:
        """Events after a sequence, oldest first."""

    def read_encoded(self, after: int, limit: int, most_bytes: int, through: int | None = None) -> list[tuple[int, bytes]]:
        """Sequences and encoded events after a sequence, oldest first: for who passes them on unread. Ends soon after `most_bytes`."""

    def read_before(self, before: int, limit: int) -> list[StoredEvent]:
        """Events before a sequence, newest first."""

    def read_kind(self, kind: str, through: int | None = None, newest: int | None = None) -> list[StoredEvent]:
        """Events of one kind, oldest first; only so many of the newest if said."""

    def close(self) -> None:
        """Ends the use of the journal."""


class JournalDamagedError(Exception):
    """The journal is not what was written; `sequence` is the first event that is in doubt."""

    def __init__(self, message: str, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence


class Encoder:
    """Encodes drafts of one run and generation."""

    def __init__(self, run_id: str, generation: int) -> None:
        self._namespace = uuid.uuid5(uuid.NAMESPACE_URL, f"trademesh:{run_id}").bytes
        self._generation = generation

    def event_id(self, draft: Draft) -> str:
        """Name of what happened: the same whenever it is done again."""
        key = f"{draft.session_date}\0{draft.phase}\0{draft.agent_id}\0{draft.kind}\0{draft.item}"
        digest = bytearray(hashlib.sha1(self._namespace + key.encode(), usedforsecurity=False).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x50
        digest[8] = digest[8] & 0x3F | 0x80
        text = digest.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def encode(self, draft: Draft, sequence: int, event_id: str) -> StoredEvent:
        """The event that a draft becomes at a sequence."""
        content: dict[str, Any] = {draft.kind: draft.payload}
        core = Event(session_date=draft.session_date, phase=draft.phase, agent_id=draft.agent_id, **content)  # type: ignore[arg-type]  # phases are numbers here
        header = Event(sequence=sequence, event_id=event_id, generation=self._generation)
        seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
        header.recorded_at.seconds, header.recorded_at.nanos = seconds, nanos
        encoded = core.SerializeToString(deterministic=True)
        return StoredEvent(sequence, KIND_NUMBERS[draft.kind], draft.agent_id, len(encoded), encoded + header.SerializeToString())


def chain(previous: bytes, events: Iterable[StoredEvent]) -> bytes:
    """Hash over a batch and the hash before it: covers every stored byte."""
    digest = hashlib.sha256(previous)
    for event in events:
        digest.update(_ROW.pack(event.sequence, event.kind, event.core_length))
        digest.update(_LENGTH.pack(len(event.agent_id)) + event.agent_id.encode())
        digest.update(_LENGTH.pack(len(event.data)) + event.data)
    return digest.digest()


def desk_digest(events: Iterable[StoredEvent]) -> str:
    """SHA-256 over what the desk did, hexadecimal."""
    digest = hashlib.sha256()
    for event in events:
        if event.kind >= FIRST_DESK_FIELD:
            digest.update(_LENGTH.pack(event.core_length))
            digest.update(event.data[: event.core_length])
    return digest.hexdigest()


def all_events(reader: JournalReader, after: int = 0, through: int | None = None, block: int = 2048) -> Iterator[StoredEvent]:
    """Every event after a sequence, read in blocks."""
    while True:
        part = reader.read(after, block, through)
        if not part:
            return
        yield from part
        after = part[-1].sequence
