"""Writes the derived files of a live run: at most once a second, and at the end. What is in them is `trademesh_runs.exports`'."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.atomic_files import replace_file
from trademesh_runs.exports import export_files
from trademesh_runs.fold import Fold
from trademesh_runs.layout import RunLayout

INTERVAL_S = 1.0


class Exporter:
    """The derived files of one run."""

    def __init__(self, layout: RunLayout, fold: Fold, flush: Callable[[], Awaitable[None]], *, dashboard: bool) -> None:
        self._layout = layout
        self._fold = fold
        self._flush = flush
        self._dashboard = dashboard
        self._exported_at = 0.0

    async def export(self, *, force: bool = False) -> None:
        """Writes them, if it is time or must be. A gateway that another has replaced finds that out here and leaves the other's alone.

        Raises:
            FencedError, sqlite3.Error: the journal cannot be written any more.
        """
        if force or time.monotonic() - self._exported_at >= INTERVAL_S:
            await self._flush()
            state = self._fold.state()
            await asyncio.to_thread(write_exports, self._layout, state, dashboard=self._dashboard, durable=force)
            self._exported_at = time.monotonic()


def write_exports(layout: RunLayout, state: ServerState, *, dashboard: bool, durable: bool) -> None:
    """Makes and replaces the derived files. It takes a tenth of a second for a run of decades, and is called in a thread."""
    for name, content in export_files(layout, state, dashboard=dashboard).items():
        replace_file(layout.root / name, content, durable=durable)
    if not dashboard:
        # Those of an earlier generation would tell an old state for ever.
        for stale in layout.dashboard.glob("*.json"):
            stale.unlink()
