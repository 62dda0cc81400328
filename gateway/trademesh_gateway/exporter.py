"""Writes the derived files of a live run: at most once a second, and at the end. What is in them is `trademesh_runs.exports`'.

They hold the curve of the whole run. What is made of it, and what is counted from events, is kept: an export makes what is new, and writes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.curve_texts import CurveTexts
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
        self._curve = CurveTexts()
        self._written = -1
        """The state that is written."""
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
            state = self._fold.state(curve=False)
            await asyncio.to_thread(self._write, state, len(self._fold.equity), force)
            ended = time.monotonic()
            self._due_at = ended + max(INTERVAL_S, (ended - began) / SHARE)

    def _write(self, state: ServerState, points: int, durable: bool) -> None:
        """Takes in the newest scores and points, and writes; in a thread. `points` are in the state's curve, which grows meanwhile."""
        # A thread goes on when its caller is cancelled: the last export of a gateway may meet the one before.
        with self._writing:
            if state.as_of_sequence < self._written:
                return
            self._written = state.as_of_sequence
            if self._dashboard:
                reader = self._reader()
                try:
                    self._board.catch_up(reader, state.as_of_sequence)
                finally:
                    reader.close()
            self._curve.follow(self._fold.equity, points)
            files = export_files(self._layout, state, self._board, dashboard=self._dashboard, curve=self._curve)
            write_exports(self._layout, files, durable=durable)


def write_exports(layout: RunLayout, files: Mapping[str, bytes], *, durable: bool) -> None:
    """Replaces the derived files."""
    for name, content in files.items():
        replace_file(layout.root / name, content, durable=durable)
    for stale in layout.dashboard.glob("*.json"):
        # Those of an earlier generation would tell an old state for ever.
        if f"team_dashboard/{stale.name}" not in files:
            stale.unlink()
