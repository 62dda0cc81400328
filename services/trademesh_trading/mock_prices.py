"""The arithmetic of seeded universes: bars out of random words, for some tickers at once. Which words, and of which sessions, is `mock_universe.py`'s.

Whole numbers only. Matrices have a row per ticker and a column per session, and are worked on in place: of a made-up bar the memory that it went
through cost as much as its arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

from trademesh_trading.bar_matrices import Matrix

CENT_MICROS = 10_000

_OCTAVE_BITS = 24
"""Prices are walked as binary logarithms of micro-dollars, in steps of 2^-24 of an octave."""
_TABLE_BITS = 12
_MANTISSA_BITS = 30
_LEAST, _MOST = 14 << _OCTAVE_BITS, 43 << _OCTAVE_BITS
"""Logarithms between which prices are shown: 2 cents and 8.8 million dollars. The walk itself goes on beyond."""

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Natures:
    """What some tickers are like, a row each: logarithm of the first price, drift a session, volatility and share in the market's moves, per unit
    of a bell."""

    first: Matrix
    drift: Matrix
    volatility: Matrix
    beta: Matrix


@dataclass(frozen=True)
class MadeUpBars:
    """Bars of some tickers and sessions. Prices in micro-dollars; `last_closes` are logarithms, where the walk goes on."""

    open_micros: Matrix
    high_micros: Matrix
    low_micros: Matrix
    close_micros: Matrix
    volume_shares: Matrix
    last_closes: Matrix


def made_up_bars(closing: Words, trading: Words, market: Matrix, natures: Natures, before: Matrix) -> MadeUpBars:
    """Bars out of two words each: that of the move from close to close, and that of the session.

    Args:
        closing: a row per ticker, a column per session; so is `trading`.
        market: the market's bell of each session.
        natures: of the tickers.
        before: logarithm of each ticker's close before the first session.
    """
    move = moves(closing, market, natures)
    closes = np.cumsum(move, axis=1)
    closes += before[:, None]
    opens, highs, lows = _within_session(trading, before, closes, natures.volatility[:, None])
    close, open_, high, low = (prices(level) for level in (closes, opens, highs, lows))
    for other in (open_, close):
        np.maximum(high, other, out=high)
        np.minimum(low, other, out=low)
    return MadeUpBars(open_, high, low, close, _volume(trading, move, natures.first[:, None]), closes[:, -1])


def bell(words: Words) -> Matrix:
    """Sums of a word's four 16-bit parts about their mean: near enough to a normal distribution, of deviation 37,837, within 131,070."""
    both_halves = np.uint64(0x0000FFFF0000FFFF)
    sums = words >> np.uint64(16)
    sums &= both_halves
    sums += words & both_halves
    sums += sums >> np.uint64(32)
    sums &= np.uint64(0xFFFFFFFF)
    about: Matrix = sums.view(np.int64)
    about -= 2 * 0xFFFF
    return about


def moves(closing: Words, market: Matrix, natures: Natures) -> Matrix:
    """Moves of the logarithm, close to close."""
    move = bell(closing)
    move *= natures.volatility[:, None]
    move += market * natures.beta[:, None]
    move >>= 12
    move += natures.drift[:, None]
    return move


def _within_session(trading: Words, before: Matrix, closes: Matrix, volatility: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Logarithms of open, high and low: a night's move from the close before, and reaches beyond open and close."""
    opens = _part(trading, 0)
    opens -= 0x8000
    opens *= volatility
    opens >>= 12
    opens[:, 0] += before
    opens[:, 1:] += closes[:, :-1]
    reaches = list[Matrix]()
    for shift in (16, 32):
        reach = _part(trading, shift)
        reach *= reach
        reach >>= 16
        reach *= volatility
        reach >>= 13
        reaches.append(reach)
    highs, lows = reaches
    highs += np.maximum(opens, closes)
    np.subtract(np.minimum(opens, closes), lows, out=lows)
    return opens, highs, lows


def _volume(trading: Words, move: Matrix, first: Matrix) -> Matrix:
    """Shares: a level of the ticker's own, half to one and a half times, more on days of large moves."""
    shares = _part(trading, 48)
    shares += 0x8000
    shares *= 200_000 + (first * 2_654_435_761 >> 8) % 20_000_000
    shares >>= 16
    stir = np.abs(move)
    np.minimum(stir, 0x100000, out=stir)
    stir += 0x40000
    shares *= stir
    shares >>= 18
    return shares


def _part(words: Words, shift: int) -> Matrix:
    """One of the four 16-bit parts of each word."""
    parts = words >> np.uint64(shift)
    if shift < 48:
        parts &= np.uint64(0xFFFF)
    return parts.view(np.int64)


def prices(logarithms: Matrix) -> Matrix:
    """Powers of two, as micro-dollars on whole cents, rounded half up; two cents at least."""
    high_table, low_table = _tables()
    shown = np.maximum(logarithms, _LEAST)
    np.minimum(shown, _MOST, out=shown)
    low_mask = (1 << _TABLE_BITS) - 1
    micros = high_table.take((shown >> (_OCTAVE_BITS - _TABLE_BITS)) & low_mask)
    micros *= low_table.take(shown & low_mask)
    # The mantissa has no bits below 2^-30; of most octaves as many or more are cut off anyway.
    micros &= -1 << _MANTISSA_BITS
    shown >>= _OCTAVE_BITS
    np.subtract(2 * _MANTISSA_BITS, shown, out=shown)
    micros >>= shown
    micros += CENT_MICROS // 2
    micros //= CENT_MICROS
    micros *= CENT_MICROS
    return micros


@cache
def _tables() -> tuple[Matrix, Matrix]:
    """2^(i / 2^12) and 2^(i / 2^24), each for i below 2^12, times 2^30 and rounded down: by square roots and products of whole numbers."""
    precision = 256
    root, tables = 2 << precision, list[Matrix]()
    for _ in range(2):
        for _ in range(_TABLE_BITS):
            root = isqrt(root << precision)
        values, value = list[int](), 1 << precision
        for _ in range(1 << _TABLE_BITS):
            values.append(value >> (precision - _MANTISSA_BITS))
            value = value * root >> precision
        tables.append(np.array(values, np.int64))
    return tables[0], tables[1]
