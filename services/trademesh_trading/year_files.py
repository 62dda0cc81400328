"""Sets with a file of bars for each year, as the importer makes them: a year is read when it is asked for, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.bar_matrices import Bars, Matrix, Revisions
from trademesh_trading.corporate_actions import read_actions
from trademesh_trading.known_tables import FORMS, KnownTable
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord
from trademesh_trading.set_source import SetDamaged, SetSource
from trademesh_trading.setwriter import table_sha256
from trademesh_trading.year_pages import PageCache, PagedSet


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
        tuple(_instrument(*row) for row in instruments.iter_rows()),
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
    )


def _instrument(ticker: str, kind: str, first: object, last: object, *has: bool) -> InstrumentRecord:
    there = frozenset(field for field, has_it in zip(OPTIONAL_FIELDS, has, strict=True) if has_it)
    return InstrumentRecord(ticker, kind, str(first), str(last), there)


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
        name = f"bars-{year}.parquet"
        shape = (self._sessions.filter(pl.col("session").dt.year() == year).height, len(columns))
        if name not in self._source.files_sha256:
            return Bars(None, None, None, np.zeros(shape, np.int64), None, np.zeros(shape, np.uint8))
        try:
            if name not in self._proved:
                self._source.prove([name])
                self._proved.add(name)
            return _matrices(self._read(self._source.folder / name, year, columns), shape)
        except (OSError, SetDamaged) as error:
            set_name = self._source.record.name
            raise DataAbsent(f"{year} of set {set_name} cannot be read: {error}; import it again", set=set_name, what="bars") from error

    def _read(self, file: Path, year: int, columns: Sequence[int]) -> pl.DataFrame:
        """Rows of the file, with their places in the matrices."""
        of_year = self._sessions.filter(pl.col("session").dt.year() == year)
        rows = of_year.select("session", "close_unix_s").with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
        places = pl.DataFrame({"column": columns, "place": range(len(columns))}, schema={"column": pl.Int32, "place": pl.Int64})
        bars = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        if len(columns) < self._tickers:
            bars = bars.filter(pl.col("column").is_in(list(columns)))
        return bars.join(rows.lazy(), on="session").join(places.lazy(), on="column").collect()


def _matrices(bars: pl.DataFrame, shape: tuple[int, int]) -> Bars:
    in_time = bars.filter(pl.col("known_unix_s") == pl.col("close_unix_s"))
    late = bars.filter(pl.col("known_unix_s") != pl.col("close_unix_s")).sort("known_unix_s", "row", "place")
    place = (in_time["row"].to_numpy(), in_time["place"].to_numpy())

    def matrix(values: pl.Series) -> Matrix | None:
        if values.null_count() == values.len():
            return None
        field = np.zeros(shape, np.int64)
        field[place] = values.fill_null(0).to_numpy()
        return field

    quality = np.zeros(shape, np.uint8)
    quality[place] = in_time["quality"].to_numpy()
    close = matrix(in_time["close_micros"])
    return Bars(
        matrix(in_time["open_micros"]),
        matrix(in_time["high_micros"]),
        matrix(in_time["low_micros"]),
        np.zeros(shape, np.int64) if close is None else close,
        matrix(in_time["volume_shares"] + 1),
        quality,
        _revisions(late) if late.height else None,
    )


def _revisions(late: pl.DataFrame) -> Revisions:
    def column(values: pl.Series) -> Matrix:
        return values.fill_null(0).to_numpy()

    return Revisions(
        column(late["known_unix_s"]),
        column(late["row"]),
        column(late["place"]),
        column(late["open_micros"]),
        column(late["high_micros"]),
        column(late["low_micros"]),
        column(late["close_micros"]),
        column(late["volume_shares"] + 1),
        late["quality"].to_numpy(),
    )


def check_tables(source: SetSource) -> None:
    """Proves a whole set, table by table: what it says is what its snapshot is the hash of. Raises as `load_yearly`."""
    source.prove(source.files_sha256)
    for name, expected in source.tables_sha256.items():
        if table_sha256(pl.read_parquet(source.folder / f"{name}.parquet")) != expected:
            raise SetDamaged(f"{source.folder} does not hold {source.record.snapshot}")
