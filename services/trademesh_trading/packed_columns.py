"""Columns of whole numbers as protobuf packs them into a message, made of arrays at once: the hot path of StreamBars.

By way of Python's numbers a value costs 50 ns, by way of this 2 to 4. All values of a column get the width of the largest: a varint may end in
bytes of zeros, which every reader of protobuf accepts (up to ten bytes), and which costs a few bytes of a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trademesh_trading.bar_matrices import Bars, Flags, Matrix, Revisions

FIELDS = ("close_micros", "open_micros", "high_micros", "low_micros", "volume_plus_one", "quality")
"""Those of `Bars` that are packed."""

DEFAULT_BLOCK_SESSIONS = 256
MOST_CELLS_OF_BLOCK = 65_536
"""Sessions times tickers: with open, high, low, close and volume about 2 MiB, where clients take in 4 by default."""

Pieces = list[bytes | memoryview]
"""What follows each other in a message: who joins all of one copies each column once."""


@dataclass(frozen=True)
class PackedBars:
    """Bars of some sessions and tickers: fields as they are packed, without tag and length, and what became known late.

    Closes are always there, 0 where a ticker has none: they say how many sessions and tickers there are. Other fields without a value are not.
    """

    fields: Mapping[str, Pieces]
    revisions: Revisions | None


def sessions_of_block(tickers: int, wanted: int = 0) -> int:
    """How many sessions of so many tickers are sent in one message, where so many are wanted at most; 0: the default."""
    return min(wanted or DEFAULT_BLOCK_SESSIONS, max(MOST_CELLS_OF_BLOCK // tickers, 1))


_GROUP_BITS = 7
_MORE = np.uint8(0x80)
_VALUES_AT_ONCE = 32_768
"""What is worked on together stays in a core's cache: 128 KiB each of the column, of its groups, and of what is moved about in them."""

_Words = npt.NDArray[np.uint32]


def packed_bars(bars: Bars) -> PackedBars:
    """Bars of a window, at least one session and ticker."""
    found = dict[str, Pieces]()
    for field in FIELDS:
        matrix: Matrix | Flags | None = getattr(bars, field)
        if matrix is not None and (field == FIELDS[0] or matrix.max()):
            found[field] = [packed(matrix)]
    return PackedBars(found, bars.revisions)


def packed(matrix: Matrix | Flags) -> memoryview:
    """The content of a field `repeated sint64`, or of flags `repeated uint32`, of values that are not negative, row by row."""
    values = matrix.ravel()
    if not len(values):
        return memoryview(b"")
    # Zigzag has the sign in its lowest bit.
    sign_bits = 1 if values.dtype == np.int64 else 0
    unsigned: npt.NDArray[np.unsignedinteger] = values.view(np.uint64 if sign_bits else np.uint8)
    bits = int(values.max()).bit_length() + sign_bits
    width = max(-(-bits // _GROUP_BITS), 1)
    # Values of five to eight bytes are written as two words each, of which the second reaches into the next value.
    encoded = np.empty(len(values) * width + 4, np.uint8)
    for first in range(0, len(values), _VALUES_AT_ONCE):
        some, place = unsigned[first : first + _VALUES_AT_ONCE], encoded[first * width :]
        if 4 <= width <= 8:
            _by_words(some, sign_bits, width, place)
        else:
            _by_bytes(some, sign_bits, width, place)
    return encoded[: len(values) * width].data


def _by_words(values: npt.NDArray[np.unsignedinteger], sign_bits: int, width: int, place: npt.NDArray[np.uint8]) -> None:
    """Values of four to eight bytes, four bytes at a time."""
    low, spare = (np.empty(len(values), np.uint32) for _ in range(2))
    np.copyto(low, values, casting="unsafe")
    np.left_shift(low, np.uint32(sign_bits), out=low)
    words = np.ndarray((len(values),), "<u4", place, 0, (width,))
    if width == 4:
        _spread(low, spare)
        np.bitwise_or(low, np.uint32(0x00808080), out=words)
        return
    high = np.empty(len(values), np.uint32)
    # What is above the first four groups.
    np.right_shift(values, np.uint64(4 * _GROUP_BITS - sign_bits), out=high, casting="unsafe")
    if width > 5:
        _spread(high, spare)
    # All groups but the last of a value say that there is more. What is beyond the last is overwritten by the value after it.
    more = 0x80808080 & ((1 << 8 * (width - 5)) - 1)
    np.bitwise_or(high, np.uint32(more), out=np.ndarray((len(values),), "<u4", place, 4, (width,)))
    _spread(low, spare)
    np.bitwise_or(low, np.uint32(0x80808080), out=words)


def _spread(words: _Words, spare: _Words) -> None:
    """The lowest 28 bits of each word as four groups of seven, a byte each: halves are moved apart, then halves of halves."""
    for kept, moved, by in ((0x00003FFF, 0x0FFFC000, 2), (0x007F007F, 0x3F803F80, 1)):
        np.bitwise_and(words, np.uint32(moved), out=spare)
        np.left_shift(spare, np.uint32(by), out=spare)
        np.bitwise_and(words, np.uint32(kept), out=words)
        np.bitwise_or(words, spare, out=words)


def _by_bytes(values: npt.NDArray[np.unsignedinteger], sign_bits: int, width: int, place: npt.NDArray[np.uint8]) -> None:
    """Values of any width, a byte of each at a time."""
    encoded = place[: len(values) * width].reshape(len(values), width)
    rest = values.astype(np.uint64) << np.uint64(sign_bits)
    for group in range(width - 1):
        np.bitwise_or(rest.astype(np.uint8), _MORE, out=encoded[:, group])
        rest >>= np.uint64(_GROUP_BITS)
    encoded[:, width - 1] = rest
