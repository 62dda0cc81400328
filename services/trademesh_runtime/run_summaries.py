"""What finished runs amount to, read from their journals once. When a run is finished is `supervisor.py`'s to say."""

from __future__ import annotations

import asyncio
import sqlite3

from google.protobuf.message import DecodeError

from trademesh.runtime.v1.runtime_pb2 import Run, RunSummary
from trademesh_kernel.logs import get_logger
from trademesh_runs.fold import LedgerMismatchError
from trademesh_runs.journal import JournalDamagedError, NewerJournalError
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.summary import summary_of

KEPT_SUMMARIES = 1_000


class Summaries:
    """The newest thousand."""

    def __init__(self) -> None:
        self._known = dict[tuple[str, int], RunSummary]()

    async def of(self, run: Run, layout: RunLayout) -> RunSummary | None:
        """The summary of a finished run; None if its journal cannot be read."""
        # Another run of the same name may have a journal of the same length.
        key = (f"{run.run_id} {run.created_at.ToNanoseconds()}", run.progress.head_sequence)
        if key not in self._known:
            summary = await asyncio.to_thread(read_summary, layout)
            if summary is None:
                return None
            self._known[key] = summary
            if len(self._known) > KEPT_SUMMARIES:
                del self._known[next(iter(self._known))]
        return self._known[key]


def read_summary(layout: RunLayout) -> RunSummary | None:
    """The summary of a finished run, from its journal; None if that is damaged: what the run's state says is still to be had."""
    try:
        reader = SqliteStore(layout.journal).reader()
        try:
            return summary_of(layout.run_id, reader)
        finally:
            reader.close()
    except (sqlite3.Error, JournalDamagedError, NewerJournalError, LedgerMismatchError, DecodeError) as error:
        get_logger("runs").error("a journal cannot be read", run_id=layout.run_id, reason=str(error))
        return None
