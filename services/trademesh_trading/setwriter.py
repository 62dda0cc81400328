"""Writes one data set as a folder: `bars.parquet`, `instruments.parquet`, `actions.parquet`, `sessions.parquet` and `SOURCE.json`.

Used by `scripts/make-data` for the sets that come with the program and by the importer for users' own. Reading is `store.py`'s.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl


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
    """Hash of what a set says, whatever the file format: `sha256:` and 64 hexadecimal digits.

    The tables are bars, instruments, actions and sessions: prices, what they mean, and when they were known.
    """
    digest = hashlib.sha256(f"{adjustment}\n{calendar}\n".encode())
    for table in tables:
        digest.update(table.write_csv().encode())
    return "sha256:" + digest.hexdigest()


def write_set(
    folder: Path,
    description: SetDescription,
    bars: pl.DataFrame,
    instruments: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
) -> str:
    """Writes the set's files and returns its content hash.

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
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}
    record = asdict(description) | {"snapshot": snapshot, "files_sha256": files}
    (folder / "SOURCE.json").write_text(json.dumps(record, indent=2) + "\n")
    return snapshot
