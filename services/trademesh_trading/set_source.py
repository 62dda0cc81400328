"""SOURCE.json of a set's folder: what the set is, and by which hashes its files are known. Proves files; what is in them is read elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trademesh_trading.market_set import SetRecord
from trademesh_trading.setwriter import YEARLY_LAYOUT, snapshot_of_tables

RECORD_FIELDS = ("name", "snapshot", "source", "licence", "adjustment", "calendar")


class SetDamaged(Exception):
    """The files of a set are not what was written."""


@dataclass(frozen=True)
class SetSource:
    """What SOURCE.json says."""

    folder: Path
    record: SetRecord
    yearly: bool
    """Bars are in a file for each year, and hashes are by table; else all are in one, and the snapshot is of all tables at once."""
    files_sha256: Mapping[str, str]
    tables_sha256: Mapping[str, str]

    def prove(self, names: Iterable[str]) -> None:
        """Raises SetDamaged if one of some files is not the one that was written, and OSError if it cannot be read."""
        for name in names:
            with (self.folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != self.files_sha256[name]:
                    raise SetDamaged(f"{self.folder / name} is not the file that was written")

    def files_read_at_once(self) -> list[str]:
        """All but the bars of single years, which are proved when a year is read."""
        return [name for name in self.files_sha256 if not (self.yearly and name.startswith("bars-"))]


def read_source(folder: Path) -> SetSource:
    """What SOURCE.json of a folder says.

    Raises:
        SetDamaged: it is not what was written.
        OSError: it cannot be read.
    """
    try:
        said: dict[str, Any] = json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))
        record = SetRecord(*(said[field] for field in RECORD_FIELDS))
        tables = said.get("tables_sha256", {})
        found = SetSource(folder, record, said.get("layout") == YEARLY_LAYOUT, said["files_sha256"], tables)
        texts = [*vars(record).values(), *found.files_sha256, *found.files_sha256.values(), *tables, *tables.values()]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a text is expected")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise SetDamaged(f"{folder / 'SOURCE.json'} is not what was written") from error
    if found.yearly and snapshot_of_tables(record.adjustment, record.calendar, tables) != record.snapshot:
        raise SetDamaged(f"{folder / 'SOURCE.json'} does not tell of {record.snapshot}")
    return found
