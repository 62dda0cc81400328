"""Makes a set that trading_service serves out of a user's CSV or Parquet files.

All or nothing: a set is written to a folder that no reader looks at, and renamed once it is whole. What may be in a file is
`importer_files.py`'s, `importer_rows.py`'s and `importer_tables.py`'s; `importer.py` is the command.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from trademesh_trading.calendars import calendar_names
from trademesh_trading.importer_files import BARS, Fault, FileForm, TextTable, files_of, read_files
from trademesh_trading.importer_rows import judge_bars
from trademesh_trading.importer_tables import JUDGES
from trademesh_trading.importer_values import TradingDays, trading_days
from trademesh_trading.market_set import OPTIONAL_FIELDS
from trademesh_trading.set_files import check_whole, make_set_ready
from trademesh_trading.set_source import SetDamaged
from trademesh_trading.setwriter import SetDescription, snapshot_of_tables, table_sha256, tables_by_year, write_yearly_set
from trademesh_trading.store import EMBEDDED_SETS, name_of_imported

HASH_DIGITS = 12
TABLE_FILES = {"corporate_actions": "actions"}
"""Names of files within a set, where they are not those of the users' files."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class ImportRefused(Exception):
    """Nothing was imported: what was asked for cannot be done."""


class RowsRefused(Exception):
    """Nothing was imported: files have faults."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = tuple(faults)


@dataclass(frozen=True)
class ImportOrder:
    """What to import and how; `adjustment` is the name of a value of trading.v1.Adjustment without its prefix."""

    path: Path
    name: str
    today: date
    """Later dates are faults."""
    calendar: str = "XNYS"
    adjustment: str = "AS_IMPORTED"
    source: str = ""
    licence: str = "not stated"
    indexes: Collection[str] = ()
    funds: Collection[str] = ()


@dataclass(frozen=True)
class ImportedSet:
    """A set that is there now; `already` says that it was before."""

    name: str
    folder: str
    snapshot: str
    already: bool
    tickers: list[str]
    bars: int
    """Bars in all their forms, those told again included."""
    revisions: int
    """How many of them became known after the close of their session."""
    first_session: str
    last_session: str
    adjustment: str
    calendar: str
    tables: dict[str, int]
    """Rows of what the set has besides bars."""
    ignored_columns: list[str]


def default_name(path: Path) -> str:
    """Name of a set from that of its folder or file; may be empty."""
    resolved = path.resolve()
    stem = resolved.name if path.is_dir() else resolved.stem
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:64]


def import_set(order: ImportOrder, sets: Path) -> ImportedSet:
    """Imports files as a set below `sets`.

    Raises:
        ImportRefused: the order cannot be carried out.
        RowsRefused: files or rows have faults.
        OSError: the set cannot be written.
    """
    _check_order(order)
    files = files_of(order.path)
    if BARS not in files:
        raise ImportRefused(f"{order.path}: there is no .csv and no .parquet file" + (" of prices" if files else ""))
    texts = {form: read_files(paths, form) for form, paths in files.items()}
    try:
        days = trading_days(order.calendar, _days_told(texts), order.today)
    except ValueError as error:
        raise ImportRefused(f"calendar {order.calendar}: {error}") from error
    judged = _judged(order, texts, days)
    bars = judged.pop(BARS.name)
    instruments = _instruments(bars, order)
    sessions = days.sessions.filter(pl.col("session").is_between(bars["session"].min(), bars["session"].max()))
    tables = _tables(bars, instruments, sessions, judged)
    snapshot = snapshot_of_tables(order.adjustment, order.calendar, {name: table_sha256(table) for name, table in tables.items()})
    folder = sets / f"{order.name}-{snapshot.removeprefix('sha256:')[:HASH_DIGITS]}"
    description = SetDescription(
        name_of_imported(folder),
        order.source or f"imported from {order.path.resolve().name}",
        order.licence,
        order.adjustment,
        order.calendar,
        ", ".join(_named_by_hash(file) for file in sorted(file for paths in files.values() for file in paths)),
    )
    already = folder.exists() or not _write(folder, description, tables)
    if already:
        _check_whole(folder)
        # Sets that older versions imported were not. They can be read without.
        with suppress(OSError):
            make_set_ready(folder)
    in_time = bars.join(sessions, on="session").filter(pl.col("known_unix_s") == pl.col("close_unix_s")).height
    return ImportedSet(
        description.name,
        str(folder),
        snapshot,
        already,
        instruments["ticker"].to_list(),
        bars.height,
        bars.height - in_time,
        str(bars["session"].min()),
        str(bars["session"].max()),
        order.adjustment,
        order.calendar,
        {name: table.height for name, table in judged.items()},
        list(dict.fromkeys(column for text in texts.values() for column in text.ignored_columns)),
    )


def _days_told(texts: Mapping[FileForm, TextTable]) -> list[pl.Series]:
    """Every column in which there are days of sessions, or of filings."""
    columns = ("date", "ex_date", "known_at")
    return [text.rows[column] for form, text in texts.items() for column in columns if column in form.fields]


def _judged(order: ImportOrder, texts: Mapping[FileForm, TextTable], days: TradingDays) -> dict[str, pl.DataFrame]:
    """All tables by the names of their forms; raises RowsRefused with the faults of all of them."""
    bars = judge_bars(texts[BARS].rows, days)
    tickers = texts[BARS].rows["ticker"].drop_nulls().unique().to_list()
    others = {form.name: JUDGES[form.name](text.rows, days, tickers) for form, text in texts.items() if form is not BARS}
    faults = [fault for text in texts.values() for fault in text.faults]
    faults += [fault for judged in (bars, *others.values()) for fault in judged.faults]
    if not faults and not texts[BARS].rows.height:
        faults = [Fault(order.path.name, 0, "there is no row")]
    if faults:
        raise RowsRefused(faults)
    return {BARS.name: bars.table} | {name: judged.table for name, judged in others.items()}


def _tables(
    bars: pl.DataFrame, instruments: pl.DataFrame, sessions: pl.DataFrame, others: Mapping[str, pl.DataFrame]
) -> dict[str, pl.DataFrame]:
    """All tables of the set, as it keeps them."""
    columns = instruments.select("ticker").with_row_index("column").with_columns(pl.col("column").cast(pl.Int32))
    placed = bars.join(columns, on="ticker").drop("ticker")
    named = {TABLE_FILES.get(name, name): table for name, table in others.items()}
    return tables_by_year(placed, {"instruments": instruments, "sessions": sessions} | named)


def _named_by_hash(file: Path) -> str:
    with file.open("rb") as content:
        return f"{file.name} sha256 {hashlib.file_digest(content, 'sha256').hexdigest()}"


def _check_order(order: ImportOrder) -> None:
    if not order.path.exists():
        raise ImportRefused(f"{order.path}: there is no such file or folder")
    if not _NAME.fullmatch(order.name):
        raise ImportRefused(
            f"{order.name or 'an empty name'} is no name for a set: --name takes a-z, 0-9, '.', '_' and '-', at most 64 of them"
        )
    if order.name.startswith("mock-"):
        raise ImportRefused(f"{order.name} would be taken for a universe that is made up: choose another --name")
    if (EMBEDDED_SETS / order.name).exists():
        raise ImportRefused(f"{order.name} comes with the program: choose another --name")
    if order.calendar not in calendar_names():
        raise ImportRefused(f"there is no calendar {order.calendar}: XNYS is that of New York, see exchange-calendars for others")


def _instruments(bars: pl.DataFrame, order: ImportOrder) -> pl.DataFrame:
    """Tickers in alphabetical order, so that the hash does not depend on the order of files."""
    tickers = bars["ticker"].unique()
    unknown = sorted({*order.indexes, *order.funds} - set(tickers))
    if unknown:
        raise ImportRefused(f"there is no {', '.join(unknown)} among the tickers")
    is_index, is_fund = (pl.col("ticker").is_in(sorted(names)) for names in (order.indexes, order.funds))
    kind = pl.when(is_index).then(pl.lit("INDEX")).when(is_fund).then(pl.lit("ETF")).otherwise(pl.lit("STOCK"))
    spans = bars.group_by("ticker").agg(
        pl.col("session").min().alias("first_session"),
        pl.col("session").max().alias("last_session"),
        *(pl.col(column).is_not_null().any().alias(f"has_{field}") for field, column in OPTIONAL_FIELDS.items()),
    )
    return spans.sort("ticker").select("ticker", kind.alias("kind"), pl.exclude("ticker"))


def _write(folder: Path, description: SetDescription, tables: Mapping[str, pl.DataFrame]) -> bool:
    """Writes a set, and then shows it; False if another import has just made the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".importing-{uuid.uuid4().hex}"
    try:
        write_yearly_set(unfinished, description, tables)
        make_set_ready(unfinished)
        # On the disk before the name is: a set that can be seen is whole, even after a loss of power.
        for path in (*unfinished.iterdir(), unfinished):
            _to_disk(path)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            return False
        _to_disk(folder.parent)
        return True
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_whole(folder: Path) -> None:
    """What it holds is the same, or the folder would have another name."""
    try:
        check_whole(folder)
    except (OSError, SetDamaged) as error:
        raise ImportRefused(f"this set was imported before, and is damaged: {error}; remove {folder}, and import again") from error
