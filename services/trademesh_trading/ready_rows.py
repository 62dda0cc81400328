"""Rows of a set's bars that were made ready when it was imported: as whole messages, or as fields of some sessions and tickers.

Everyone is answered from Parquet where they are missing, damaged, or of another layout: what versions before this one imported, which made
none or other ones, is so until it is imported again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from trademesh_kernel.logs import get_logger
from trademesh_trading.bar_matrices import Revisions
from trademesh_trading.packed_columns import FIELDS, PackedBars, Pieces
from trademesh_trading.ready_files import read_ready_set, ready_name
from trademesh_trading.ready_years import ReadyYear, Tickers, open_year

LEAST_SHARE = 16
"""Who asks for less than a sixteenth of the tickers is answered from Parquet, which keeps tickers apart: here a session is read with all of them."""


class ReadyRows:
    """The ready rows of a set."""

    def __init__(self, folder: Path, snapshot: str, tickers: int, sessions_of_year: Mapping[int, int]) -> None:
        """`snapshot` is the set's; `tickers`: how many it has; `sessions_of_year`: how many sessions of each year."""
        self._folder = folder
        self._tickers = tickers
        self._sessions_of_year = sessions_of_year
        self._ready = read_ready_set(folder, snapshot)
        self._years = dict[int, ReadyYear | None]()
        self._lock = threading.Lock()

    @property
    def block_sessions(self) -> int:
        """Sessions of a message; the first of each year begins with the year. 0: nothing is ready."""
        return self._ready.block_sessions

    def message(self, year: int, rows: range, columns: Sequence[int]) -> bytes | None:
        """The StreamBarsResponse of some rows of a year; None if none is ready of just these, or some of its bars became known late."""
        found = self._year(year) if self._are_all(columns) else None
        number = None if found is None else found.number_of(rows)
        if found is None or number is None:
            return None
        try:
            return found.message(number)
        except OSError as error:
            self._leave(year, error)
            return None

    def bars(self, parts: Sequence[tuple[int, range]], columns: Sequence[int]) -> PackedBars | None:
        """Successive sessions, as years and rows of them, for some tickers; None where they are not ready, or another way is shorter."""
        if len(columns) * LEAST_SHARE < self._tickers:
            return None
        wanted = None if self._are_all(columns) else columns
        tickers = Tickers(self._tickers, None if wanted is None else np.array(wanted))
        years, found, there = list[tuple[ReadyYear, range]](), {field: Pieces() for field in FIELDS}, {FIELDS[0]}
        for number, rows in parts:
            year = self._year(number)
            if year is None:
                return None
            years.append((year, rows))
            try:
                for message, few in year.messages(rows):
                    for place, field in enumerate(FIELDS):
                        pieces, anything = year.rows(message, place, few, tickers)
                        found[field] += pieces
                        if anything:
                            there.add(field)
            except OSError as error:
                self._leave(number, error)
                return None
        return PackedBars({field: pieces for field, pieces in found.items() if field in there}, _revisions(years, wanted))

    def _are_all(self, columns: Sequence[int]) -> bool:
        everything = range(self._tickers)
        return columns == everything or (len(columns) == self._tickers and list(columns) == list(everything))

    def _year(self, year: int) -> ReadyYear | None:
        with self._lock:
            if not self._years and not self._ready.block_sessions:
                self._say(f"nothing in {self._folder} is ready that this version reads")
            if year not in self._years:
                self._years[year] = None
                if ready_name(year) in self._ready.files_sha256:
                    try:
                        self._years[year] = open_year(self._folder, self._ready, year, self._sessions_of_year[year])
                    except OSError as error:
                        self._say(error)
            return self._years[year]

    def _leave(self, year: int, error: OSError) -> None:
        """Reads nothing more of a year."""
        with self._lock:
            if self._years[year] is not None:
                self._years[year] = None
                self._say(error)

    def _say(self, reason: OSError | str) -> None:
        get_logger("market data").warning("bars are read from Parquet, which takes longer: import the set again", reason=str(reason))


def _revisions(years: Sequence[tuple[ReadyYear, range]], columns: Sequence[int] | None) -> Revisions | None:
    """Those of some windows of successive years, rows counted from the first window's beginning."""
    found, before = list[Revisions](), 0
    for year, rows in years:
        if year.revisions is not None:
            part = year.revisions.window(rows, columns)
            found.append(part.moved(part.rows + before, part.columns))
        before += len(rows)
    if not found:
        return None
    together = (np.concatenate([getattr(part, field.name) for part in found]) for field in fields(Revisions))
    return Revisions(*together).in_order()
