"""Columns of whole numbers as protobuf packs them into a message, made of arrays at once: the hot path of StreamBars.

By way of Python's numbers a value costs 50 ns, by way of this 2 to 4. All values of a column get the width of the largest: a varint may end in
bytes of zeros, which every reader of protobuf accepts (up to ten bytes), and which costs a few bytes of a hundred.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trademesh_kernel.wire_format import prefix

Parts = tuple[bytes, memoryview] | tuple[()]
"""A field of a message as the pieces that follow each other: who joins a whole message copies each column once. Nothing of no values."""

_GROUP_BITS = 7
_MORE = np.uint8(0x80)
_VALUES_AT_ONCE = 32_768
"""What is worked on together stays in a core's cache: 128 KiB each of the column, of its groups, and of what is moved about in them."""

_Words = npt.NDArray[np.uint32]


def packed_sint64(field_number: int, values: npt.NDArray[np.int64]) -> Parts:
    """A field `repeated sint64`, tag and length included, of values that are not negative."""
    # Zigzag, which has the sign in its lowest bit.
    return _packed(field_number, values.ravel().view(np.uint64), sign_bits=1)


def packed_uint32(field_number: int, values: npt.NDArray[np.uint8]) -> Parts:
    """A field `repeated uint32`, tag and length included."""
    return _packed(field_number, values.ravel(), sign_bits=0)


def _packed(field_number: int, values: npt.NDArray[np.uint64] | npt.NDArray[np.uint8], sign_bits: int) -> Parts:
    if not len(values):
        return ()
    bits = int(values.max()).bit_length() + sign_bits
    width = max(-(-bits // _GROUP_BITS), 1)
    # Values of five to eight bytes are written as two words each, of which the second reaches into the next value.
    encoded = np.empty(len(values) * width + 4, np.uint8)
    for first in range(0, len(values), _VALUES_AT_ONCE):
        some = values[first : first + _VALUES_AT_ONCE]
        place = encoded[first * width :]
        if 4 <= width <= 8:
            _by_words(some, sign_bits, width, place)
        else:
            _by_bytes(some, sign_bits, width, place)
    content = encoded[: len(values) * width].data
    return prefix(field_number, len(content)), content


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
