"""The newest events of a run, encoded, and the rule by which a filter chooses among them. Pure: no I/O, no clock, no messages.

A reader is one integer, the last sequence that it has; it can never miss or repeat an event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

MAX_BATCH_EVENTS = 256
MAX_BATCH_BYTES = 256 * 1024
_MOST_SCANNED = 8 * MAX_BATCH_EVENTS
"""So many events are looked at for a batch whose filter passes few."""


@dataclass(frozen=True, slots=True)
class RingEvent:
    """One event: what filters look at, and its bytes as they stand in a batch."""

    sequence: int
    kind: str
    agent_id: str
    encoded: bytes
    find_tickers: Callable[[bytes], frozenset[str]] = lambda _encoded: frozenset()
    """Finds the tickers that the encoded event names: done only for readers who choose by them."""

    @property
    def tickers(self) -> frozenset[str]:
        """The tickers that the event names."""
        return self.find_tickers(self.encoded)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a browser wants; an empty set means all. Equal filters share a channel."""

    kinds: frozenset[str] = frozenset()
    agent_ids: frozenset[str] = frozenset()
    tickers: frozenset[str] = frozenset()

    def passes(self, event: RingEvent) -> bool:
        """True if the event meets every condition that is set."""
        return (
            (not self.kinds or event.kind in self.kinds)
            and (not self.agent_ids or event.agent_id in self.agent_ids)
            and (not self.tickers or not self.tickers.isdisjoint(event.tickers))
        )


EVERYTHING = Filter()
"""Leaves nothing out."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A span of sequences with the events that a filter lets through."""

    first_sequence: int
    last_sequence: int
    events: tuple[RingEvent, ...]


class SequenceGapError(Exception):
    """Events were appended that do not follow the last ones."""


class EventRing:
    """The newest events, bounded by number and by bytes. Holds sequences `first` to `last`; empty while `first > last`."""

    def __init__(self, after_sequence: int, *, max_events: int, max_bytes: int) -> None:
        self._events: deque[RingEvent] = deque()
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.bytes = 0
        self.last = after_sequence

    @property
    def first(self) -> int:
        """The oldest sequence held; `last + 1` while it holds none."""
        return self.last - len(self._events) + 1

    def append(self, events: Iterable[RingEvent]) -> int:
        """Adds events, leaving out those that it has had; returns how many are new.

        Raises:
            SequenceGapError: one event does not follow the one before.
        """
        added = 0
        for event in events:
            if event.sequence <= self.last:
                continue
            if event.sequence != self.last + 1:
                raise SequenceGapError(f"sequence {event.sequence} follows {self.last}")
            self._events.append(event)
            self.last = event.sequence
            self.bytes += len(event.encoded)
            added += 1
        while len(self._events) > self._max_events or (self.bytes > self._max_bytes and len(self._events) > 1):
            self.bytes -= len(self._events.popleft().encoded)
        return added

    def covers(self, cursor: int) -> bool:
        """True if everything after `cursor` is still here."""
        return self.first - 1 <= cursor <= self.last

    def slice(self, cursor: int, until: int, chosen: Filter) -> Slice:
        """What follows `cursor`, up to and including `until`, at most one batch. The caller has asked `covers`."""
        start = cursor + 1 - self.first
        size_bytes = 0
        picked = list[RingEvent]()
        last = cursor
        for event in self._from(start):
            if event.sequence > until:
                break
            if chosen.passes(event):
                if picked and (len(picked) >= MAX_BATCH_EVENTS or size_bytes + len(event.encoded) > MAX_BATCH_BYTES):
                    break
                picked.append(event)
                size_bytes += len(event.encoded)
            last = event.sequence
        return Slice(cursor + 1, last, tuple(picked))

    def _from(self, start: int) -> Iterable[RingEvent]:
        """Events from a place on, enough for a batch, reached from the nearer end: a reader who is up to date wants only the newest."""
        left = len(self._events) - start
        if left < start and left <= _MOST_SCANNED:
            return reversed(list(islice(reversed(self._events), left)))
        return islice(self._events, start, start + _MOST_SCANNED)
