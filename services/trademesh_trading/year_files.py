"""Sets with a file of bars for each year, as the importer makes them: a year is read when it is asked for, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import compress, product
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.bar_matrices import Bars, Flags, Matrix, Revisions
from trademesh_trading.corporate_actions import read_actions
from trademesh_trading.known_tables import FORMS, KnownTable
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord
from trademesh_trading.ready_rows import ReadyRows
from trademesh_trading.set_source import SetDamaged, SetSource
from trademesh_trading.setwriter import table_sha256
from trademesh_trading.year_pages import PageCache, PagedSet, rows_of_years

_MOST_DAYS = 366
_TICKERS_AT_ONCE = 64
_Column = TypeVar("_Column", Matrix, Flags)


def load_yearly(source: SetSource, pages: PageCache) -> PagedSet:
    """A set without its bars, which are read later.

    Raises:
        SetDamaged: a file is not the one that was written.
        OSError: a file cannot be read.
    """
    source.prove(source.files_read_at_once())
    instruments, sessions = (pl.read_parquet(source.folder / f"{name}.parquet") for name in ("instruments", "sessions"))
    dates = tuple(session.isoformat() for session in sessions["session"])
    opens, closes = sessions["open_unix_s"].to_numpy(), sessions["close_unix_s"].to_numpy()
    actions = source.folder / "actions.parquet"
    return PagedSet(
        source.record,
        _instruments(instruments),
        dates,
        opens,
        closes,
        tuple(read_actions(pl.read_parquet(actions), dates, opens.tolist(), closes.tolist()))
        if actions.name in source.files_sha256
        else (),
        {
            name: KnownTable(form, source.folder / f"{name}.parquet")
            for name, form in FORMS.items()
            if f"{name}.parquet" in source.files_sha256
        },
        YearFiles(source, sessions, instruments.height),
        pages,
        ReadyRows(
            source.folder, source.record.snapshot, instruments.height, {year: len(rows) for year, rows in rows_of_years(dates).items()}
        ),
    )


def bars_name(year: int) -> str:
    """Name of the file with a year's bars."""
    return f"bars-{year:04}.parquet"


def _instruments(table: pl.DataFrame) -> tuple[InstrumentRecord, ...]:
    """All at once: five thousand one by one would take longer than the first megabytes of their bars."""
    # The same fields are one object, in which most instruments have a share.
    combinations = product((False, True), repeat=len(OPTIONAL_FIELDS))
    fields = {has: frozenset(compress(OPTIONAL_FIELDS, has)) for has in combinations}
    texts = table.select("ticker", "kind", pl.col("first_session", "last_session").cast(pl.String))
    has = table.select(f"has_{field}" for field in OPTIONAL_FIELDS)
    return tuple(
        InstrumentRecord(ticker, kind, first, last, fields[which])
        for (ticker, kind, first, last), which in zip(texts.iter_rows(), has.iter_rows(), strict=True)
    )


class YearFiles:
    """Reads years of bars; proves each file the first time that it is read."""

    def __init__(self, source: SetSource, sessions: pl.DataFrame, tickers: int) -> None:
        """`sessions`: session, open_unix_s, close_unix_s; `tickers`: how many the set has."""
        self._tickers = tickers
        self._source = source
        self._sessions = sessions
        self._proved = set[str]()

    def read_year(self, year: int, columns: Sequence[int]) -> Bars:
        """Bars of all sessions of a year for some tickers; raises DataAbsent if the file is damaged."""
        name = bars_name(year)
        shape = (self._sessions.filter(pl.col("session").dt.year() == year).height, len(columns))
        if name not in self._source.files_sha256:
            return Bars(None, None, None, np.zeros(shape, np.int64), None, np.zeros(shape, np.uint8))
        try:
            if name not in self._proved:
                self._source.prove([name])
                self._proved.add(name)
            return self._read(self._source.folder / name, year, columns)
        except (OSError, SetDamaged) as error:
            set_name = self._source.record.name
            raise DataAbsent(f"{year} of set {set_name} cannot be read: {error}; import it again", set=set_name, what="bars") from error

    def _read(self, file: Path, year: int, columns: Sequence[int]) -> Bars:
        of_year = self._sessions.filter(pl.col("session").dt.year() == year)
        bars = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        if len(columns) < self._tickers:
            bars = bars.filter(pl.col("column").is_in(list(columns)))
        table = bars.collect()
        place_of = np.zeros(self._tickers, np.int64)
        place_of[list(columns)] = np.arange(len(columns))
        first_day = date(year, 1, 1).toordinal() - date(1970, 1, 1).toordinal()
        row_of_day = np.zeros(_MOST_DAYS, np.int64)
        row_of_day[of_year["session"].to_physical().to_numpy() - first_day] = np.arange(of_year.height)
        rows = row_of_day.take(table["session"].to_physical().to_numpy() - first_day)
        late = table["known_unix_s"].to_numpy() != of_year["close_unix_s"].to_numpy().take(rows)
        return _bars(table, rows, place_of.take(table["column"].to_numpy()), late, (of_year.height, len(columns)))


