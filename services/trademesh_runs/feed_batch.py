"""Events as the feed sends them: the journal's own bytes, put together and never decoded. A message on the wire is its fields, one after the
other, so a batch is its span followed by its events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh_kernel.wire_format import delimited, prefix
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.journal import JournalReader, StoredEvent, all_events

BATCH_EVENTS = 256
BATCH_BYTES = 64 * 1024
"""A batch ends with the event that reaches this. A reader that stands still holds one in gRPC, beside what HTTP/2 lets through: the contract
would allow 256 KiB, and readers are not faster with it."""

READ_BATCHES = 2
"""So many are read from a journal at once: a thread that is asked for one alone costs as much as the reading."""

SCANNED_EVENTS = 2048
"""So many events at most are looked at for one batch of a filtered stream."""

PASSED_OVER_EVENTS = 16_384
"""So many at most are covered by one of which the journal passes over other kinds."""

_EVENTS_FIELD = feed.EventBatch.DESCRIPTOR.fields_by_name["events"].number
_BATCH_FIELD = feed.SubscribeResponse.DESCRIPTOR.fields_by_name["events"].number


@dataclass(slots=True)
class Batch:
    """What follows a place in a journal: a span of sequences, and those of its events that are wanted."""

    first: int
    """First sequence that was looked at; beyond the one after the place, if events are missing in between."""
    last: int
    count: int
    """Events that are wanted."""
    content: bytes
    """They, as fields of an EventBatch."""
    _message: tuple[int, int, bytes] | None = field(default=None, repr=False)

    def message(self, epoch: int, first: int) -> bytes:
        """The encoded SubscribeResponse that covers everything from a sequence on. Readers at one place get the same bytes."""
        if self._message is None or self._message[:2] != (epoch, first):
            span = feed.EventBatch(epoch=epoch, first_sequence=first, last_sequence=self.last).SerializeToString()
            size = len(span) + len(self.content)
            self._message = (epoch, first, b"".join((prefix(_BATCH_FIELD, size), span, self.content)))
        return self._message[2]


@lru_cache(8192)
def _event_prefix(size_bytes: int) -> bytes:
    return prefix(_EVENTS_FIELD, size_bytes)


def batch_of(events: Sequence[tuple[int, bytes]]) -> Batch:
    """A batch of all these events, sequences and bytes; at least one."""
    encoded = [data for _, data in events]
    pieces = [b""] * (2 * len(encoded))
    pieces[::2] = map(_event_prefix, map(len, encoded))
    pieces[1::2] = encoded
    return Batch(events[0][0], events[-1][0], len(encoded), b"".join(pieces))


def selected(events: Iterable[StoredEvent], wanted: FeedFilter) -> Batch | None:
    """A batch that covers these events, or the first of them as far as a batch can hold those that are wanted; None without any event."""
    found, first, last = _Content(), 0, 0
    for event in events:
        first, last = first or event.sequence, event.sequence
        if wanted.passes(event) and found.add(event):
            break
    return found.batch(first, last) if first else None


class _Content:
    """What is wanted of a span."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def add(self, event: StoredEvent) -> bool:
        """Takes an event in; true if no more belong into the same batch."""
        self._pieces.append(delimited(_EVENTS_FIELD, event.data))
        self._size_bytes += len(event.data)
        return len(self._pieces) == BATCH_EVENTS or self._size_bytes >= BATCH_BYTES

    def batch(self, first: int, last: int) -> Batch:
        """The batch of a span."""
        return Batch(first, last, len(self._pieces), b"".join(self._pieces))


def read_batches(reader: JournalReader, after: int, through: int, wanted: FeedFilter | None, most: int = READ_BATCHES) -> list[Batch]:
    """Batches after a sequence, from a journal, one behind the other; empty if nothing is there. `wanted` None: all events, in about `most`
    batches.
    """
    if wanted is None:
        return list(_split(reader.read_encoded(after, most * BATCH_EVENTS, most * BATCH_BYTES, through), through))
    if wanted.kinds:
        found = _of_kinds(reader, after, through, wanted)
    else:
        found = selected(islice(all_events(reader, after, through, BATCH_EVENTS), SCANNED_EVENTS), wanted)
    return [] if found is None else [found]


def _of_kinds(reader: JournalReader, after: int, through: int, wanted: FeedFilter) -> Batch | None:
    """The same where the journal itself passes over other kinds: what it does not hand out costs us nothing."""
    beginning = reader.read(after, 1, through)
    if not beginning:
        return None
    first = beginning[0].sequence
    found, last = _Content(), min(through, first + PASSED_OVER_EVENTS - 1)
    for event in all_events(reader, first - 1, last, BATCH_EVENTS, wanted.kinds):
        if wanted.passes(event) and found.add(event):
            last = event.sequence
            break
    return found.batch(first, last)


def _split(events: Sequence[tuple[int, bytes]], through: int) -> Iterator[Batch]:
    first = size_bytes = 0
    for place, (_, data) in enumerate(events):
        size_bytes += len(data)
        if size_bytes >= BATCH_BYTES or place - first == BATCH_EVENTS - 1:
            yield batch_of(events[first : place + 1])
            first, size_bytes = place + 1, 0
    if first < len(events) and (first == 0 or events[-1][0] == through):
        # A rest that more follows is read again with it: small batches cost as much as full ones.
        yield batch_of(events[first:])
