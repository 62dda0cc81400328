"""`trademesh run report RUN`: what a run came to, as one page or as tables. Read from its journal, live or not; no service is needed."""

from __future__ import annotations

import sqlite3
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.message import DecodeError

from trademesh_cli.report_data import ReportData, read_report
from trademesh_cli.report_page import report_page
from trademesh_cli.report_tables import as_csv, as_parquet, report_tables
from trademesh_cli.rpc import EXIT_FAILED, EXIT_USAGE, fail, print_json
from trademesh_cli.run_arguments import AsJson, RunId, layout_of
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.journal import JournalDamagedError, NewerJournalError
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.layout import RunLayout

report_app = typer.Typer()


class ReportFormat(Enum):
    """What is written."""

    HTML = "html"
    CSV = "csv"
    PARQUET = "parquet"


@report_app.command("report")
def report(
    run_id: RunId,
    output: Annotated[Path, typer.Option("-o", "--output", help="the page's file; for tables a folder, which is made")],
    report_format: Annotated[ReportFormat, typer.Option("--format", help="one page, or a file per table")] = ReportFormat.HTML,
    as_json: AsJson = False,
) -> None:
    """Write what a run came to: one page that loads nothing, or tables for other programs."""
    data = _read(layout_of(run_id))
    try:
        if report_format is ReportFormat.HTML:
            contents = {output: report_page(data).encode()}
        else:
            write = as_csv if report_format is ReportFormat.CSV else as_parquet
            contents = {output / f"{name}.{report_format.value}": write(table) for name, table in report_tables(data).items()}
            output.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            replace_file(path, content)
    except ModuleNotFoundError as error:
        fail(f"Parquet needs {error.name}: pip install 'trademesh[trading]', or --format csv", None, EXIT_USAGE)
    except OSError as error:
        fail(f"{output} cannot be written: {error}", None, EXIT_FAILED)
    files = [str(path) for path in contents]
    print_json({"run_id": run_id, "as_of_sequence": data.as_of_sequence, "files": files}) if as_json else print("\n".join(files))


def _read(layout: RunLayout) -> ReportData:
    try:
        reader = SqliteStore(layout.journal).reader()
        try:
            with reader.standing_still():
                return read_report(layout.run_id, reader)
        finally:
            reader.close()
    except NewerJournalError as error:
        fail(str(error), None, EXIT_FAILED)
    except (JournalDamagedError, DecodeError, sqlite3.Error) as error:
        fail(f"the journal of {layout.run_id} cannot be read: {error} (`trademesh run verify` tells more)", None, EXIT_FAILED)
