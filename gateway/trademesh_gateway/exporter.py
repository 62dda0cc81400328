"""Writes the derived files of a live run: at most once a second, and at the end. What is in them is `trademesh_runs.exports`'.

They hold the curve of the whole run: those of decades take longer, and are written less often, so that a backtest is not slower for them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.exports import export_files
from trademesh_runs.fold import Fold
from trademesh_runs.journal import JournalReader
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import Scoreboard

INTERVAL_S = 1.0
SHARE = 0.02
"""No more of the time than that goes into exports."""


class Exporter:
    """The derived files of one run."""

    def __init__(
        self,
        layout: RunLayout,
        fold: Fold,
        flush: Callable[[], Awaitable[None]],
        reader: Callable[[], JournalReader],
        *,
        dashboard: bool,
    ) -> None:
        """`reader` opens the journal, from which agents' scores are read on."""
        self._layout = layout
        self._fold = fold
        self._flush = flush
        self._reader = reader
        self._board = Scoreboard()
        self._writing = threading.Lock()
        self._dashboard = dashboard
        self._due_at = 0.0

    async def export(self, *, force: bool = False) -> None:
        """Writes them, if it is time or must be. A gateway that another has replaced finds that out here and leaves the other's alone.

        Raises:
            FencedError, sqlite3.Error: the journal cannot be written any more.
        """
        if force or time.monotonic() >= self._due_at:
            await self._flush()
            began = time.monotonic()
            state = self._fold.state()
            await asyncio.to_thread(self._write, state, force)
            ended = time.monotonic()
            self._due_at = ended + max(INTERVAL_S, (ended - began) / SHARE)

    def _write(self, state: ServerState, durable: bool) -> None:
        """Takes in the newest scores, and writes; in a thread. The first time of a run of decades it is half a second, then a tenth."""
        # A thread goes on when its caller is cancelled: the last export of a gateway may meet the one before.
        with self._writing:
            if self._dashboard:
                reader = self._reader()
                try:
                    self._board.catch_up(reader, state.as_of_sequence)
                finally:
                    reader.close()
            write_exports(self._layout, state, self._board, dashboard=self._dashboard, durable=durable)


def write_exports(layout: RunLayout, state: ServerState, board: Scoreboard, *, dashboard: bool, durable: bool) -> None:
    """Makes and replaces the derived files."""
    files = export_files(layout, state, board, dashboard=dashboard)
    for name, content in files.items():
        replace_file(layout.root / name, content, durable=durable)
    for stale in layout.dashboard.glob("*.json"):
        # Those of an earlier generation would tell an old state for ever.
        if f"team_dashboard/{stale.name}" not in files:
            stale.unlink()
