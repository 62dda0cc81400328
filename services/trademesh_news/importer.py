"""`python -m trademesh_news.importer`: adds a user's file of news to a set that news_service serves.

All or nothing: an import is written to a file that no reader looks at, and gets its name once it is whole. What may be in a line is
`importer_rows.py`'s, what is on the disk `imported_sets.py`'s; `trademesh data import-news` is this program.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trademesh_kernel.settings import load_settings
from trademesh_news.imported_sets import ImportDamaged, encoded, import_files, import_name, number_of, numbered, read_imports
from trademesh_news.importer_rows import Fault, judge
from trademesh_news.news_items import NewsSet
from trademesh_news.settings import NewsDataSettings
from trademesh_news.store import EMBEDDED_SETS

SHOWN_FAULTS = 100
MOST_IMPORTS = 999_999
LARGEST_FILE_BYTES = 512 * 1024 * 1024
CLOCK_MARGIN = timedelta(minutes=1)
"""The clock of who published may be so much ahead of ours."""
EXIT_BAD_DATA = 1
EXIT_USAGE = 2

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(@[0-9a-f]{12})?")


class ImportRefused(Exception):
    """Nothing was imported: what was asked for cannot be done."""


class RowsRefused(Exception):
    """Nothing was imported: lines have faults."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{len(faults)} faults")
        self.faults = tuple(faults)


@dataclass(frozen=True)
class ImportedNews:
    """What is there now. `added` counts versions; 0 if all of them were there before."""

    set: str
    file: str
    added: int
    items: int
    versions: int
    ignored_keys: list[str]


def import_news(path: Path, name: str, root: Path, now: datetime) -> ImportedNews:
    """Adds a file of JSON lines to the news of a set below `root`.

    Raises:
        ImportRefused: it cannot be done.
        RowsRefused: lines have faults.
        OSError: a file cannot be read or written.
    """
    _check(path, name)
    folder = root / name
    with _alone(folder):
        files = import_files(folder)
        try:
            before = read_imports(files)
        except ImportDamaged as error:
            raise ImportRefused(
                f"what was imported before is damaged: {error}; remove that file, and import what was in it again"
            ) from error
        judged = judge(path.read_bytes().split(b"\n"), now + CLOCK_MARGIN, before.items)
        faults = judged.faults
        if not faults and not judged.records and not _has_a_line(path):
            faults = [Fault(0, "there is no line")]
        if faults:
            raise RowsRefused(sorted(faults))
        file = ""
        if judged.records:
            records = numbered(judged.records).items
            file = _write(folder, number_of(files[-1]) + 1 if files else 1, encoded(records))
        after = numbered([*before.items, *judged.records])
    return ImportedNews(name, file, len(judged.records), _items(after), len(after.items), list(judged.ignored_keys))


def _items(news: NewsSet) -> int:
    return len({item.news_id for item in news.items})


def _has_a_line(path: Path) -> bool:
    return bool(path.read_bytes().strip())


def _check(path: Path, name: str) -> None:
    if not path.is_file():
        raise ImportRefused(f"{path}: there is no such file")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise ImportRefused(f"{path} has more than {LARGEST_FILE_BYTES} bytes: import it in parts")
    if not _NAME.fullmatch(name):
        raise ImportRefused(
            f"{name or 'an empty name'} is no name for a set: give that of the market data, as `trademesh data show` has it"
        )
    if (EMBEDDED_SETS / name).exists():
        raise ImportRefused(f"the news of {name} come with the program, and runs that used them are to stay as they were")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While this lasts no other import writes to the set."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ImportRefused(f"another import into {folder.name} is going on: try again when it has ended") from None
        yield


def _write(folder: Path, number: int, content: bytes) -> str:
    """Writes an import, and then shows it. Returns its path."""
    if number > MOST_IMPORTS:
        raise ImportRefused(f"{folder.name} has had {MOST_IMPORTS} imports, and can have no more")
    unfinished, path = folder / ".importing", folder / import_name(number, content)
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            # On the disk before the name is: an import that can be seen is whole, even after a loss of power.
            os.fsync(file.fileno())
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return str(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="trademesh data import-news", description="Add news to a set.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--set", required=True)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    settings = load_settings(NewsDataSettings)
    try:
        imported = import_news(given.path, given.set, settings.imported_news(), datetime.now(UTC))
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
    print(f"error: nothing was imported: {len(faults)} bad row{'s' if len(faults) != 1 else ''}{more}", file=sys.stderr)


def _tell(imported: ImportedNews) -> None:
    if imported.ignored_keys:
        print(f"note: nothing is made of {', '.join(imported.ignored_keys)}", file=sys.stderr)
    added = f"{imported.added} versions added" if imported.added else "all of it was imported before"
    print(f"{imported.set}: {added}; it has {imported.items} items in {imported.versions} versions")
    if imported.file:
        print(f"in {imported.file}")


if __name__ == "__main__":
    sys.exit(main())
