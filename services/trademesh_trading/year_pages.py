"""Sets whose bars are got year by year, for the tickers that are asked for: a window of a set needs no more memory than its years.

The years last used are kept, up to a bound in bytes that all sets share. Who reads a set from its beginning to its end has one year in memory at a time.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from trademesh_trading.bar_matrices import Bars, joined
from trademesh_trading.market_set import MarketSet
from trademesh_trading.packed_columns import DEFAULT_BLOCK_SESSIONS, PackedBars
from trademesh_trading.ready_rows import ReadyRows

PAGES_BYTES = 128 * 1024 * 1024
"""Years of all sets that are kept: two of 5,000 tickers with open, high, low, close and volume. The newest is kept even if it is larger."""


def rows_of_years(sessions: Sequence[str]) -> dict[int, range]:
    """Rows of each year, of sessions that are ISO dates, oldest first."""
    found, first = dict[int, range](), 0
    while first < len(sessions):
        year = sessions[first][:4]
        # "-" comes before ".": so does every day of the year.
        found[int(year)] = range(first, bisect_left(sessions, f"{year}."))
        first = found[int(year)].stop
    return found


class YearReader(Protocol):
    """Where the bars of a year come from."""

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        """Bars of all sessions of a year for some tickers of the set; raises DataAbsent where they cannot be had."""


class PageCache:
    """Years that were used last. One lock for all: two that want the same year do not both read it."""

    def __init__(self, most_bytes: int = PAGES_BYTES) -> None:
        self._most_bytes = most_bytes
        self._pages: OrderedDict[tuple[str, int, tuple[int, ...]], Bars] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, reader: YearReader, year: int, columns: tuple[int, ...]) -> Bars:
        """A year of a set, read if it is not at hand."""
        key = (name, year, columns)
        with self._lock:
            page = self._pages.pop(key, None)
            if page is None:
                page = reader.read_year(year, columns)
            self._pages[key] = page
            while len(self._pages) > 1 and sum(kept.memory_bytes() for kept in self._pages.values()) > self._most_bytes:
                self._pages.popitem(last=False)
            return page


@dataclass(frozen=True)
class PagedSet(MarketSet):
    """A set that reads a year when it is asked for."""

    reader: YearReader
    pages: PageCache
    ready: ReadyRows | None = None
    """What was made ready when the set was imported."""

    @cached_property
    def years(self) -> Mapping[int, range]:
        """Rows of each year in which there are sessions, in their order."""
        return rows_of_years(self.sessions)

    def window(self, rows: range, columns: Sequence[int]) -> Bars:
        """Bars of some sessions, at least one, and instruments, out of as many years as they touch."""
        wanted = tuple(columns)
        parts = [self.pages.get(self.record.name, self.reader, year, wanted).window(of_year) for year, of_year in self._by_year(rows)]
        return parts[0] if len(parts) == 1 else joined(parts)

    def packed(self, rows: range, columns: Sequence[int]) -> PackedBars:
        """The same as they are sent."""
        found = None if self.ready is None else self.ready.bars(self._by_year(rows), columns)
        return found or super().packed(rows, columns)

    def message(self, rows: range, columns: Sequence[int]) -> bytes | None:
        """The whole message, if it is ready."""
        years = self._by_year(rows)
        return None if self.ready is None or len(years) > 1 else self.ready.message(*years[0], columns)

    def parts(self, rows: range, sessions: int) -> Iterable[range]:
        """Parts that begin and end with messages that are ready, unless these are longer. Who asks for more than is sent by default gets it,
        and no part that ends with its year."""
        ready = 0 if self.ready is None else self.ready.block_sessions
        if not ready or not ready <= sessions <= DEFAULT_BLOCK_SESSIONS:
            yield from super().parts(rows, sessions)
            return
        step = sessions // ready * ready
        for _, of_year in self._by_year(rows):
            first = rows.start
            for end in (*range((of_year.start // step + 1) * step, of_year.stop, step), of_year.stop):
                yield range(first, rows.start + end - of_year.start)
                first = rows.start + end - of_year.start
            rows = rows[len(of_year) :]

    def _by_year(self, rows: range) -> list[tuple[int, range]]:
        """Successive rows as years, and rows within each."""
        parts = list[tuple[int, range]]()
        while rows:
            year = int(self.sessions[rows.start][:4])
            first, end = self.years[year].start, min(self.years[year].stop, rows.stop)
            parts.append((year, range(rows.start - first, end - first)))
            rows = range(end, rows.stop)
        return parts
