"""Reads the folder of a set, and proves that its files are what was written. Writing is `setwriter.py`'s, finding sets `store.py`'s.

Sets that come with the program, and those that older versions imported, are read whole; others as `year_files.py` does.
What is made ready beforehand, so that it is sent as it is, is `ready_files.py`'s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from trademesh_trading.bar_matrices import Matrix
from trademesh_trading.corporate_actions import read_actions
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord, LoadedSet, MarketSet
from trademesh_trading.ready_writing import write_ready_rows
from trademesh_trading.set_source import SetDamaged, SetSource, read_source
from trademesh_trading.setwriter import content_hash
from trademesh_trading.year_files import bars_name, check_tables, load_yearly
from trademesh_trading.year_pages import PageCache


def check_files(folder: Path) -> None:
    """Proves the files of a set, without its yearly bars.

    Raises:
        SetDamaged: a file is not the one that was written.
        OSError: a file cannot be read.
    """
    source = read_source(folder)
    source.prove(source.files_read_at_once())


def check_whole(folder: Path) -> None:
    """Proves that a set says what its hash says, all of it. Raises as `check_files`."""
    source = read_source(folder)
    if source.yearly:
        check_tables(source)
    else:
        _load_whole(source)


def make_set_ready(folder: Path) -> None:
    """Makes the bars of a yearly set ready beforehand, so that they are sent as they are; does nothing if that was done.

    Raises:
        SetDamaged: a file is not what was written.
        DataAbsent: a file of bars is not.
        OSError: a file cannot be read or written.
    """
    source = read_source(folder)
    if source.yearly:
        data = load_yearly(source, PageCache(most_bytes=0))
        years = {year: rows for year, rows in data.years.items() if bars_name(year) in source.files_sha256}
        write_ready_rows(folder, data, years)


def load_set(folder: Path, pages: PageCache | None = None) -> MarketSet:
    """A set. Years of bars that are read later are kept in `pages`.

    Raises:
        SetDamaged: the files are not those that were written, or do not say what the set's hash says.
        OSError: a file cannot be read.
    """
    source = read_source(folder)
    return load_yearly(source, pages or PageCache()) if source.yearly else _load_whole(source)


def _load_whole(source: SetSource) -> LoadedSet:
    folder, record = source.folder, source.record
    source.prove(source.files_sha256)
    tables = [pl.read_parquet(folder / f"{table}.parquet") for table in ("bars", "instruments", "actions", "sessions")]
    if content_hash(record.adjustment, record.calendar, *tables) != record.snapshot:
        raise SetDamaged(f"{folder} does not hold {record.snapshot}")
    content, instruments, actions, sessions = tables
    dates = tuple(session.isoformat() for session in sessions["session"])
    opens, closes = sessions["open_unix_s"].to_numpy(), sessions["close_unix_s"].to_numpy()
    numbered = sessions.with_row_index("row")
    columns = instruments.with_row_index("column")
    bars = content.join(numbered.select("session", "row"), on="session").join(columns, on="ticker")
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
    return LoadedSet(
        record,
        _instruments(instruments, bars),
        dates,
        opens,
        closes,
        tuple(read_actions(actions, dates, opens.tolist(), closes.tolist())),
        {},
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
        *(pl.col(column).is_not_null().any().alias(field) for field, column in OPTIONAL_FIELDS.items()),
    )
    table = instruments.join(spans, on="ticker", how="left", maintain_order="left")
    return tuple(
        InstrumentRecord(
            row["ticker"],
            row["kind"],
            row["first"].isoformat() if row["first"] else "",
            row["last"].isoformat() if row["last"] else "",
            frozenset(field for field in OPTIONAL_FIELDS if row[field]),
        )
        for row in table.iter_rows(named=True)
    )
