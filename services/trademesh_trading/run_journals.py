"""Journals of runs that have ended: a few open files, and the feed of each. Whether a run has ended is not known here (`run_feeds.py`).

An open file belongs to one thread at a time and waits in a short list in between, so that it is never closed under a reader, and a
long fold holds up nobody else who reads the same run.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError

from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_kernel.errors import DependencyUnavailable, JournalUnreadable, NotFound
from trademesh_kernel.logs import get_logger
from trademesh_runs.feed_batch import Batch, read_batches
from trademesh_runs.feed_filter import FeedFilter
from trademesh_runs.fold import LedgerMismatchError, fold_journal, replay_journal
from trademesh_runs.journal import Head, JournalDamagedError, JournalReader, NewerJournalError, StoredEvent
from trademesh_runs.journal_sqlite import SqliteStore
from trademesh_runs.layout import RunLayout
from trademesh_runs.wake import Wake

KEPT_JOURNALS = 16
READING_THREADS = 4

Answer = TypeVar("Answer")
Work = Callable[[JournalReader], Answer]


@dataclass(frozen=True)
class FileMark:
    """What tells a journal file from the same one after somebody wrote to it."""

    inode: int
    size_bytes: int
    changed_ns: int
    log_bytes: int | None
    """Of the write-ahead log; None if there is none, and the file alone is the whole journal."""


def mark_of(path: Path) -> FileMark:
    """The mark of a file as it is; raises FileNotFoundError."""
    found = path.stat()
    try:
        log_bytes = path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        log_bytes = None
    return FileMark(found.st_ino, found.st_size, found.st_mtime_ns, log_bytes)


def _is(path: Path, mark: FileMark) -> bool:
    try:
        return mark_of(path) == mark
    except FileNotFoundError:
        return False


def _moved(run_id: str) -> DependencyUnavailable:
    what = f"run {run_id} was restarted: ask GetRun where its feed is"
    return DependencyUnavailable("trading_service", what, retry_after_s=0.5, moved=True)


@dataclass
class _OpenJournal:
    path: Path
    mark: FileMark
    reader: JournalReader


class FinishedJournals:
    """Reads journals that nobody writes any more. End with `close`."""

    def __init__(self, runs_dir: Path, *, kept: int = KEPT_JOURNALS) -> None:
        """`kept` files stay open between reads, those that were read last."""
        self._runs_dir = runs_dir
        self._kept = kept
        self._threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="finished journals")
        self._idle: list[_OpenJournal] = []
        self._lock = threading.Lock()
        self._closed = False

    async def feed(self, run_id: str) -> FinishedFeed:
        """The feed of a run's journal as it is now.

        Raises:
            NotFound: the run has none: it ended before its gateway began one.
            JournalUnreadable: it is damaged, or from a later version.
        """
        path = RunLayout(self._runs_dir, run_id).journal

        def look() -> tuple[FileMark, Head]:
            try:
                mark = mark_of(path)
            except FileNotFoundError:
                raise NotFound("journal of run", run_id) from None
            return mark, self._use(run_id, path, mark, lambda reader: reader.head())

        mark, head = await self._in_thread(look)
        return FinishedFeed(self, run_id, path, mark, head)

    async def read(self, run_id: str, path: Path, mark: FileMark, work: Work[Answer]) -> Answer:
        """What some work finds in a journal, in a thread.

        Raises:
            DependencyUnavailable: somebody has written to the file since it was marked: the run was restarted.
            JournalUnreadable: it is damaged.
        """
        return await self._in_thread(lambda: self._use(run_id, path, mark, work))

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _use(self, run_id: str, path: Path, mark: FileMark, work: Work[Answer]) -> Answer:
        try:
            opened = self._take(run_id, path, mark)
            try:
                found = work(opened.reader)
            finally:
                self._give_back(opened)
            if not _is(path, mark):
                # What was read while somebody began to write may be of two moments.
                raise _moved(run_id)
            return found
        except LedgerMismatchError as error:
            if not _is(path, mark):
                raise _moved(run_id) from None
            # Not the error's own text: it tells two whole accounts, which is more than a status may carry.
            text = f"the journal of run {run_id} contradicts the ledger at event {error.sequence}"
            raise JournalUnreadable(text, run_id=run_id, sequence=error.sequence) from error
        except (sqlite3.Error, NewerJournalError, JournalDamagedError, DecodeError) as error:
            if not _is(path, mark):
                raise _moved(run_id) from None
            # The error's own text is for our log: it may tell paths of this machine.
            get_logger("journals").error("a journal cannot be read", run_id=run_id, reason=str(error))
            what = "is of a later version of trademesh" if isinstance(error, NewerJournalError) else "is damaged"
            raise JournalUnreadable(
                f"the journal of run {run_id} {what}: `trademesh run verify {run_id}` tells more", run_id=run_id
            ) from None

    def _take(self, run_id: str, path: Path, mark: FileMark) -> _OpenJournal:
        unchanged = _is(path, mark)
        with self._lock:
            same = [opened for opened in self._idle if opened.path == path]
            found = next((opened for opened in same if unchanged and opened.mark == mark), None)
            stale = [opened for opened in same if opened.mark != mark] if unchanged else same
            self._idle = [opened for opened in self._idle if opened is not found and opened not in stale]
        for opened in stale:
            opened.reader.close()
        if not unchanged:
            # An immutable file is read without locks: who reads on while it is written reads nonsense.
            raise _moved(run_id)
        return found or _OpenJournal(path, mark, SqliteStore(path, immutable=mark.log_bytes is None).reader())

    def _give_back(self, opened: _OpenJournal) -> None:
        with self._lock:
            self._idle.append(opened)
            keep = 0 if self._closed else self._kept
            cut = max(0, len(self._idle) - keep)
            evicted, self._idle = self._idle[:cut], self._idle[cut:]
        for old in evicted:
            old.reader.close()

    async def close(self) -> None:
        """Closes every file, after the reads in hand."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for opened in idle:
            opened.reader.close()
        await asyncio.to_thread(self._threads.shutdown)


