"""Rows of many sessions encoded at once: messages with a row per ticker, from arrays of sessions by tickers.

By way of messages a row costs half a microsecond, by way of this a tenth. The bytes are those that the messages would give
(tests/unit/gateway/test_table_rows.py). For tables whose sessions are all known beforehand; what depends on the account is filled into
`row_templates.py` session by session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from trademesh_kernel.wire_format import delimited, varint

ROWS_AT_ONCE = 5_120
"""So many rows are encoded together: with 20 tickers 256 sessions, with 2,000 two or three, so that memory does not grow with the tickers."""
_VARINT, _FIXED64, _DELIMITED = 0, 1, 2
_SEVEN_BITS = 0x7F
_TICKER_FIELD = 1

Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


class EncodedRows:
    """The encoded rows of each session of a table, made piece by piece when they are asked for."""

    def __init__(self, encode: Callable[[slice], list[bytes]], tickers: int) -> None:
        """`encode` gives the rows of a stretch of sessions."""
        self._encode = encode
        self._at_once = max(1, ROWS_AT_ONCE // max(1, tickers))
        self._first = 0
        self._piece: list[bytes] = []

    def of(self, place: int) -> bytes:
        """All rows of one session."""
        if not self._first <= place < self._first + len(self._piece):
            self._first = place
            self._piece = self._encode(slice(place, place + self._at_once))
        return self._piece[place - self._first]


def double(number: int, values: npt.NDArray[np.float64]) -> tuple[Bytes, Flags]:
    """A field of type double: its bytes, and where it is there."""
    encoded = np.empty((*values.shape, 9), np.uint8)
    encoded[..., 0] = number << 3 | _FIXED64
    encoded[..., 1:] = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(*values.shape, 8)
    # By its bits: minus zero is told.
    return encoded, np.ascontiguousarray(values).view(np.uint64) != 0


def small(number: int, values: npt.NDArray[np.int64]) -> tuple[Bytes, Flags]:
    """A field of a whole number from 0 to 127: an enumeration."""
    encoded = np.empty((*values.shape, 2), np.uint8)
    encoded[..., 0] = number << 3 | _VARINT
    encoded[..., 1] = values
    return encoded, values != 0


def same(number: int, value: int, where: Flags) -> tuple[Bytes, Flags]:
    """A field of a whole number that is the same in all rows that have it."""
    return _constant(varint(number << 3 | _VARINT) + varint(value), where if value else np.zeros_like(where))


def text(number: int, value: str, where: Flags) -> tuple[Bytes, Flags]:
    """A field of a text that is the same in all rows that have it."""
    return _constant(delimited(number, value.encode()), where)


def _constant(encoded: bytes, where: Flags) -> tuple[Bytes, Flags]:
    return np.broadcast_to(np.frombuffer(encoded, np.uint8), (*where.shape, len(encoded))), where


def encoded_rows(number: int, tickers: Sequence[str], fields: Sequence[tuple[Bytes, Flags]], rows: Flags) -> list[bytes]:
    """The rows of each session, one after another: `number` is that of the repeated field that they are. Their first field is the ticker, which
    has number 1; `fields` follow by their numbers. `rows` says which tickers have a row, sessions by tickers."""
    parts = [_tickers(tickers, rows), *((encoded, _wide(there, encoded)) for encoded, there in fields)]
    there = np.concatenate([flags for _, flags in parts], axis=2) & rows[..., np.newaxis]
    sizes = there.sum(axis=2)
    head, of_head = _heads(number, sizes, rows)
    content = np.concatenate([head, *(encoded for encoded, _ in parts)], axis=2)
    flat = content[np.concatenate([of_head, there], axis=2)].tobytes()
    ends = np.cumsum(sizes.sum(axis=1) + of_head.sum(axis=(1, 2))).tolist()
    return [flat[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _heads(number: int, sizes: npt.NDArray[np.int64], rows: Flags) -> tuple[Bytes, Flags]:
    """Tag and length of each row: two bytes, three of one with a ticker of a hundred letters."""
    head, there, long = np.empty((*rows.shape, 3), np.uint8), np.empty((*rows.shape, 3), bool), sizes > _SEVEN_BITS
    head[..., 0], head[..., 1], head[..., 2] = number << 3 | _DELIMITED, sizes & _SEVEN_BITS | long << 7, sizes >> 7
    there[..., 0] = there[..., 1] = rows
    there[..., 2] = long
    return head, there


def _tickers(tickers: Sequence[str], rows: Flags) -> tuple[Bytes, Flags]:
    names = [delimited(_TICKER_FIELD, ticker.encode()) for ticker in tickers]
    longest = max(map(len, names), default=0)
    encoded, there = np.zeros((len(names), longest), np.uint8), np.zeros((len(names), longest), bool)
    for place, name in enumerate(names):
        encoded[place, : len(name)] = np.frombuffer(name, np.uint8)
        there[place, : len(name)] = True
    shape = (*rows.shape, longest)
    return np.broadcast_to(encoded, shape), np.broadcast_to(there, shape)


def _wide(there: Flags, encoded: Bytes) -> Flags:
    """A flag for each byte."""
    return np.broadcast_to(there[..., np.newaxis], encoded.shape)
