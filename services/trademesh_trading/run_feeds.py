"""Where the events of a run are read: from its gateway by RPC while it lives, from its finished journal afterwards.

trading_service never opens the journal of a live run. Whether a run lives is runtime_service's to say; if that does not answer, a run
whose own files say that it has ended may still be read.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, JournalUnreadable, NotFound
from trademesh_runs.feed_service import Answer, JournalFeed
from trademesh_runs.journal_sqlite import NewerJournalError, SqliteReader
from trademesh_runs.layout import RUN_ID, RunLayout

KEPT_JOURNALS = 16
BELIEVED_S = 1.0
ENDED = (runtime_pb2.RUN_STATE_STOPPED, runtime_pb2.RUN_STATE_SUCCEEDED, runtime_pb2.RUN_STATE_FAILED)


class FinishedFeed(JournalFeed):
    """The feed of a journal that nobody writes any more; its last state is folded once."""

    def __init__(self, run_id: str, reader: SqliteReader) -> None:
        super().__init__(run_id, reader, finished=True)
        self._last_state: asyncio.Task[ServerState] | None = None
        self._closed = False

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence, or the last."""
        if at is not None and at != self.head.sequence:
            return await super().snapshot(at)
        if self._last_state is None or (self._last_state.done() and self._last_state.exception() is not None):
            self._last_state = asyncio.create_task(super().snapshot(None))
        # Whoever asks first may leave; the others still want the answer.
        return await asyncio.shield(self._last_state)

    async def _in_thread(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        if self._closed:
            raise DependencyUnavailable("trading_service", "the journal was put away: ask again", retry_after_s=0.1)
        return await super()._in_thread(work, *arguments)

    def close(self) -> None:
        """Closes the journal; who still reads it is told to ask again."""
        self._closed = True
        super().close()


@dataclass
class _Open:
    feed: FinishedFeed
    generation: int


class RunFeeds:
    """Finds runs. Create it inside the running loop; end with `close`."""

    def __init__(self, runs_dir: Path, runtime_target: str) -> None:
        self._runs_dir = runs_dir
        self._runtime = ServiceClient(runtime_target, "runtime_service", default_timeout_s=5.0)
        self._stub = self._runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
        self._known: dict[str, tuple[float, runtime_pb2.Run]] = {}
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._opening = asyncio.Lock()

    async def run(self, run_id: str) -> runtime_pb2.Run:
        """A run, as it was at most a moment ago.

        Raises:
            NotFound: there is none of that name.
            DependencyUnavailable: runtime_service does not answer, and the run's files do not say that it has ended.
        """
        now = asyncio.get_running_loop().time()
        known = self._known.get(run_id)
        if known is not None and known[0] > now:
            return known[1]
        try:
            answer = await self._runtime.call(self._stub.GetRun, runtime_service_pb2.GetRunRequest(run_id=run_id))
        except (DependencyUnavailable, DeadlinePassed):
            return await asyncio.to_thread(self._run_from_files, run_id)
        run: runtime_pb2.Run = answer.run
        if len(self._known) > 1_000:
            self._known.clear()
        self._known[run_id] = (now + BELIEVED_S, run)
        return run

    def _run_from_files(self, run_id: str) -> runtime_pb2.Run:
        if not RUN_ID.match(run_id):
            raise NotFound("run", run_id)
        try:
            text = RunLayout(self._runs_dir, run_id).runtime_state.read_text(encoding="utf-8")
            run = json_format.Parse(text, runtime_pb2.Run())
        except (OSError, json_format.ParseError):
            raise DependencyUnavailable("runtime_service") from None
        if run.state not in ENDED:
            raise DependencyUnavailable("runtime_service")
        return run

    async def finished(self, run_id: str) -> FinishedFeed:
        """The feed of a run that has ended.

        Raises:
            NotFound: there is no such run, or it ended before it had a journal.
            DependencyUnavailable: it lives: its gateway serves the feed, or soon will again.
            JournalUnreadable: the file is damaged, or from a later version.
        """
        run = await self.run(run_id)
        if run.state not in ENDED:
            where = f"at {run.target}" if run.target else "soon again"
            text = f"run {run_id} is live: its gateway serves its feed, {where} (GetRun tells)"
            raise DependencyUnavailable(f"gateway of {run_id}", text, retry_after_s=0.5)
        async with self._opening:
            known = self._open.pop(run_id, None)
            if known is not None and known.generation != run.generation:
                # It was restarted and has ended again since.
                known.feed.close()
                known = None
            if known is None:
                known = _Open(await asyncio.to_thread(self._open_journal, run_id), run.generation)
            self._open[run_id] = known
            while len(self._open) > KEPT_JOURNALS:
                self._open.popitem(last=False)[1].feed.close()
        return known.feed

    def _open_journal(self, run_id: str) -> FinishedFeed:
        path = RunLayout(self._runs_dir, run_id).journal
        if not path.is_file():
            raise NotFound("journal of run", run_id)
        # A gateway that was killed leaves its write-ahead log: then the file alone is not the whole journal.
        whole = not path.with_name(path.name + "-wal").exists()
        try:
            return FinishedFeed(run_id, SqliteReader(path, immutable=whole))
        except (sqlite3.Error, NewerJournalError) as error:
            raise JournalUnreadable(f"the journal of run {run_id} cannot be read: {error}", run_id=run_id) from None

    async def close(self) -> None:
        """Closes every journal and the channel."""
        for known in self._open.values():
            known.feed.close()
        self._open.clear()
        await self._runtime.close()
