"""Seeded universes: sets of made-up stocks, for mock mode and for measuring growth. Their prices are random walks and nothing else.

A set `mock-<tickers>@<seed>` is the same to the byte wherever it is made. It rests on PCG64 alone (XSL-RR 128/64, O'Neill 2014), whose raw
output numpy promises not to change and a test compares with the algorithm as published; all else is integer arithmetic of this file. None of
numpy's distributions is used, no float, and no library's exponential. A change of any figure needs another GENERATOR.

Each ticker is a stream of its own, seeded by SHA-256 of generator, seed and number, with two words a session: so the first tickers of a large
universe are those of a small one, a price depends on nothing later, and any year of any ticker can be made without the others' bars.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.bar_matrices import Bars, Matrix
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord, MarketSet, SetRecord
from trademesh_trading.year_pages import PageCache, PagedSet

GENERATOR = 1
MOST_TICKERS = 5000
MOCK_NAME = re.compile(r"mock-([0-9]{1,9})@([0-9]{1,18})")

WORDS_PER_SESSION = 2
CENT_MICROS = 10_000
COARSE_BELOW_MICROS = 10_000_000
"""Half a cent is over 5 basis points of less."""

_OCTAVE_BITS = 24
"""Prices are walked as binary logarithms of micro-dollars, in steps of 2^-24 of an octave."""
_TABLE_BITS = 12
_MANTISSA_BITS = 30
_LEAST, _MOST = 14 << _OCTAVE_BITS, 43 << _OCTAVE_BITS
"""Logarithms between which prices are shown: 2 cents and 8.8 million dollars. The walk itself goes on beyond."""

Words = npt.NDArray[np.uint64]

_of_thread = threading.local()


def mock_set(name: str, calendar_of: MarketSet, pages: PageCache) -> PagedSet:
    """The universe of a name that `MOCK_NAME` fits, on another set's sessions. Raises DataAbsent for more tickers than there can be."""
    match = MOCK_NAME.fullmatch(name)
    count, seed = (int(digits) for digits in match.groups()) if match else (0, 0)
    if not 1 <= count <= MOST_TICKERS or name != f"mock-{count}@{seed}":
        text = f"there is no set {name}: a seeded universe is mock-<tickers>@<seed>, with 1 to {MOST_TICKERS} tickers, as mock-20@7"
        raise DataAbsent(text, set=name, what="set")
    sessions = calendar_of.sessions
    said = f"trademesh mock universe, generator {GENERATOR}: {count} tickers, seed {seed}, {calendar_of.record.calendar}\n"
    digest = hashlib.sha256((said + "\n".join(sessions)).encode())
    record = SetRecord(
        name,
        f"sha256:{digest.hexdigest()}",
        f"seeded random walk: not real prices (seed {seed}, generator {GENERATOR})",
        "made up: none needed",
        "SPLITS_AND_DIVIDENDS",
        calendar_of.record.calendar,
    )
    fields = frozenset(OPTIONAL_FIELDS)
    instruments = tuple(InstrumentRecord(f"MOCK{number:04}", "STOCK", sessions[0], sessions[-1], fields) for number in range(1, count + 1))
    walk = MockWalk(seed, count, sessions)
    return PagedSet(record, instruments, sessions, calendar_of.open_unix_s, calendar_of.close_unix_s, (), {}, walk, pages)


class MockWalk:
    """Makes bars of a universe, a year at a time. Keeps of each ticker that was asked for where its walk stands at the turn of each year."""

    def __init__(self, seed: int, count: int, sessions: Sequence[str]) -> None:
        self._seed = seed
        years = [int(session[:4]) for session in sessions]
        self._rows = {year: range(years.index(year), years.index(year) + years.count(year)) for year in sorted(set(years))}
        self._sessions = len(sessions)
        self._market = _bell(_words(_label(seed, "market"), 0, self._sessions)[:, 0])
        self._starts = np.zeros((count, len(self._rows)), np.int64)
        self._walked = np.zeros(count, np.bool_)

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        """Bars of all sessions of a year for some tickers."""
        rows = self._rows[year]
        words = np.empty((len(rows), len(columns), WORDS_PER_SESSION), np.uint64)
        before = np.empty(len(columns), np.int64)
        nature = np.empty((len(columns), 4), np.int64)
        for place, column in enumerate(columns):
            label = _label(self._seed, str(column + 1))
            before[place] = self._start(year, column, label)
            words[:, place] = _words(label, rows.start, len(rows))
            nature[place] = _nature(label)
        _, drift, volatility, beta = nature.T
        moves = _moves(words[:, :, 0], self._market[rows.start : rows.stop, None], drift, volatility, beta)
        closes = before + np.cumsum(moves, axis=0)
        opens, highs, lows = _within_session(words[:, :, 1], np.vstack([before[None, :], closes[:-1]]), closes, volatility)
        close, open_, high, low = (_micros(level) for level in (closes, opens, highs, lows))
        volume = _volume(words[:, :, 1], moves, nature[:, 0])
        quality = np.where(close < COARSE_BELOW_MICROS, np.uint8(2), np.uint8(0))
        return Bars(
            open_, np.maximum(high, np.maximum(open_, close)), np.minimum(low, np.minimum(open_, close)), close, volume + 1, quality
        )

    def _start(self, year: int, column: int, label: bytes) -> int:
        """Where a ticker's walk stands before the first session of a year."""
        if not self._walked[column]:
            first, drift, volatility, beta = _nature(label)
            moves = _moves(_words(label, 0, self._sessions)[:, 0], self._market, drift, volatility, beta)
            walked = first + np.concatenate([np.zeros(1, np.int64), np.cumsum(moves)])
            self._starts[column] = walked[[rows.start for rows in self._rows.values()]]
            self._walked[column] = True
        return int(self._starts[column, year - next(iter(self._rows))])


