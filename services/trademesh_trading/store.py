"""Reads data sets: those that come with the program and those that users imported. Writes nothing.

A set in memory is a matrix per field, sessions by tickers, of whole micro-dollars with 0 where there is none. Sets are loaded when
they are first asked for, and the few that were used last are kept.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from trademesh_kernel.errors import DataAbsent
from trademesh_trading.corporate_actions import ActionRecord, read_actions
from trademesh_trading.setwriter import content_hash

EMBEDDED_SETS = Path(__file__).parent / "data"
KEPT_SETS = 4

Matrix: TypeAlias = npt.NDArray[np.int64]

RECORD_FIELDS = ("name", "snapshot", "source", "licence", "adjustment", "calendar")
OPTIONAL_FIELDS = {"open": "open_micros", "high": "high_micros", "low": "low_micros", "volume": "volume_shares"}


class SetDamaged(Exception):
    """The files of a set are not what was written."""


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
    fields: frozenset[str]
    """Which of open, high, low and volume its bars have, all or some of them."""


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
    actions: tuple[ActionRecord, ...]

    def columns(self, tickers: Sequence[str], what: str = "bars") -> list[int]:
        """Columns of tickers, all of them if none is named; raises DataAbsent, and says what of them was asked for."""
        if not tickers:
            return list(range(len(self.instruments)))
        known = {instrument.ticker: column for column, instrument in enumerate(self.instruments)}
        missing = [ticker for ticker in tickers if ticker not in known]
        if missing:
            text = f"set {self.record.name} has no {', '.join(missing[:5])}: ListInstruments names what it has"
            raise DataAbsent(text, set=self.record.name, ticker=missing[0], what=what)
        return [known[ticker] for ticker in tickers]

    def rows(self, start: str, end: str, as_of_unix_s: int) -> range:
        """Rows of the sessions from start to end that had closed by then; empty dates are open ends."""
        known = int(np.searchsorted(self.close_unix_s, as_of_unix_s, side="right"))
        first = next((row for row, session in enumerate(self.sessions) if session >= start), len(self.sessions)) if start else 0
        last = next((row for row, session in enumerate(self.sessions) if session > end), len(self.sessions)) if end else len(self.sessions)
        return range(first, max(first, min(last, known)))


class MarketStore:
    """All sets that can be read."""

    def __init__(self, imported_sets: Path | None = None) -> None:
        """`imported_sets` is the folder that the importer writes to; it may be absent, and may fill while we run."""
        self._imported = imported_sets
        self._sound = set[Path]()
        self._loaded: OrderedDict[Path, MarketSet] = OrderedDict()
        self._loading = threading.Lock()
        self._folders = self._scan()

    def names(self) -> list[str]:
        """Names of all sets whose files are whole, those that come with the program first."""
        self._folders = self._scan()
        return [name for name, folder in self._folders.items() if self._is_sound(folder)]

    def get(self, name: str) -> MarketSet:
        """A set by its name; the part before the `@` is enough where only one set has it. Raises DataAbsent."""
        folder = self._folders.get(name) or self._find(name)
        with self._loading:
            try:
                found = self._loaded.pop(folder, None) or load_set(folder)
            except (OSError, SetDamaged) as error:
                raise DataAbsent(f"set {name} cannot be read: {error}; import it again", set=name, what="set") from error
            self._loaded[folder] = found
            while len(self._loaded) > KEPT_SETS:
                self._loaded.popitem(last=False)
            return found

    def _find(self, name: str) -> Path:
        """A set that was not known when we last looked, or one by the first part of its name."""
        self._folders = self._scan()
        fitting = {full: folder for full, folder in self._folders.items() if name in (full, full.partition("@")[0])}
        if len(fitting) == 1:
            return next(iter(fitting.values()))
        text = f"several sets are called {name}: say which of {', '.join(fitting)}"
        if not fitting:
            text = f"there is no set {name}: there are {', '.join(self.names())}"
        raise DataAbsent(text, set=name, what="set")

    def _scan(self) -> dict[str, Path]:
        """Folders of sets by their names. What the importer has not finished begins with a dot."""
        folders = {folder.name: folder for folder in sorted(EMBEDDED_SETS.iterdir()) if (folder / "SOURCE.json").is_file()}
        if self._imported is not None and self._imported.is_dir():
            found = (folder for folder in sorted(self._imported.iterdir()) if not folder.name.startswith("."))
            folders |= {name_of_imported(folder): folder for folder in found if (folder / "SOURCE.json").is_file()}
        return folders

    def _is_sound(self, folder: Path) -> bool:
        """Looked at until it is: sets are not changed after they were made, but a damaged one may be made again."""
        if folder not in self._sound:
            try:
                check_files(folder)
            except (OSError, SetDamaged):
                return False
            self._sound.add(folder)
        return True


def name_of_imported(folder: Path) -> str:
    """Name of an imported set, `name@digits`; its folder is `name-digits`."""
    name, _, digits = folder.name.rpartition("-")
    return f"{name}@{digits}"


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


def load_set(folder: Path) -> MarketSet:
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
    return MarketSet(
        record,
        _instruments(instruments, bars),
        dates,
        opens,
        closes,
        matrix(bars["open_micros"]),
        matrix(bars["high_micros"]),
        matrix(bars["low_micros"]),
        close if close is not None else np.zeros(shape, np.int64),
        matrix(bars["volume_shares"] + 1),
        quality,
        tuple(read_actions(actions, dates, opens.tolist(), closes.tolist())),
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
