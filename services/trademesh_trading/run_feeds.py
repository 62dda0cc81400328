"""Where the events of a run are read: from its gateway by RPC while it lives, from its finished journal afterwards.

trading_service never opens the journal of a live run. Whether a run lives is runtime_service's to say; if that does not answer, a run
whose own files say that it has ended may still be read.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from pathlib import Path

from google.protobuf import json_format

from trademesh.runtime.v1 import runtime_pb2, runtime_service_pb2, runtime_service_pb2_grpc
from trademesh_kernel.client import ServiceClient
from trademesh_kernel.errors import DeadlinePassed, DependencyUnavailable, NotFound
from trademesh_runs.layout import RUN_ID, RunLayout
from trademesh_trading.run_journals import KEPT_JOURNALS, FinishedFeed, FinishedJournals

BELIEVED_S = 1.0
MOST_KNOWN_RUNS = 1_000
ENDED = (runtime_pb2.RUN_STATE_STOPPED, runtime_pb2.RUN_STATE_SUCCEEDED, runtime_pb2.RUN_STATE_FAILED)


class RunFeeds:
    """Finds runs. Create it inside the running loop; end with `close`."""

    def __init__(self, runs_dir: Path, runtime_target: str) -> None:
        self._runs_dir = runs_dir
        self._runtime = ServiceClient(runtime_target, "runtime_service", default_timeout_s=5.0)
        self._stub = self._runtime.stub(runtime_service_pb2_grpc.RuntimeServiceStub)
        self._journals = FinishedJournals(runs_dir)
        self._known: dict[str, tuple[float, runtime_pb2.Run]] = {}
        self._feeds: OrderedDict[str, FinishedFeed] = OrderedDict()
        self._opening: dict[str, asyncio.Task[FinishedFeed]] = {}
        self._followed = weakref.WeakSet[FinishedFeed]()
        """All feeds that somebody may still read, those too that were evicted meanwhile."""
        self._draining = False

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
        if len(self._known) >= MOST_KNOWN_RUNS:
            self._known.clear()
        self._known[run_id] = (asyncio.get_running_loop().time() + BELIEVED_S, run)
        return run

    def forget(self, run_id: str) -> None:
        """Asks runtime_service anew next time: what is believed of the run turned out to be over."""
        self._known.pop(run_id, None)

    def _run_from_files(self, run_id: str) -> runtime_pb2.Run:
        if not RUN_ID.match(run_id):
            raise NotFound("run", run_id)
        try:
            text = RunLayout(self._runs_dir, run_id).runtime_state.read_text(encoding="utf-8")
            run = json_format.Parse(text, runtime_pb2.Run(), ignore_unknown_fields=True)
        except (OSError, UnicodeDecodeError, json_format.ParseError):
            raise DependencyUnavailable("runtime_service") from None
        if run.state not in ENDED:
            raise DependencyUnavailable("runtime_service")
        return run

    async def finished(self, run_id: str) -> FinishedFeed:
        """The feed of a run that has ended.

        Raises:
            NotFound: there is no such run, or it ended before it had a journal.
            DependencyUnavailable: it lives: its gateway serves the feed, or soon will again. Clients may repeat the call: one that asked
                GetRun a moment too early is told this, and is right the next time.
            JournalUnreadable: the file is damaged, or from a later version.
        """
        run = await self.run(run_id)
        if run.state not in ENDED:
            where = f"at {run.target}" if run.target else "soon again"
            text = f"run {run_id} is live: its gateway serves its feed, {where} (GetRun tells)"
            raise DependencyUnavailable(f"gateway of {run_id}", text, retry_after_s=0.5, moved=True)
        feed = self._feeds.get(run_id)
        if feed is None or not await feed.unchanged():
            feed = await self._open_once(run_id)
        feed.draining = self._draining
        self._followed.add(feed)
        self._feeds[run_id] = feed
        self._feeds.move_to_end(run_id)
        while len(self._feeds) > KEPT_JOURNALS:
            # Whoever still reads an old feed goes on: files are opened again as they are needed.
            self._feeds.popitem(last=False)
        return feed

    async def _open_once(self, run_id: str) -> FinishedFeed:
        """Opens a feed; who asks for the same one meanwhile gets the same."""
        opening = self._opening.get(run_id)
        if opening is None:
            opening = asyncio.create_task(self._journals.feed(run_id))
            self._opening[run_id] = opening
            opening.add_done_callback(lambda _done: self._opening.pop(run_id, None))
        return await asyncio.shield(opening)

    def drain(self) -> None:
        """Ends every stream with its cursor."""
        self._draining = True
        for feed in self._followed:
            feed.draining = True
            feed.changed.wake()

    async def close(self) -> None:
        """Closes every journal and the channel."""
        self._feeds.clear()
        await self._journals.close()
        await self._runtime.close()
