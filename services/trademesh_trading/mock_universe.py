"""Seeded universes: sets of made-up stocks, for mock mode and for measuring growth. Their prices are random walks and nothing else.

A set `mock-<tickers>@<seed>` is the same to the byte wherever it is made. It rests on PCG64 alone (XSL-RR 128/64, O'Neill 2014), whose raw
output numpy promises not to change and a test compares with the algorithm as published; all else is integer arithmetic, `mock_prices.py`. None of
numpy's distributions is used, no float, and no library's exponential. A change of any figure needs another GENERATOR.

Each ticker is a stream of its own, seeded by SHA-256 of generator, seed and number, with two words a session: so the first tickers of a large
universe are those of a small one, a price depends on nothing later, and any year of any ticker can be made without the others' bars.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.bar_matrices import Bars, Matrix
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord, MarketSet, SetRecord
from trademesh_trading.mock_prices import Natures, Words, bell, made_up_bars, moves
from trademesh_trading.year_pages import PageCache, PagedSet, rows_of_years

GENERATOR = 1
MOST_TICKERS = 5000
MOCK_NAME = re.compile(r"mock-([0-9]{1,9})@([0-9]{1,18})")

WORDS_PER_SESSION = 2
COARSE_BELOW_MICROS = 10_000_000
"""Half a cent is over 5 basis points of less."""

_CELLS_AT_ONCE = 32_768
"""Sessions times tickers that are made together: 256 KiB each of some twenty matrices. Of fewer, calls of numpy cost more than cells."""

_PERIOD = 2**128
"""Words of a stream before it begins again; so many less are a step back."""


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
    """Makes bars of a universe, a year at a time. Keeps of each ticker that was asked for where its walk stands at the turn of each year so far."""

    def __init__(self, seed: int, count: int, sessions: Sequence[str]) -> None:
        self._seed = seed
        self._rows = rows_of_years(sessions)
        self._place_of = {year: place for place, year in enumerate(self._rows)}
        self._market = bell(_Stream(_label(seed, "market")).words(0, len(sessions))[:, 0])
        self._streams = dict[int, _Stream]()
        self._nature = np.zeros((count, 4), np.int64)
        self._starts = np.zeros((count, len(self._rows) + 1), np.int64)
        self._walked = np.full(count, -1)
        """Up to which year's beginning each ticker has walked; -1: it was never asked for."""
        self._lock = threading.Lock()

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        """Bars of all sessions of a year for some tickers."""
        shape = (len(self._rows[year]), len(columns))
        open_, high, low, close, volume = (np.empty(shape, np.int64) for _ in range(5))
        bars = Bars(open_, high, low, close, volume, np.empty(shape, np.uint8))
        step = max(_CELLS_AT_ONCE // shape[0], 1)
        with self._lock:
            for first in range(0, len(columns), step):
                group = slice(first, min(first + step, len(columns)))
                self._fill(bars, year, group, columns[group])
        return bars

    def _fill(self, bars: Bars, year: int, group: slice, columns: Sequence[int]) -> None:
        """Puts a year of some tickers into their place among others."""
        rows, place, chosen = self._rows[year], self._place_of[year], np.array(columns)
        self._walk_to(place, columns)
        closing, trading = self._words_of(columns, rows)
        made = made_up_bars(closing, trading, self._market[rows.start : rows.stop], self._natures(chosen), self._starts[chosen, place])
        self._starts[chosen, place + 1] = made.last_closes
        self._walked[chosen] = np.maximum(self._walked[chosen], place + 1)
        for field in ("open_micros", "high_micros", "low_micros", "close_micros"):
            getattr(bars, field)[:, group] = getattr(made, field).T
        assert bars.volume_plus_one is not None, "a made-up bar is whole"
        np.add(made.volume_shares.T, 1, out=bars.volume_plus_one[:, group])
        bars.quality[:, group] = np.where(made.close_micros < COARSE_BELOW_MICROS, np.uint8(2), np.uint8(0)).T

    def _walk_to(self, place: int, columns: Sequence[int]) -> None:
        """Walks some tickers up to the beginning of a year, from where they stand."""
        for column in columns:
            if self._walked[column] < 0:
                label = _label(self._seed, str(column + 1))
                self._streams[column] = _Stream(label)
                self._nature[column] = _nature(label)
                self._starts[column, 0] = self._nature[column, 0]
                self._walked[column] = 0
        behind = [column for column in columns if self._walked[column] < place]
        if not behind:
            return
        years = list(self._rows.values())[min(self._walked[column] for column in behind) : place]
        rows = range(years[0].start, years[-1].stop)
        step = max(_CELLS_AT_ONCE // len(rows), 1)
        for few in (behind[first : first + step] for first in range(0, len(behind), step)):
            chosen = np.array(few)
            closing, _ = self._words_of(few, rows)
            move = moves(closing, self._market[rows.start : rows.stop], self._natures(chosen))
            of_years = np.add.reduceat(move, [year.start - rows.start for year in years], axis=1)
            first_place = place - len(years)
            starts = self._starts[few, first_place, None] + np.cumsum(of_years, axis=1)
            self._starts[chosen, first_place + 1 : place + 1] = starts
            self._walked[chosen] = place

    def _natures(self, columns: Matrix) -> Natures:
        return Natures(*self._nature[columns].T)

    def _words_of(self, columns: Sequence[int], rows: range) -> tuple[Words, Words]:
        """The two words of each session, a matrix each with a row per ticker."""
        found = np.empty((len(columns), len(rows), WORDS_PER_SESSION), np.uint64)
        for place, column in enumerate(columns):
            found[place] = self._streams[column].words(rows.start, len(rows))
        return found[:, :, 0].copy(), found[:, :, 1].copy()


def _label(seed: int, stream: str) -> bytes:
    return hashlib.sha256(f"trademesh mock universe {GENERATOR} {seed} {stream}".encode()).digest()


class _Stream:
    """A stream of words: it stands where it was last read to, from where reading on costs nothing. For one thread at a time."""

    def __init__(self, label: bytes) -> None:
        """The label is the state that PCG64 begins with, and its increment."""
        self._generator = np.random.PCG64(_UNUSED)  # type: ignore[arg-type]  # the stubs do not know that it takes any ISeedSequence
        self._generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": int.from_bytes(label[:16], "little"), "inc": int.from_bytes(label[16:], "little") | 1},
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._next_session = 0

    def words(self, first_session: int, sessions: int) -> Words:
        """Words of some sessions, a row each."""
        if first_session != self._next_session:
            self._generator.advance((first_session - self._next_session) * WORDS_PER_SESSION % _PERIOD)
        self._next_session = first_session + sessions
        return self._generator.random_raw(sessions * WORDS_PER_SESSION).reshape(sessions, WORDS_PER_SESSION)


class _NoSeed(ISeedSequence):
    """Spares numpy the making of a seed that is overwritten, which takes longer than a year of a ticker."""

    def generate_state(self, n_words: int, dtype: npt.DTypeLike = np.uint32) -> npt.NDArray[Any]:
        return np.zeros(n_words, dtype)


_UNUSED = _NoSeed()


def _nature(label: bytes) -> tuple[int, int, int, int]:
    """What a ticker is like: logarithm of its first price, drift a session, volatility and share in the market's moves, per unit of a bell.

    First prices are 10 to 200 dollars, growth 1 to 11 percent a year, own volatility 16 to 48 percent, that of the market 8 to 24.
    """
    own = hashlib.sha256(label + b"nature").digest()
    first, drift, volatility, beta = (int.from_bytes(own[place : place + 4], "little") for place in (0, 4, 8, 12))
    return 390_116_000 + first % 72_500_000, 950 + drift % 9_000, 26_400 + volatility % 52_800, 13_200 + beta % 26_400