def _label(seed: int, stream: str) -> bytes:
    return hashlib.sha256(f"trademesh mock universe {GENERATOR} {seed} {stream}".encode()).digest()


def _words(label: bytes, first_session: int, sessions: int) -> Words:
    """Words of a stream, a row per session. The label is the state that PCG64 begins with, and its increment."""
    # One for each thread: making one costs ten times as much as turning it to another stream.
    generator: np.random.PCG64 | None = getattr(_of_thread, "generator", None)
    if generator is None:
        generator = _of_thread.generator = np.random.PCG64(0)
    generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": int.from_bytes(label[:16], "little"), "inc": int.from_bytes(label[16:], "little") | 1},
        "has_uint32": 0,
        "uinteger": 0,
    }
    generator.advance(first_session * WORDS_PER_SESSION)
    return generator.random_raw(sessions * WORDS_PER_SESSION).reshape(sessions, WORDS_PER_SESSION)


def _nature(label: bytes) -> tuple[int, int, int, int]:
    """What a ticker is like: logarithm of its first price, drift a session, volatility and share in the market's moves, per unit of a bell.

    First prices are 10 to 200 dollars, growth 1 to 11 percent a year, own volatility 16 to 48 percent, that of the market 8 to 24.
    """
    own = hashlib.sha256(label + b"nature").digest()
    first, drift, volatility, beta = (int.from_bytes(own[place : place + 4], "little") for place in (0, 4, 8, 12))
    return 390_116_000 + first % 72_500_000, 950 + drift % 9_000, 26_400 + volatility % 52_800, 13_200 + beta % 26_400


def _bell(words: Words) -> Matrix:
    """Sums of a word's four 16-bit parts about their mean: near enough to a normal distribution, of deviation 37,837, within 131,070."""
    mask = np.uint64(0xFFFF)
    parts = ((words >> np.uint64(shift)) & mask for shift in (0, 16, 32, 48))
    total = np.zeros(words.shape, np.uint64)
    for part in parts:
        total += part
    return total.astype(np.int64) - 2 * 0xFFFF


def _moves(words: Words, market: Matrix, drift: int | Matrix, volatility: int | Matrix, beta: int | Matrix) -> Matrix:
    """Moves of the logarithm, close to close."""
    return drift + ((_bell(words) * volatility + market * beta) >> 12)


def _within_session(words: Words, before: Matrix, closes: Matrix, volatility: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Logarithms of open, high and low: a night's move from the close before, and reaches beyond open and close."""
    night, up, down = (((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64) for shift in (0, 16, 32))
    opens = before + (((night - 0x8000) * volatility) >> 12)
    highs = np.maximum(opens, closes) + (((up * up >> 16) * volatility) >> 13)
    lows = np.minimum(opens, closes) - (((down * down >> 16) * volatility) >> 13)
    return opens, highs, lows


def _volume(words: Words, moves: Matrix, first: Matrix) -> Matrix:
    """Shares: a level of the ticker's own, half to one and a half times, more on days of large moves."""
    usual: Matrix = 200_000 + (first * 2_654_435_761 >> 8) % 20_000_000
    noise: Matrix = (words >> np.uint64(48)).astype(np.int64) + 0x8000
    shares: Matrix = (usual * noise >> 16) * (0x40000 + np.minimum(np.abs(moves), 0x100000)) >> 18
    return shares


def _micros(logarithms: Matrix) -> Matrix:
    """Powers of two, as micro-dollars on whole cents, rounded half up; a cent at least."""
    high_table, low_table = _tables()
    shown = np.clip(logarithms, _LEAST, _MOST)
    low_mask = (1 << _TABLE_BITS) - 1
    high = high_table[(shown >> (_OCTAVE_BITS - _TABLE_BITS)) & low_mask]
    mantissa = (high * low_table[shown & low_mask]) >> _MANTISSA_BITS
    octave = shown >> _OCTAVE_BITS
    micros = (mantissa << np.maximum(octave - _MANTISSA_BITS, 0)) >> np.maximum(_MANTISSA_BITS - octave, 0)
    cents: Matrix = np.maximum((micros + CENT_MICROS // 2) // CENT_MICROS, 1)
    return cents * CENT_MICROS


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
