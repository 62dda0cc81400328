"""Reads data sets: those that come with the program and those that users imported. Writes nothing.

A set in memory is a matrix per field, sessions by tickers, of whole micro-dollars with 0 where there is none. Sets are loaded when
they are first asked for, and the few that were used last are kept.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from trademesh_kernel.errors import DataAbsent

EMBEDDED_SETS = Path(__file__).parent / "data"
KEPT_SETS = 4

Matrix: TypeAlias = npt.NDArray[np.int64]

PRICE_FIELDS = ("open_micros", "high_micros", "low_micros", "close_micros")


@dataclass(frozen=True)
class SetRecord:
    """What SOURCE.json says of a set."""

    name: str
    snapshot: str
    source: str
    licence: str
    adjustment: str
    calendar: str


@dataclass(frozen=True)
class InstrumentRecord:
    """One instrument of a set; sessions are ISO dates of its first and last bar."""

    ticker: str
    kind: str
    first_session: str
    last_session: str
    has_range: bool


@dataclass(frozen=True)
class MarketSet:
    """A set in memory.

    `sessions` are ISO dates, oldest first; `open_unix_s` and `close_unix_s` belong to them. Matrices have a row per session and a
    column per ticker, 0 where there is no price; `volume_plus_one` holds shares + 1. A field that no bar has is None.
    """

    record: SetRecord
    instruments: tuple[InstrumentRecord, ...]
    sessions: tuple[str, ...]
    open_unix_s: npt.NDArray[np.int64]
    close_unix_s: npt.NDArray[np.int64]
    open_micros: Matrix | None
    high_micros: Matrix | None
    low_micros: Matrix | None
    close_micros: Matrix
    volume_plus_one: Matrix | None
    quality: npt.NDArray[np.uint8]

    def columns(self, tickers: Sequence[str]) -> list[int]:
        """Columns of tickers, all of them if none is named; raises DataAbsent."""
        if not tickers:
            return list(range(len(self.instruments)))
        known = {instrument.ticker: column for column, instrument in enumerate(self.instruments)}
        missing = [ticker for ticker in tickers if ticker not in known]
        if missing:
            text = f"set {self.record.name} has no {', '.join(missing[:5])}: ListInstruments names what it has"
            raise DataAbsent(text, set=self.record.name, ticker=missing[0], what="bars")
        return [known[ticker] for ticker in tickers]

    def rows(self, start: str, end: str, as_of_unix_s: float) -> range:
        """Rows of the sessions from start to end that had closed by then; empty dates are open ends."""
        known = int(np.searchsorted(self.close_unix_s, as_of_unix_s, side="right"))
        first = next((row for row, session in enumerate(self.sessions) if session >= start), len(self.sessions)) if start else 0
        last = next((row for row, session in enumerate(self.sessions) if session > end), len(self.sessions)) if end else len(self.sessions)
        return range(first, max(first, min(last, known)))


class MarketStore:
    """All sets that can be read."""

    def __init__(self, imported_sets: Path | None = None) -> None:
        """`imported_sets` is the folder that the importer writes to; it may be absent, and may fill while we run."""
        self._roots = [EMBEDDED_SETS, *([imported_sets] if imported_sets is not None else [])]
        self._loaded: OrderedDict[Path, MarketSet] = OrderedDict()
        self._loading = threading.Lock()

    def names(self) -> list[str]:
        """Names of all sets, those that come with the program first."""
        return [folder.name for folder in self._folders()]

    def get(self, name: str) -> MarketSet:
        """A set by its name; raises DataAbsent."""
        folder = next((folder for folder in self._folders() if folder.name == name), None)
        if folder is None:
            text = f"there is no set {name}: there are {', '.join(self.names())}"
            raise DataAbsent(text, set=name, what="set")
        with self._loading:
            found = self._loaded.pop(folder, None) or load_set(folder)
            self._loaded[folder] = found
            while len(self._loaded) > KEPT_SETS:
                self._loaded.popitem(last=False)
            return found

    def _folders(self) -> Iterator[Path]:
        for root in self._roots:
            if root.is_dir():
                yield from sorted(folder for folder in root.iterdir() if (folder / "SOURCE.json").is_file())


def load_set(folder: Path) -> MarketSet:
    """Reads a set's files into memory."""
    source = json.loads((folder / "SOURCE.json").read_text())
    record = SetRecord(*(source[field] for field in ("name", "snapshot", "source", "licence", "adjustment", "calendar")))
    instruments = pl.read_parquet(folder / "instruments.parquet")
    sessions = pl.read_parquet(folder / "sessions.parquet").with_row_index("row")
    columns = instruments.with_row_index("column")
    bars = pl.read_parquet(folder / "bars.parquet").join(sessions.select("session", "row"), on="session").join(columns, on="ticker")
    place = (bars["row"].to_numpy(), bars["column"].to_numpy())
    shape = (sessions.height, instruments.height)

    def matrix(values: pl.Series) -> Matrix | None:
        if values.null_count() == values.len():
            return None
        field = np.zeros(shape, np.int64)
        field[place] = values.fill_null(0).to_numpy()
        return field

    close = matrix(bars["close_micros"])
    quality = np.zeros(shape, np.uint8)
    quality[place] = bars["quality"].to_numpy()
    return MarketSet(
        record,
        _instruments(instruments, bars),
        tuple(session.isoformat() for session in sessions["session"]),
        sessions["open_unix_s"].to_numpy(),
        sessions["close_unix_s"].to_numpy(),
        matrix(bars["open_micros"]),
        matrix(bars["high_micros"]),
        matrix(bars["low_micros"]),
        close if close is not None else np.zeros(shape, np.int64),
        matrix(bars["volume_shares"] + 1),
        quality,
    )


def _instruments(instruments: pl.DataFrame, bars: pl.DataFrame) -> tuple[InstrumentRecord, ...]:
    spans = bars.group_by("ticker").agg(
        pl.col("session").min().alias("first"),
        pl.col("session").max().alias("last"),
        pl.col("high_micros").is_not_null().any().alias("range"),
    )
    table = instruments.join(spans, on="ticker", how="left", maintain_order="left")
    return tuple(
        InstrumentRecord(
            row["ticker"],
            row["kind"],
            row["first"].isoformat() if row["first"] else "",
            row["last"].isoformat() if row["last"] else "",
            bool(row["range"]),
        )
        for row in table.iter_rows(named=True)
    )
