"""Years that are read when they are asked for: each once while it is kept, and no more of them in memory than the bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trademesh_trading.bar_matrices import Bars, Revisions, joined
from trademesh_trading.market_set import InstrumentRecord, SetRecord
from trademesh_trading.year_pages import PageCache, PagedSet

SESSIONS_A_YEAR = 10
YEARS = range(2000, 2006)
SESSIONS = tuple(f"{year}-01-{day:02}" for year in YEARS for day in range(1, SESSIONS_A_YEAR + 1))
TICKERS = 4


class Shelf:
    """Bars whose close is their row in the set, and a list of the years that were read."""

    def __init__(self) -> None:
        self.read = list[int]()

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        self.read.append(year)
        first = (year - YEARS.start) * SESSIONS_A_YEAR
        rows = np.arange(first, first + SESSIONS_A_YEAR, dtype=np.int64)
        closes = rows[:, None] * 10 + np.array(columns, np.int64)
        opens = None if year % 2 else closes + 1000
        return Bars(opens, None, None, closes, None, np.zeros(closes.shape, np.uint8))


def paged(shelf: Shelf, most_bytes: int = 10**6) -> PagedSet:
    instants = np.arange(len(SESSIONS), dtype=np.int64)
    instruments = tuple(InstrumentRecord(f"T{place}", "STOCK", SESSIONS[0], SESSIONS[-1], frozenset()) for place in range(TICKERS))
    record = SetRecord("shelf", "sha256:0", "", "", "NONE", "XNYS")
    return PagedSet(record, instruments, SESSIONS, instants, instants, (), {}, shelf, PageCache(most_bytes))


def test_a_window_reads_only_the_years_that_it_touches() -> None:
    shelf = Shelf()
    assert paged(shelf).window(range(18, 32), [2, 0]).close_micros.tolist() == [[row * 10 + 2, row * 10] for row in range(18, 32)]
    assert shelf.read == [2001, 2002, 2003]


def test_a_year_at_hand_is_not_read_again() -> None:
    shelf = Shelf()
    data = paged(shelf)
    for row in range(SESSIONS_A_YEAR):
        data.window(range(row, row + 1), range(TICKERS))
    assert shelf.read == [2000]
    data.window(range(1), [0])  # other tickers are another page
    assert shelf.read == [2000, 2000]


def test_no_more_years_are_kept_than_fit_and_the_last_used_are() -> None:
    shelf = Shelf()
    one_year = SESSIONS_A_YEAR * TICKERS * (8 + 8 + 1)
    data = paged(shelf, 3 * one_year)

    def touch(year: int) -> None:
        data.window(range((year - 2000) * SESSIONS_A_YEAR, (year - 2000) * SESSIONS_A_YEAR + 1), range(TICKERS))

    for year in (2000, 2002, 2004):
        touch(year)
    touch(2000)
    touch(2001)  # of the four, 2002 was used longest ago
    for year in (2000, 2004):
        touch(year)
    assert shelf.read == [2000, 2002, 2004, 2001]
    touch(2002)
    assert shelf.read == [2000, 2002, 2004, 2001, 2002]


def test_the_newest_year_is_kept_even_if_it_alone_is_too_large() -> None:
    shelf = Shelf()
    data = paged(shelf, 1)
    for row in (0, 1, 2):
        data.window(range(row, row + 1), range(TICKERS))
    assert shelf.read == [2000]


def test_a_field_that_only_some_years_have_is_absent_in_the_others() -> None:
    bars = paged(Shelf()).window(range(9, 11), [0])
    assert bars.open_micros is not None
    assert bars.open_micros.tolist() == [[1090], [0]]
    assert bars.high_micros is None


def test_revisions_of_joined_windows_are_in_the_order_in_which_they_became_known() -> None:
    def part(known: int, row: int) -> Bars:
        one = np.array([1], np.int64)
        revisions = Revisions(np.array([known]), np.array([row]), one * 0, one, one, one, one, one, np.array([0], np.uint8))
        return Bars(None, None, None, np.zeros((3, 1), np.int64), None, np.zeros((3, 1), np.uint8), revisions)

    together = joined([part(9, 2), part(5, 1)]).revisions
    assert together is not None
    assert (together.known_unix_s.tolist(), together.rows.tolist()) == ([5, 9], [4, 2])