def _bars(table: pl.DataFrame, rows: Matrix, places: Matrix, late: npt.NDArray[np.bool_], shape: tuple[int, int]) -> Bars:
    """Matrices of what was known in time, and revisions of what was late, of a table whose rows belong to some rows and columns of them."""
    sessions, tickers = shape
    # Tables are by ticker, then session: so written, a matrix is filled from its beginning to its end, and often it is there already.
    cells = places * sessions + rows
    in_time = ~late if late.any() else slice(None)
    is_whole = not late.any() and len(cells) == sessions * tickers and bool((cells[1:] > cells[:-1]).all())

    def column(name: str, more: int = 0) -> Matrix | None:
        """Values as in `Bars`; None where there is none."""
        values = table[name] + more if more else table[name]
        return None if values.null_count() == values.len() else values.fill_null(0).to_numpy()

    def matrix(values: _Column) -> _Column:
        if is_whole:
            by_ticker = values.reshape(tickers, sessions)
        else:
            by_ticker = np.zeros((tickers, sessions), values.dtype)
            by_ticker.reshape(-1)[cells[in_time]] = values[in_time]
        return _by_session(by_ticker)

    def field(values: Matrix | None) -> Matrix | None:
        return None if values is None or not values[in_time].any() else matrix(values)

    fields = [column("open_micros"), column("high_micros"), column("low_micros"), column("close_micros"), column("volume_shares", 1)]
    open_micros, high_micros, low_micros, close_micros, volume_plus_one = (field(values) for values in fields)
    flags = table["quality"].to_numpy()
    revisions = None
    if late.any():
        absent = np.zeros(table.height, np.int64)
        told = [absent if values is None else values for values in fields]
        every = Revisions(table["known_unix_s"].to_numpy(), rows, places, told[0], told[1], told[2], told[3], told[4], flags)
        revisions = every.where(late).in_order()
    no_close: Matrix = np.zeros(shape, np.int64)
    return Bars(
        open_micros,
        high_micros,
        low_micros,
        no_close if close_micros is None else close_micros,
        volume_plus_one,
        matrix(flags),
        revisions,
    )


def _by_session(by_ticker: _Column) -> _Column:
    """A matrix with a row per ticker as one with a row per session, which is how it is sent. Some tickers at a time: their rows stay in cache."""
    turned = np.empty(by_ticker.shape[::-1], by_ticker.dtype)
    for first in range(0, len(by_ticker), _TICKERS_AT_ONCE):
        turned[:, first : first + _TICKERS_AT_ONCE] = by_ticker[first : first + _TICKERS_AT_ONCE].T
    return turned


def check_tables(source: SetSource) -> None:
    """Proves a whole set, table by table: what it says is what its snapshot is the hash of. Raises as `load_yearly`."""
    source.prove(source.files_sha256)
    for name, expected in source.tables_sha256.items():
        if table_sha256(pl.read_parquet(source.folder / f"{name}.parquet")) != expected:
            raise SetDamaged(f"{source.folder} does not hold {source.record.snapshot}")
