"""`python -m trademesh_trading.importer`, which is `trademesh data import`: its arguments, and what it tells. The work is `importing.py`'s."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trademesh_kernel.settings import load_settings
from trademesh_trading.importer_files import Fault
from trademesh_trading.importing import ImportedSet, ImportOrder, ImportRefused, RowsRefused, default_name, import_set
from trademesh_trading.settings import DataSettings

ADJUSTMENTS = {"none": "NONE", "splits-and-dividends": "SPLITS_AND_DIVIDENDS", "as-imported": "AS_IMPORTED"}
SHOWN_FAULTS = 100
EXIT_BAD_DATA = 1
EXIT_USAGE = 2


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
    others = "".join(f", {count} {name.replace('_', ' ')}" for name, count in imported.tables.items())
    revised = f" ({imported.revisions} of them told after their session)" if imported.revisions else ""
    what = "was imported before, and is the same" if imported.already else "is imported"
    print(
        f"{imported.name} {what}: {imported.bars} bars{revised} of {len(imported.tickers)} tickers, "
        f"{imported.first_session} to {imported.last_session}{others}"
    )
    print(f"{imported.snapshot} in {imported.folder}")
    print(f"use it in BOOTSTRAP.md with `data: {{set: {imported.name}}}`")


if __name__ == "__main__":
    sys.exit(main())
