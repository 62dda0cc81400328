"""Writes one data set as a folder of Parquet files and `SOURCE.json`. Reading is `set_files.py`'s and `year_files.py`'s.

Two layouts. The sets that come with the program are small and whole: `bars`, `instruments`, `actions`, `sessions`, under one hash
(`scripts/make-data`). What users import may be large: bars are in a file for each year, under a hash of their own, so that a year is read
and proved without the others; other tables are there if the user has them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

YEARLY_LAYOUT = "bars by year"
ROW_GROUP_ROWS = 65_536
"""A few hundred tickers of a year: who asks for one reads no more of the file than that."""


@dataclass(frozen=True)
class SetDescription:
    """What SOURCE.json says of a set, but for its hashes.

    `adjustment` is the name of a value of trading.v1.Adjustment without its prefix; `made_from` names the input exactly.
    """

    name: str
    source: str
    licence: str
    adjustment: str
    calendar: str
    made_from: str


def content_hash(adjustment: str, calendar: str, *tables: pl.DataFrame) -> str:
    """Hash of what a set of the first layout says, whatever the file format: `sha256:` and 64 hexadecimal digits.

    The tables are bars, instruments, actions and sessions: prices, what they mean, and when they were known.
    """
    digest = hashlib.sha256(f"{adjustment}\n{calendar}\n".encode())
    for table in tables:
        digest.update(table.write_csv().encode())
    return "sha256:" + digest.hexdigest()


def table_sha256(table: pl.DataFrame) -> str:
    """Hash of what one table says, whatever the file format."""
    return hashlib.sha256(table.write_csv().encode()).hexdigest()


def snapshot_of_tables(adjustment: str, calendar: str, tables_sha256: Mapping[str, str]) -> str:
    """Hash of what a set of the second layout says, from those of its tables by their names: `sha256:` and 64 hexadecimal digits."""
    lines = [adjustment, calendar, *(f"{name} {tables_sha256[name]}" for name in sorted(tables_sha256))]
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def tables_by_year(bars: pl.DataFrame, others: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The tables of the second layout by the names of their files.

    Args:
        bars: session, column (place of the ticker in `instruments`), open_micros, high_micros, low_micros, close_micros, volume_shares (null
            where absent), quality, known_unix_s; one row for each form in which a bar was told.
        others: `instruments`: ticker, kind, first_session, last_session, and whether there is any open, high, low, volume. `sessions`:
            session, open_unix_s, close_unix_s. Others if the user has them: `actions` as `corporate_actions.read_actions` takes it, and those
            of `known_tables.FORMS`.
    """
    ordered = bars.sort("column", "session", "known_unix_s")
    years = ordered.with_columns(pl.col("session").dt.year().alias("year")).partition_by("year", as_dict=True, include_key=False)
    return {f"bars-{year:04}": table for (year,), table in sorted(years.items())} | dict(others)


def write_set(
    folder: Path,
    description: SetDescription,
    bars: pl.DataFrame,
    instruments: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
) -> str:
    """Writes a set in the first layout and returns its content hash.

    Args:
        folder: made if it is not there.
        bars: session, ticker, open_micros, high_micros, low_micros, close_micros, volume_shares (null where absent), quality.
        instruments: ticker, kind; their order is the set's.
        actions: session (the ex-date), ticker, split_new, split_old, dividend_micros.
        sessions: session, open_unix_s, close_unix_s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = instruments.with_row_index("position").select("ticker", "position")
    # By ticker first: neighbours are alike, and the file is a third smaller.
    bars = bars.join(order, on="ticker").sort("position", "session").drop("position")
    actions = actions.sort("session", "ticker")
    for name, table in (("bars", bars), ("instruments", instruments), ("actions", actions), ("sessions", sessions)):
        table.write_parquet(folder / f"{name}.parquet", compression="zstd", compression_level=19, statistics=False)
    snapshot = content_hash(description.adjustment, description.calendar, bars, instruments, actions, sessions)
    _write_source(folder, asdict(description) | {"snapshot": snapshot})
    return snapshot


def write_yearly_set(folder: Path, description: SetDescription, tables: Mapping[str, pl.DataFrame]) -> str:
    """Writes a set in the second layout, of tables as `tables_by_year` makes them, and returns its snapshot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet", compression="zstd", row_group_size=ROW_GROUP_ROWS, statistics=True)
    hashes = {name: table_sha256(table) for name, table in tables.items()}
    snapshot = snapshot_of_tables(description.adjustment, description.calendar, hashes)
    _write_source(folder, asdict(description) | {"snapshot": snapshot, "layout": YEARLY_LAYOUT, "tables_sha256": hashes})
    return snapshot


def _write_source(folder: Path, said: dict[str, object]) -> None:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}
    (folder / "SOURCE.json").write_text(json.dumps(said | {"files_sha256": files}, indent=2) + "\n")
