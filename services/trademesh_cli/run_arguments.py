"""What commands about a run are given, and where the run is on disk."""

from __future__ import annotations

from typing import Annotated

import typer

from trademesh_cli.rpc import EXIT_NOT_FOUND, EXIT_USAGE, fail, settings
from trademesh_runs.layout import RunLayout

RunId = Annotated[str, typer.Argument(metavar="RUN", help="id of the run")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def layout_of(run_id: str) -> RunLayout:
    """Where a run is that has a journal; says what is wrong and ends the command if there is none."""
    try:
        layout = RunLayout(settings().runs_dir, run_id)
    except ValueError as error:
        fail(str(error), None, EXIT_USAGE)
    if not layout.journal.is_file():
        fail(f"there is no journal at {layout.journal}", None, EXIT_NOT_FOUND)
    return layout
