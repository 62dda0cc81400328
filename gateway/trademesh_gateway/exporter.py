"""Writes the derived files of a live run: at most once a second, and at the end. What is in them is `trademesh_runs.exports`'.

They hold the curve of the whole run. Its text is kept, as the run's books are (`trademesh_runs.books`): an export makes what is new, and writes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.books import Books
from trademesh_runs.curve_texts import CurveTexts
from trademesh_runs.exports import export_files
from trademesh_runs.journal import JournalReader
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import Scoreboard

INTERVAL_S = 1.0
SHARE = 0.02
"""No more of the time than that goes into exports."""
AT_ONCE_EVENTS = 1024
"""So many are read on the event loop: a group that was published meanwhile."""


class Exporter:
    """The derived files of one run."""

    def __init__(
        self,
        layout: RunLayout,
        books: Books,
        flush: Callable[[], Awaitable[None]],
        reader: Callable[[], JournalReader],
        *,
        dashboard: bool,
    ) -> None:
        """`books` have no scores yet; for a dashboard they get them here. `reader` opens the journal, from which those of a run that goes on
        are counted."""
        self._layout = layout
        self._books = books
        self._flush = flush
        self._reader = reader
        self._counting = Scoreboard()
        """The scores until the books have them."""
        self._reading = threading.Lock()
        self._curve = CurveTexts()
        self._written = -1
        """The state that is written."""
        self._writing = threading.Lock()
        self._dashboard = dashboard
        self._due_at = 0.0
        if dashboard and books.fold.sequence == 0:
            books.board = self._counting

    async def export(self, *, force: bool = False) -> None:
        """Writes them, if it is time or must be. A gateway that another has replaced finds that out here and leaves the other's alone.

        Raises:
            FencedError, sqlite3.Error: the journal cannot be written any more.
        """
        if force or time.monotonic() >= self._due_at:
            await self._flush()
            if self._dashboard and self._books.board is None:
                await self._catch_up()
            began = time.monotonic()
            fold, board = self._books.fold, self._books.board
            # The thread has scores of its own: events that are published meanwhile are counted here.
            scores = Scoreboard() if board is None else board.copy()
            await asyncio.to_thread(self._write, fold.state(curve=False), len(fold.equity), scores, force)
            ended = time.monotonic()
            self._due_at = ended + max(INTERVAL_S, (ended - began) / SHARE)

    async def _catch_up(self) -> None:
        """Counts what was published before there was anyone to count. From then on the books do: they are given the scores at the moment at
        which nothing is missing, so no event is lost in between and none is counted twice."""
        fold, scores = self._books.fold, self._counting
        while scores.whole and fold.sequence - scores.sequence > AT_ONCE_EVENTS:
            await asyncio.to_thread(self._read_on, fold.sequence)
        self._read_on(fold.sequence)
        self._books.board = scores

    def _read_on(self, through: int) -> None:
        """Counts from the journal, up to a sequence."""
        # A thread goes on when its caller is cancelled: the last export of a gateway may find it still counting.
        with self._reading:
            if self._counting.sequence < through:
                reader = self._reader()
                try:
                    self._counting.catch_up(reader, through)
                finally:
                    reader.close()

    def _write(self, state: ServerState, points: int, scores: Scoreboard, durable: bool) -> None:
        """Takes in the newest points, and writes; in a thread. `points` are in the state's curve, which grows meanwhile."""
        # It may be the thread of an export that was cancelled, which the last one of a gateway meets.
        with self._writing:
            if state.as_of_sequence < self._written:
                return
            self._written = state.as_of_sequence
            self._curve.follow(self._books.fold.equity, points)
            files = export_files(self._layout, state, scores, dashboard=self._dashboard, curve=self._curve)
            write_exports(self._layout, files, durable=durable)


def write_exports(layout: RunLayout, files: Mapping[str, bytes], *, durable: bool) -> None:
    """Replaces the derived files."""
    for name, content in files.items():
        replace_file(layout.root / name, content, durable=durable)
    for stale in layout.dashboard.glob("*.json"):
        # Those of an earlier generation would tell an old state for ever.
        if f"team_dashboard/{stale.name}" not in files:
            stale.unlink()
