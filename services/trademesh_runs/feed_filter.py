"""Which events a reader wants: by kind, agent and ticker. Decides from an event's row and bytes; parses only what may name the ticker."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from trademesh.gateway.v1.feed_service_pb2 import EventFilter
from trademesh_kernel.errors import FieldViolation, InvalidRequest
from trademesh_runs.journal import KIND_NAMES, KIND_NUMBERS, StoredEvent

TICKER_FIELDS = ("ticker", "tickers")
"""Fields that name tickers, wherever in an event they stand."""


class FeedFilter:
    """The conditions of an EventFilter."""

    def __init__(self, message: EventFilter) -> None:
        """Raises InvalidRequest if there is no such kind of event."""
        unknown = [kind for kind in message.kinds if kind not in KIND_NUMBERS]
        if unknown:
            raise InvalidRequest([FieldViolation("filter.kinds", f"{kind} is not a kind of event") for kind in unknown])
        self.kinds = frozenset(KIND_NUMBERS[kind] for kind in message.kinds)
        """Numbers of the only kinds that pass; empty: any."""
        self._agents = frozenset(message.agent_ids)
        self._tickers = frozenset(message.tickers)
        self._ticker_bytes = [ticker.encode() for ticker in message.tickers]

    @property
    def passes_all(self) -> bool:
        """True if no condition is set."""
        return not (self.kinds or self._agents or self._tickers)

    def passes(self, event: StoredEvent) -> bool:
        """True if an event meets every condition."""
        if self.kinds and event.kind not in self.kinds:
            return False
        if self._agents and event.agent_id not in self._agents:
            return False
        return not self._tickers or self._names_a_ticker(event)

    def _names_a_ticker(self, event: StoredEvent) -> bool:
        # A text stands in an encoded message as it is. Where none of them stands, none is named; where one does, it may be a part of
        # another word.
        if not any(ticker in event.data for ticker in self._ticker_bytes):
            return False
        payload = getattr(event.parse(), KIND_NAMES[event.kind])
        return any(ticker in self._tickers for ticker in tickers_of(payload))


def tickers_of(message: Any) -> Iterator[str]:
    """Every ticker that a payload names, some perhaps twice."""
    for field in _fields_to_tickers(message.DESCRIPTOR):
        if field.is_repeated:
            values = getattr(message, field.name)
        elif field.message_type is None or message.HasField(field.name):
            values = (getattr(message, field.name),)
        else:
            continue
        if field.message_type is None:
            yield from values
        else:
            for value in values:
                yield from tickers_of(value)


@cache
def _fields_to_tickers(message: Descriptor) -> tuple[FieldDescriptor, ...]:
    """Fields of a message that name tickers, or hold messages that do. No payload holds a message of its own type."""
    return tuple(
        field
        for field in message.fields
        if field.name in TICKER_FIELDS or (field.message_type is not None and _fields_to_tickers(field.message_type))
    )
