"""Bars one by one, as people read them: page by page, each with the time from which it was known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trademesh_trading.market_set import Bars, MarketSet, Matrix

CELLS_AT_ONCE = 16_384
"""A cell is one ticker's place in one session. So many are looked at together: a page ends long before a set does."""


@dataclass(frozen=True)
class BarRow:
    """One ticker's prices of one session; what the source lacks is None."""

    ticker: str
    session: str
    known_unix_s: int
    open_micros: int | None
    high_micros: int | None
    low_micros: int | None
    close_micros: int
    volume_shares: int | None
    quality: int


def page_of_bars(data: MarketSet, rows: range, columns: Sequence[int], cell: int, size: int) -> tuple[list[BarRow], int | None]:
    """At most `size` bars from a cell on, by session, then by column; and the cell that was not looked at, None at the end."""
    found = list[BarRow]()
    for place, bar in _cells(data, rows, columns, cell):
        if len(found) == size:
            return found, place
        if bar is not None:
            found.append(bar)
    return found, None


def _cells(data: MarketSet, rows: range, columns: Sequence[int], cell: int) -> Iterator[tuple[int, BarRow | None]]:
    width = len(columns)
    step = max(CELLS_AT_ONCE // width, 1)
    for first in range(cell // width, len(rows), step):
        part = rows[first : first + step]
        bars = data.window(part, columns)
        for place in range(max(cell, first * width), (first + len(part)) * width):
            row, column = divmod(place - first * width, width)
            yield place, _bar(data, bars, part[row], columns[column], (row, column))


def _bar(data: MarketSet, bars: Bars, row: int, column: int, place: tuple[int, int]) -> BarRow | None:
    def field(matrix: Matrix | None, less: int = 0) -> int | None:
        return None if matrix is None or matrix[place] == 0 else int(matrix[place]) - less

    close = field(bars.close_micros)
    if close is None:
        return None
    return BarRow(
        data.instruments[column].ticker,
        data.sessions[row],
        int(data.close_unix_s[row]),
        field(bars.open_micros),
        field(bars.high_micros),
        field(bars.low_micros),
        close,
        field(bars.volume_plus_one, less=1),
        int(bars.quality[place]),
    )
