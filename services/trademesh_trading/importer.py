"""`python -m trademesh_trading.importer`: makes a set that trading_service serves out of a user's CSV or Parquet files.

All or nothing: a set is written to a folder that no reader looks at, and renamed once it is whole. What may be in a file is
`importer_files.py`'s and `importer_rows.py`'s; `trademesh data import` is this program.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from trademesh_kernel.settings import load_settings
from trademesh_trading.calendars import calendar_names
from trademesh_trading.importer_files import Fault, files_of, read_files
from trademesh_trading.importer_rows import NO_ACTIONS, judge
from trademesh_trading.set_files import SetDamaged, load_set
from trademesh_trading.settings import DataSettings
from trademesh_trading.setwriter import SetDescription, content_hash, write_set
from trademesh_trading.store import EMBEDDED_SETS, name_of_imported

ADJUSTMENTS = {"none": "NONE", "splits-and-dividends": "SPLITS_AND_DIVIDENDS", "as-imported": "AS_IMPORTED"}
SHOWN_FAULTS = 100
HASH_DIGITS = 12
EXIT_BAD_DATA = 1
EXIT_USAGE = 2

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
    first_session: str
    last_session: str
    adjustment: str
    calendar: str
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
    if not files:
        raise ImportRefused(f"{order.path}: there is no .csv and no .parquet file")
    text = read_files(files)
    try:
        judged = judge(text.rows, order.calendar, order.today)
    except ValueError as error:
        raise ImportRefused(f"calendar {order.calendar}: {error}") from error
    faults = [*text.faults, *judged.faults]
    if not faults and not text.rows.height:
        faults = [Fault(order.path.name, 0, "there is no row")]
    if faults:
        raise RowsRefused(faults)
    instruments = _instruments(judged.bars, order)
    bars = judged.bars.sort("ticker", "session")
    actions = pl.DataFrame(schema=NO_ACTIONS)
    snapshot = content_hash(order.adjustment, order.calendar, bars, instruments, actions, judged.sessions)
    folder = sets / f"{order.name}-{snapshot.removeprefix('sha256:')[:HASH_DIGITS]}"
    description = SetDescription(
        name_of_imported(folder),
        order.source or f"imported from {order.path.resolve().name}",
        order.licence,
        order.adjustment,
        order.calendar,
        ", ".join(f"{file.name} sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files),
    )
    already = folder.exists() or not _write(folder, description, bars, instruments, actions, judged.sessions)
    if already:
        _check_whole(folder)
    return ImportedSet(
        description.name,
        str(folder),
        snapshot,
        already,
        instruments["ticker"].to_list(),
        bars.height,
        str(bars["session"].min()),
        str(bars["session"].max()),
        order.adjustment,
        order.calendar,
        list(text.ignored_columns),
    )


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
    tickers = bars["ticker"].unique().sort().to_list()
    unknown = sorted({*order.indexes, *order.funds} - set(tickers))
    if unknown:
        raise ImportRefused(f"there is no {', '.join(unknown)} among the tickers")
    kinds = ["INDEX" if ticker in order.indexes else "ETF" if ticker in order.funds else "STOCK" for ticker in tickers]
    return pl.DataFrame({"ticker": tickers, "kind": kinds}, schema={"ticker": pl.String, "kind": pl.String})


def _write(folder: Path, description: SetDescription, *tables: pl.DataFrame) -> bool:
    """Writes a set, and then shows it; False if another import has just made the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.parent / f".importing-{uuid.uuid4().hex}"
    try:
        write_set(unfinished, description, *tables)
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
        load_set(folder)
    except (OSError, SetDamaged) as error:
        raise ImportRefused(f"this set was imported before, and is damaged: {error}; remove {folder}, and import again") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trademesh data import", description="Import prices as a data set.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--name", default="")
    parser.add_argument("--calendar", default="XNYS")
    parser.add_argument("--adjustment", choices=ADJUSTMENTS, default="as-imported")
    parser.add_argument("--source", default="")
    parser.add_argument("--licence", default="not stated")
    parser.add_argument("--index", action="append", default=[])
    parser.add_argument("--fund", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = _parser().parse_args(arguments)
    settings = load_settings(DataSettings)
    order = ImportOrder(
        given.path,
        given.name or default_name(given.path),
        # East of Greenwich today may be tomorrow already.
        datetime.now(UTC).date() + timedelta(days=1),
        given.calendar,
        ADJUSTMENTS[given.adjustment],
        given.source,
        given.licence,
        frozenset(given.index),
        frozenset(given.fund),
    )
    try:
        imported = import_set(order, settings.imported_sets())
    except ImportRefused as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RowsRefused as error:
        _tell_faults(error.faults, as_json=given.json)
        return EXIT_BAD_DATA
    except OSError as error:
        print(f"error: nothing was imported: {error}", file=sys.stderr)
        return EXIT_BAD_DATA
    if given.json:
        print(json.dumps(asdict(imported), indent=2))
        return 0
    _tell(imported)
    return 0


def _tell_faults(faults: Sequence[Fault], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"imported": False, "faults": [asdict(fault) for fault in faults], "faults_total": len(faults)}, indent=2))
    shown = () if as_json else faults[:SHOWN_FAULTS]
    for fault in shown:
        print(f"error: {fault}", file=sys.stderr)
    more = f", {len(faults) - len(shown)} more than are shown: --json tells all" if shown and len(faults) > len(shown) else ""
    print(
        f"error: nothing was imported: {len(faults)} bad row{'s' if len(faults) != 1 else ''} or file{'s' if len(faults) != 1 else ''}{more}",
        file=sys.stderr,
    )


def _tell(imported: ImportedSet) -> None:
    if imported.ignored_columns:
        print(f"note: nothing is made of column {', '.join(imported.ignored_columns)}", file=sys.stderr)
    what = "was imported before, and is the same" if imported.already else "is imported"
    print(
        f"{imported.name} {what}: {imported.bars} bars of {len(imported.tickers)} tickers, {imported.first_session} to {imported.last_session}"
    )
    print(f"{imported.snapshot} in {imported.folder}")
    print(f"use it in BOOTSTRAP.md with `data: {{set: {imported.name}}}`")


if __name__ == "__main__":
    sys.exit(main())
