"""Writes the derived files of a live run: at most once a second, and at the end. What is in them is `trademesh_runs.exports`'.

They hold the curve of the whole run. What is made of it, and what is counted from events, is kept: an export makes what is new, and writes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.curve_texts import CurveTexts
from trademesh_runs.exports import export_files
from trademesh_runs.fold import Fold
from trademesh_runs.journal import JournalReader, StoredEvent
from trademesh_runs.layout import RunLayout
from trademesh_runs.scoreboard import KINDS, Scoreboard

INTERVAL_S = 1.0
SHARE = 0.02
"""No more of the time than that goes into exports."""
MOST_FRESH_BYTES = 8 * 1024 * 1024


class _Fresh:
    """Events that were published since the last export and that scores are counted from. To read them from the journal would have the thread
    that exports and the event loop wait for each other at every row, and cost more than all else in an export."""

    def __init__(self, after: int) -> None:
        self.after = after
        """No event that counts is missing after this sequence."""
        self.events: list[StoredEvent] = []
        self._size_bytes = 0

    def add(self, group: Sequence[StoredEvent]) -> None:
        """Takes in what was published. Too much is let go of: the journal has it."""
        counting = [event for event in group if event.kind in KINDS]
        self.events += counting
        self._size_bytes += sum([len(event.data) for event in counting])
        if self._size_bytes > MOST_FRESH_BYTES:
            self.after, self.events, self._size_bytes = group[-1].sequence, [], 0


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
        self._fresh = _Fresh(fold.sequence)
        self._curve = CurveTexts()
        self._written = -1
        """The state that is written."""
        self._writing = threading.Lock()
        self._dashboard = dashboard
        self._due_at = 0.0

    def published(self, group: Sequence[StoredEvent]) -> None:
        """Hears of events when the fold has taken them in."""
        if self._dashboard:
            self._fresh.add(group)

    async def export(self, *, force: bool = False) -> None:
        """Writes them, if it is time or must be. A gateway that another has replaced finds that out here and leaves the other's alone.

        Raises:
            FencedError, sqlite3.Error: the journal cannot be written any more.
        """
        if force or time.monotonic() >= self._due_at:
            await self._flush()
            began = time.monotonic()
            state, fresh = self._fold.state(curve=False), self._fresh
            self._fresh = _Fresh(state.as_of_sequence)
            await asyncio.to_thread(self._write, state, len(self._fold.equity), fresh, force)
            ended = time.monotonic()
            self._due_at = ended + max(INTERVAL_S, (ended - began) / SHARE)

    def _write(self, state: ServerState, points: int, fresh: _Fresh, durable: bool) -> None:
        """Takes in the newest scores and points, and writes; in a thread. `points` are in the state's curve, which grows meanwhile."""
        # A thread goes on when its caller is cancelled: the last export of a gateway may meet the one before.
        with self._writing:
            if state.as_of_sequence < self._written:
                return
            self._written = state.as_of_sequence
            if self._dashboard:
                self._score(fresh, state.as_of_sequence)
            self._curve.follow(self._fold.equity, points)
            files = export_files(self._layout, state, self._board, dashboard=self._dashboard, curve=self._curve)
            write_exports(self._layout, files, durable=durable)

    def _score(self, fresh: _Fresh, through: int) -> None:
        """Brings the scores up to a sequence."""
        if self._board.sequence >= fresh.after:
            self._board.add_all(fresh.events, through)
            return
        reader = self._reader()
        try:
            self._board.catch_up(reader, through)
        finally:
            reader.close()


def write_exports(layout: RunLayout, files: Mapping[str, bytes], *, durable: bool) -> None:
    """Replaces the derived files."""
    for name, content in files.items():
        replace_file(layout.root / name, content, durable=durable)
    for stale in layout.dashboard.glob("*.json"):
        # Those of an earlier generation would tell an old state for ever.
        if f"team_dashboard/{stale.name}" not in files:
            stale.unlink()
