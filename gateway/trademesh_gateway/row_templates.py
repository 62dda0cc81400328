"""Messages whose rows are the run's tickers, filled again and again: six of them are journaled in each session, with a row for every ticker.

A row that is there already takes its new figures in a third of the time that a new one takes to be made. What is handed out is encoded at
once, so that nobody sees a message change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from trademesh_runs.journal import EncodedPayload

Filled = TypeVar("Filled", bound=Message)

KEPT = 64


class RowTemplate(Generic[Filled]):
    """One message with a row per ticker. Who fills it sets every field of every row, since what was set before is still there: with `put`, or
    with `fill` where values are often those of the last time."""

    def __init__(self, kind: type[Filled], field: str, tickers: Sequence[str]) -> None:
        self.message = kind()
        rows: Any = getattr(self.message, field)
        self.rows: list[Any] = [rows.add(ticker=ticker) for ticker in tickers]
        self._filled: dict[str, Sequence[Any]] = {}

    def fill(self, field: str, values: Sequence[Any]) -> None:
        """Sets a field of all rows that is set in this way alone; nothing is to be done if the values equal those of the last time. Minus zero
        equals zero: a column in which it is told is `put`."""
        if self._filled.get(field) != values:
            self._filled[field] = list(values)
            self.put(field, values)

    def put(self, field: str, values: Sequence[Any]) -> None:
        """Sets a field of all rows."""
        if len(values) != len(self.rows):
            raise ValueError(f"{len(values)} values of {field} for {len(self.rows)} rows")
        # A loop that the interpreter does not see: half the time of one that it does.
        deque(map(setattr, self.rows, repeat(field), values), maxlen=0)

    def encoded(self, rest: bytes = b"") -> EncodedPayload:
        """The message as it is filled now, and after it other fields of its kind, encoded."""
        return EncodedPayload(self.message.SerializeToString() + rest)


@lru_cache(KEPT)
def template_of(kind: type[Filled], field: str, tickers: tuple[str, ...]) -> RowTemplate[Filled]:
    """The template of a kind of message for these tickers."""
    return RowTemplate(kind, field, tickers)
