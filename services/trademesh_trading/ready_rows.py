"""Rows of a year's bars as StreamBars sends them: packed when a set is imported, so that a block is read and sent as it is.

Besides each `bars-<year>.parquet`, which stays the truth and is all that a set needs, there is `ready-<year>.bin`: for each field in turn one
session after the other, all tickers of it, each row packed as a protobuf field is. So successive sessions of a field are one stretch of the
file, whichever they are. Before them stand the offsets at which rows begin, little-endian int64, sessions + 1 for each field. A row in which
nothing has a value takes no bytes. Bars that became known late, if there are any, are in `late-<year>.npz`. READY.json, written last, tells
of which set they are, and their hashes.

Everyone is answered from Parquet where these files are missing, damaged, or of another layout: sets that were imported before there were such
files have none until they are imported again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trademesh_kernel.logs import get_logger
from trademesh_trading.bar_matrices import Bars, Flags, Matrix, Revisions
from trademesh_trading.packed_columns import FIELDS, PackedBars, Pieces, packed

LAYOUT = "rows of packed columns, 1"
READY_FILE = "READY.json"
LEAST_SHARE = 16
"""Who asks for less than a sixteenth of the tickers is answered from Parquet, which keeps tickers apart: here a session is read with all of them."""
MOST_LATE_BARS = 20_000
"""Of a year in which more bars became known late there are no ready rows: they would be the smaller part of what is sent, and late bars are
held in memory, a megabyte for so many."""

_OFFSET_BYTES = 8


class BarsOfYears(Protocol):
    """Who knows a set's bars by years."""

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        """Bars of all sessions of a year for some tickers."""


@dataclass(frozen=True)
class Tickers:
    """Which of a set's tickers are wanted: `chosen` of them by their columns, None: all in their order."""

    of: int
    chosen: Matrix | None = None

    @property
    def count(self) -> int:
        """How many."""
        return self.of if self.chosen is None else len(self.chosen)


@dataclass(frozen=True)
class _ReadyYear:
    """A file that was proved; `offsets` has a row for each of FIELDS."""

    file: Path
    offsets: npt.NDArray[np.int64]
    revisions: Revisions | None

    def rows(self, field: int, rows: range, tickers: Tickers) -> tuple[Pieces, bool]:
        """Some rows of a field, zeros where there is nothing; and whether there is anything. Raises OSError."""
        starts = self.offsets[field, rows.start : rows.stop + 1]
        if starts[0] == starts[-1]:
            return [bytes(len(rows) * tickers.count)], False
        with self.file.open("rb", buffering=0) as content:
            together = os.pread(content.fileno(), int(starts[-1] - starts[0]), int(starts[0]))
        if len(together) < starts[-1] - starts[0]:
            raise OSError(f"{self.file} has become shorter")
        pieces, anything, place = Pieces(), False, 0
        for size, alike in groupby(np.diff(starts).tolist()):
            count = len(list(alike))
            if not size:
                pieces.append(bytes(count * tickers.count))
                continue
            some = memoryview(together)[place : place + count * size]
            place += count * size
            if tickers.chosen is not None:
                # All values of a row have the same width.
                width = size // tickers.of
                some = np.frombuffer(some, f"V{width}").reshape(count, tickers.of).take(tickers.chosen, axis=1).data.cast("B")
                # Zeros of more than one byte have only their topmost bits set: those that tell of another byte.
                anything = anything or bool((np.frombuffer(some, np.uint8) & np.uint8(0x7F)).any())
            else:
                anything = True
            pieces.append(some)
        return pieces, anything


class ReadyRows:
    """The ready rows of a set; each file is proved the first time that it is read."""

    def __init__(self, folder: Path, snapshot: str, tickers: int, sessions_of_year: Mapping[int, int]) -> None:
        """`snapshot` is the set's; `tickers`: how many it has; `sessions_of_year`: how many sessions of each year."""
        self._folder = folder
        self._tickers = tickers
        self._sessions_of_year = sessions_of_year
        self._hashes = _said(folder, snapshot)
        self._years = dict[int, _ReadyYear | None]()
        self._lock = threading.Lock()

    def bars(self, parts: Sequence[tuple[int, range]], columns: Sequence[int]) -> PackedBars | None:
        """Successive sessions, as years and rows of them, for some tickers; None where they are not ready, or another way is shorter."""
        if len(columns) * LEAST_SHARE < self._tickers:
            return None
        everything = range(self._tickers)
        is_all = columns == everything or list(columns) == list(everything)
        tickers = Tickers(self._tickers, None if is_all else np.array(columns))
        years = list[tuple[_ReadyYear, range]]()
        for number, rows in parts:
            year = self._year(number)
            if year is None:
                return None
            years.append((year, rows))
        try:
            packed_fields = _fields(years, tickers)
        except OSError as error:
            self._say(str(error))
            return None
        return PackedBars(packed_fields, _revisions(years, None if is_all else columns))

    def _year(self, year: int) -> _ReadyYear | None:
        with self._lock:
            if year not in self._years:
                self._years[year] = self._read(year)
            return self._years[year]

    def _read(self, year: int) -> _ReadyYear | None:
        name, late = _names(year)
        if name not in self._hashes:
            return None
        try:
            for one in (name, late):
                if one in self._hashes and _sha256(self._folder / one) != self._hashes[one]:
                    raise ValueError(f"{one} is not the file that was written")
            offsets = np.fromfile(self._folder / name, "<i8", len(FIELDS) * (self._sessions_of_year[year] + 1)).reshape(len(FIELDS), -1)
            return _ReadyYear(self._folder / name, offsets, _load_late(self._folder / late) if late in self._hashes else None)
        except (OSError, ValueError, KeyError) as error:
            self._say(str(error))
            return None

    def _say(self, reason: str) -> None:
        get_logger("market data").warning("bars are read from Parquet, which takes longer: import the set again", reason=reason)


