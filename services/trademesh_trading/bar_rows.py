"""Bars one by one, as people read them: page by page, each with the time from which it was known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trademesh_trading.bar_matrices import Bars, Matrix, Revisions
from trademesh_trading.market_set import MarketSet

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


@dataclass(frozen=True)
class BarQuestion:
    """Which bars are asked for: some rows and columns of a set, each bar in its newest form that is known at `as_of_unix_s`."""

    data: MarketSet
    rows: range
    columns: Sequence[int]
    as_of_unix_s: int


def page_of_bars(asked: BarQuestion, cell: int, size: int) -> tuple[list[BarRow], int | None]:
    """At most `size` bars from a cell on, by session, then by column; and the cell that was not looked at, None at the end."""
    found = list[BarRow]()
    for place, bar in _cells(asked, cell):
        if len(found) == size:
            return found, place
        if bar is not None:
            found.append(bar)
    return found, None


def _cells(asked: BarQuestion, cell: int) -> Iterator[tuple[int, BarRow | None]]:
    width = len(asked.columns)
    step = max(CELLS_AT_ONCE // width, 1)
    for first in range(cell // width, len(asked.rows), step):
        part = asked.rows[first : first + step]
        bars = asked.data.window(part, asked.columns)
        newest = _newest(bars.revisions, asked.as_of_unix_s)
        for place in range(max(cell, first * width), (first + len(part)) * width):
            row, column = divmod(place - first * width, width)
            ticker, session = asked.data.instruments[asked.columns[column]].ticker, asked.data.sessions[part[row]]
            revision = newest.get((row, column))
            if revision is not None and bars.revisions is not None:
                known = int(bars.revisions.known_unix_s[revision])
                yield place, _bar(ticker, session, known, bars.revisions, (revision,))
            else:
                yield place, _bar(ticker, session, int(asked.data.close_unix_s[part[row]]), bars, (row, column))


def _newest(revisions: Revisions | None, as_of_unix_s: int) -> dict[tuple[int, int], int]:
    """Which revision of a row and column, if any, is the last that is known by then."""
    if revisions is None:
        return {}
    known = revisions.known_by(as_of_unix_s)
    # Revisions are in the order in which they became known: what is known by then is the first of them.
    return {place: entry for entry, place in enumerate(zip(known.rows.tolist(), known.columns.tolist(), strict=True))}


def _bar(ticker: str, session: str, known_unix_s: int, fields: Bars | Revisions, place: tuple[int, ...]) -> BarRow | None:
    def field(values: Matrix | None, less: int = 0) -> int | None:
        return None if values is None or values[place] == 0 else int(values[place]) - less

    close = field(fields.close_micros)
    if close is None:
        return None
    return BarRow(
        ticker,
        session,
        known_unix_s,
        field(fields.open_micros),
        field(fields.high_micros),
        field(fields.low_micros),
        close,
        field(fields.volume_plus_one, less=1),
        int(fields.quality[place]),
    )
