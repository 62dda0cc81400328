"""Reads the folder of a set, and proves that its files are what was written. Writing is `setwriter.py`'s, finding sets `store.py`'s."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from trademesh_trading.corporate_actions import read_actions
from trademesh_trading.market_set import OPTIONAL_FIELDS, InstrumentRecord, LoadedSet, Matrix, SetRecord
from trademesh_trading.setwriter import content_hash

RECORD_FIELDS = ("name", "snapshot", "source", "licence", "adjustment", "calendar")


class SetDamaged(Exception):
    """The files of a set are not what was written."""


def check_files(folder: Path) -> dict[str, Any]:
    """What SOURCE.json says, once the files are proved to be those that it was written with.

    Raises:
        SetDamaged: a file is another.
        OSError: a file cannot be read.
    """
    try:
        source: dict[str, Any] = json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))
        if not all(isinstance(source[field], str) for field in RECORD_FIELDS):
            raise TypeError("a text is expected")
        for name, expected in source["files_sha256"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise SetDamaged(f"{folder / name} is not the file that was written")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SetDamaged(f"{folder / 'SOURCE.json'} is not what was written") from error
    return source


def load_set(folder: Path) -> LoadedSet:
    """Reads a set's files into memory.

    Raises:
        SetDamaged: the files are not those that were written, or do not say what the set's hash says.
        OSError: a file cannot be read.
    """
    source = check_files(folder)
    record = SetRecord(*(source[field] for field in RECORD_FIELDS))
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