def _fields(years: Sequence[tuple[_ReadyYear, range]], tickers: Tickers) -> dict[str, Pieces]:
    """Fields of some windows of successive years; raises OSError."""
    found = dict[str, Pieces]()
    for place, field in enumerate(FIELDS):
        pieces, anything = Pieces(), False
        for year, rows in years:
            some, is_there = year.rows(place, rows, tickers)
            pieces += some
            anything |= is_there
        if anything or field == FIELDS[0]:
            found[field] = pieces
    return found


def _revisions(years: Sequence[tuple[_ReadyYear, range]], columns: Sequence[int] | None) -> Revisions | None:
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


def write_ready_rows(folder: Path, snapshot: str, bars: BarsOfYears, tickers: int, years: Sequence[int]) -> None:
    """Writes the ready rows of a set into its folder, unless they are there and whole. Raises OSError."""
    said = _said(folder, snapshot)
    if said and all((folder / name).is_file() and _sha256(folder / name) == expected for name, expected in said.items()):
        return
    hashes = dict[str, str]()
    for year in years:
        of_year = bars.read_year(year, range(tickers))
        late = of_year.revisions
        if late is not None and len(late.rows) > MOST_LATE_BARS:
            continue
        name, late_name = _names(year)
        _replace(folder / name, _content(of_year))
        hashes[name] = _sha256(folder / name)
        if late is not None:
            _save_late(folder / late_name, late)
            hashes[late_name] = _sha256(folder / late_name)
    _replace(folder / READY_FILE, (json.dumps({"layout": LAYOUT, "snapshot": snapshot, "files_sha256": hashes}, indent=2) + "\n").encode())


def _content(bars: Bars) -> bytes:
    """What is in a file."""
    rows = [_row(getattr(bars, field), row, always=field == FIELDS[0]) for field in FIELDS for row in range(len(bars.close_micros))]
    sizes = np.array([len(row) for row in rows], np.int64).reshape(len(FIELDS), -1)
    head = len(FIELDS) * (sizes.shape[1] + 1) * _OFFSET_BYTES
    ends = head + np.cumsum(sizes).reshape(sizes.shape)
    offsets = np.column_stack([ends[:, 0] - sizes[:, 0], ends])
    return b"".join((offsets.astype("<i8").tobytes(), *rows))


def _row(matrix: Matrix | Flags | None, row: int, *, always: bool) -> bytes:
    """A session of a field; nothing where none of it has a value, but for closes, which say how many tickers there are."""
    if matrix is None or not (always or matrix[row].any()):
        return b""
    return bytes(packed(matrix[row]))


def _save_late(file: Path, late: Revisions) -> None:
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("wb") as content:
        np.savez(content, **{field.name: getattr(late, field.name) for field in fields(Revisions)})
    unfinished.replace(file)


def _load_late(file: Path) -> Revisions:
    with np.load(file, allow_pickle=False) as saved:
        return Revisions(*(saved[field.name] for field in fields(Revisions)))


def _replace(file: Path, content: bytes) -> None:
    """Writes a file so that nobody sees a part of it."""
    unfinished = file.with_name(f".{file.name}")
    unfinished.write_bytes(content)
    unfinished.replace(file)


def _said(folder: Path, snapshot: str) -> dict[str, str]:
    """Hashes of files by their names, as READY.json says; empty where it says nothing that is understood, or of another set."""
    try:
        said = json.loads((folder / READY_FILE).read_text(encoding="utf-8"))
        return dict(said["files_sha256"]) if (said["layout"], said["snapshot"]) == (LAYOUT, snapshot) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _names(year: int) -> tuple[str, str]:
    return f"ready-{year:04}.bin", f"late-{year:04}.npz"


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
