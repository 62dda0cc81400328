"""Which tickers an event names: whatever stands in a field `ticker` or `tickers`, at any depth of its payload.

Paths to those fields are found once, from the contract, so that a new kind of event needs no line here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trademesh.gateway.v1.event_pb2 import Event

_NAMES = ("ticker", "tickers")
Path = tuple[str, ...]


def _paths(descriptor: Any, above: tuple[Any, ...] = ()) -> Iterator[Path]:
    for field in descriptor.fields:
        if field.name in _NAMES:
            yield (field.name,)
        elif field.message_type is not None and field.message_type not in above:
            for path in _paths(field.message_type, (*above, descriptor)):
                yield (field.name, *path)


_PATHS: dict[str, tuple[Path, ...]] = {
    field.name: tuple(_paths(field.message_type)) for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields
}


def tickers_of(event: Event) -> frozenset[str]:
    """The tickers that an event names."""
    kind = event.WhichOneof("payload")
    if kind is None:
        return frozenset()
    payload = getattr(event, kind)
    return frozenset(ticker for path in _PATHS[kind] for ticker in _values(payload, path))


def _values(message: Any, path: Path) -> Iterator[str]:
    value = getattr(message, path[0])
    for item in (value,) if isinstance(value, str) or hasattr(value, "DESCRIPTOR") else value:
        if len(path) == 1:
            yield item
        else:
            yield from _values(item, path[1:])