class FinishedFeed:
    """The feed of a journal that nobody writes any more (a FeedSource); its last state is folded once."""

    finished = True
    fenced = False
    quotes = None

    def __init__(self, journals: FinishedJournals, run_id: str, path: Path, mark: FileMark, head: Head) -> None:
        self._journals = journals
        self._run_id = run_id
        self._path = path
        self._mark = mark
        self.head = head
        self.draining = False
        """True once trading_service drains: streams end with their cursor."""
        self.changed = Wake()
        self._last_state: asyncio.Task[ServerState] | None = None

    async def work(self, work: Work[Answer]) -> Answer:
        """What some work finds in the journal; raises as `FinishedJournals.read`."""
        return await self._journals.read(self._run_id, self._path, self._mark, work)

    async def batches(self, after: int, wanted: FeedFilter | None) -> list[Batch]:
        """What is to be sent next to a reader that is at a sequence."""
        return await self.work(lambda reader: read_batches(reader, after, self.head.sequence, wanted))

    async def read(self, after: int, limit: int, through: int | None = None) -> Sequence[StoredEvent]:
        """Events after a sequence, oldest first."""
        return await self.work(lambda reader: reader.read(after, limit, through))

    async def read_before(self, before: int, limit: int) -> Sequence[StoredEvent]:
        """Events before a sequence, newest first."""
        # SQLite's integers are signed; no journal has a sequence beyond its head.
        return await self.work(lambda reader: reader.read_before(min(before, self.head.sequence + 1), limit))

    async def snapshot(self, at: int | None) -> ServerState:
        """The state at a sequence, or the last."""
        if at is not None and at != self.head.sequence:
            return await self._fold(at)
        if self._last_state is None or (self._last_state.done() and (self._last_state.cancelled() or self._last_state.exception())):
            self._last_state = asyncio.create_task(self._fold(self.head.sequence))
        # Whoever asks first may leave; the others still want the answer.
        return await asyncio.shield(self._last_state)

    async def _fold(self, through: int) -> ServerState:
        # The last state is asked for most and kept: it is worth its proof.
        fold = replay_journal if through == self.head.sequence else fold_journal
        return await self.work(lambda reader: fold(self._run_id, reader, through).state())

    async def unchanged(self) -> bool:
        """False if somebody has written to the file since: the run was restarted."""

        def look() -> bool:
            try:
                return mark_of(self._path) == self._mark
            except FileNotFoundError:
                return False

        return await asyncio.to_thread(look)
