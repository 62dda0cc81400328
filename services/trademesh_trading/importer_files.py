"""Reads users' CSV and Parquet files into tables of text, each row with the place that it came from.

Everything stays text here, so that a price is not rounded before it is judged. What a row may say is `importer_rows.py`'s and
`importer_tables.py`'s.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from trademesh_trading.known_tables import STATEMENT_LINES

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class FileForm:
    """A kind of file: how it is recognised, and which columns it has."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """All columns that something is made of."""
        return (*self.required, *self.optional)

    def schema(self) -> dict[str, type[pl.DataType]]:
        """Columns of a table of text: `row` counts lines of a CSV file, its header being line 1, or records of a Parquet file."""
        return {"file": pl.String, "row": pl.Int64, **dict.fromkeys(self.fields, pl.String)}

    def fits(self, file: Path) -> bool:
        """True for a file that is named after the form, such as fundamentals.csv or fundamentals-2024.parquet."""
        return re.match(rf"{self.name}([^a-z].*)?$", file.stem.lower()) is not None


BARS = FileForm("bars", ("date", "close"), ("ticker", "open", "high", "low", "volume", "known_at"))
CORPORATE_ACTIONS = FileForm("corporate_actions", ("ticker", "ex_date"), ("dividend", "split_new", "split_old", "last_price", "known_at"))
FUNDAMENTALS = FileForm("fundamentals", ("ticker", "fiscal_period_end", "period", "known_at"), (*STATEMENT_LINES, "shares_outstanding"))
INSIDER_TRADES = FileForm(
    "insider_trades", ("ticker", "transaction_date", "code", "shares", "known_at"), ("price", "insider", "role", "trade_id")
)
TABLE_FORMS = (CORPORATE_ACTIONS, FUNDAMENTALS, INSIDER_TRADES)


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong with one row, or with a whole file if `row` is 0."""

    file: str
    row: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}: row {self.row}: {self.message}" if self.row else f"{self.file}: {self.message}"


class FileFaults(Exception):
    """A file cannot be read as a table of its form."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True)
class TextTable:
    """Rows of all files, the columns that nothing is made of, and what is wrong with files."""

    rows: pl.DataFrame
    ignored_columns: tuple[str, ...]
    faults: tuple[Fault, ...]


def files_of(path: Path) -> dict[FileForm, list[Path]]:
    """The files to import by their form, by name: the file itself, or those of a folder; folders in it are left alone.

    What is not named after another form holds prices.
    """
    found = [path]
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file())
    files = dict[FileForm, list[Path]]()
    for file in found:
        if file.suffix.lower() in SUFFIXES:
            form = next((form for form in TABLE_FORMS if form.fits(file)), BARS)
            files.setdefault(form, []).append(file)
    return files


def read_files(files: Iterable[Path], form: FileForm = BARS) -> TextTable:
    """Reads all files of a form; a faulty one does not keep the others from being judged."""
    parts, ignored, faults = [pl.DataFrame(schema=form.schema())], dict[str, None](), list[Fault]()
    for file in files:
        try:
            table = _read(file)
            columns = _known_columns(file, table, form)
            parts.append(_text_rows(file, table, columns, form))
        except FileFaults as error:
            faults += error.faults
            continue
        except pl.exceptions.PolarsError as error:
            what = str(error).partition("\n")[0]
            faults.append(Fault(file.name, 0, f"has a column that is not text, numbers or dates: {what}"))
            continue
        ignored |= dict.fromkeys(name for name in table.columns if name not in columns.values())
    return TextTable(pl.concat(parts), tuple(ignored), tuple(faults))


def _read(file: Path) -> pl.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            return pl.read_parquet(file, glob=False, hive_partitioning=False)
        return pl.read_csv(file, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        ragged = _ragged_lines(file) if file.suffix.lower() == ".csv" else []
        what = str(error).partition("\n")[0]
        raise FileFaults(ragged or [Fault(file.name, 0, f"cannot be read: {what}")]) from error


def _ragged_lines(file: Path) -> list[Fault]:
    """Lines with more fields than the header: polars refuses them, but does not say which they are."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text)
            width = len(next(lines, []))
            return [
                Fault(file.name, number, f"has {len(fields)} fields, and the header {width}")
                for number, fields in enumerate(lines, 2)
                if len(fields) > width
            ]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _known_columns(file: Path, table: pl.DataFrame, form: FileForm) -> dict[str, str]:
    """Which column of the file is which field; capitals and spaces around a name do not matter."""
    columns, faults = dict[str, str](), list[Fault]()
    for column in table.columns:
        field = column.strip().lower()
        if field in columns:
            faults.append(Fault(file.name, 0, f"has two columns {field}"))
        elif field in form.fields:
            columns[field] = column
    missing = [field for field in form.required if field not in columns]
    if missing:
        faults.append(Fault(file.name, 0, f"has no column {' and no column '.join(missing)}, but {', '.join(table.columns) or 'nothing'}"))
    if faults:
        raise FileFaults(faults)
    return columns


def _text_rows(file: Path, table: pl.DataFrame, columns: dict[str, str], form: FileForm) -> pl.DataFrame:
    first_row = 1 if file.suffix.lower() == ".parquet" else 2
    given = [_as_text(table[column], field) for field, column in columns.items()]
    absent = [pl.lit(file.stem if field == "ticker" else None, pl.String).alias(field) for field in form.fields if field not in columns]
    number = pl.int_range(first_row, pl.len() + first_row, dtype=pl.Int64).alias("row")
    rows = pl.DataFrame(given).with_columns(pl.lit(file.name).alias("file"), number, *absent)
    # A line without anything is not a row; it still counts, so that numbers are those of an editor.
    blank = pl.all_horizontal(pl.col(list(columns)).is_null())
    return rows.filter(~blank).select(list(form.schema()))


def _as_text(values: pl.Series, name: str) -> pl.Series:
    """A column as text without blanks around it, null where there is none. Floats become their shortest text, which is what was meant."""
    if isinstance(values.dtype, pl.Datetime):
        values = _instants_as_text(values) if name == "known_at" else values.dt.date()
    text = values.cast(pl.String, strict=False).str.strip_chars()
    return text.replace("", None).alias(name)


def _instants_as_text(values: pl.Series) -> pl.Series:
    """Instants with their time zone, if they have one; it is not guessed."""
    if getattr(values.dtype, "time_zone", None) is None:
        return values.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
    return values.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
