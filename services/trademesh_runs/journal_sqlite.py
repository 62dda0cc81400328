"""A journal in one SQLite file. One writer at a time, fenced by generation; any number of readers.

Events are taken in by a call that does not wait, written in groups by a thread, and published after their commit: 1,024 events,
256 KiB or 20 ms, whichever is first, with synchronous=FULL. A writer that a later generation has replaced is refused at its next commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

from trademesh_runs.journal import KIND_NUMBERS, Draft, Encoder, Head, JournalDamagedError, StoredEvent, all_events, chain

SCHEMA_VERSION = 1
BATCH_EVENTS = 1024
BATCH_BYTES = 256 * 1024
BATCH_DELAY_S = 0.02
MOST_PENDING_EVENTS = 8192
ENCODED_ROWS = 32
"""So many rows are fetched by one call, which for small rows is as much work as each of them."""

_SCHEMA = """
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY, kind INTEGER NOT NULL, agent_id TEXT NOT NULL, core_length INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX events_by_kind ON events (kind, sequence);
CREATE TABLE batches (last_sequence INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE meta (epoch INTEGER NOT NULL, generation INTEGER NOT NULL);
INSERT INTO meta VALUES (1, 0);
"""
_COLUMNS = "sequence, kind, agent_id, core_length, data"

Published = Callable[[Sequence[StoredEvent]], None]


class FencedError(Exception):
    """A later generation writes this journal."""


class NewerJournalError(Exception):
    """The journal was written by a later version of trademesh."""


def connect(path: Path, *, writable: bool, immutable: bool = False) -> sqlite3.Connection:
    """Opens a journal; raises NewerJournalError, and sqlite3.Error if it is not one."""
    mode = "rwc" if writable else "ro"
    uri = f"{path.absolute().as_uri()}?mode={mode}" + ("&immutable=1" if immutable else "")
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        connection.close()
        raise NewerJournalError(f"{path} has version {version}; this trademesh knows {SCHEMA_VERSION}: install a newer one")
    return connection


class SqliteReader:
    """Reads a journal file. Not for two threads at once."""

    def __init__(self, path: Path, *, immutable: bool = False) -> None:
        self._connection = connect(path, writable=False, immutable=immutable)

    def head(self) -> Head:
        """Where the journal ends now."""
        epoch = self._connection.execute("SELECT epoch FROM meta").fetchone()[0]
        return Head(epoch, self._connection.execute("SELECT coalesce(max(sequence), 0) FROM events").fetchone()[0])

    def read(self, after: int, limit: int, through: int | None = None) -> list[StoredEvent]:
        """Events after a sequence, oldest first."""
        last = 2**62 if through is None else through
        query = f"SELECT {_COLUMNS} FROM events WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
        return [StoredEvent(*row) for row in self._connection.execute(query, (after, last, limit))]

    def read_encoded(self, after: int, limit: int, most_bytes: int, through: int | None = None) -> list[tuple[int, bytes]]:
        """Sequences and encoded events after a sequence, oldest first. Ends soon after `most_bytes` are reached."""
        last = 2**62 if through is None else through
        query = "SELECT sequence, data FROM events WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
        found, size_bytes = list[tuple[int, bytes]](), 0
        with closing(self._connection.execute(query, (after, last, limit))) as rows:
            while size_bytes < most_bytes and (part := rows.fetchmany(ENCODED_ROWS)):
                found += part
                size_bytes += sum([len(data) for _, data in part])
        return found

    def read_before(self, before: int, limit: int) -> list[StoredEvent]:
        """Events before a sequence, newest first."""
        query = f"SELECT {_COLUMNS} FROM events WHERE sequence < ? ORDER BY sequence DESC LIMIT ?"
        return [StoredEvent(*row) for row in self._connection.execute(query, (before, limit))]

    def read_kind(self, kind: str, through: int | None = None, newest: int | None = None) -> list[StoredEvent]:
        """Events of one kind, oldest first; only so many of the newest if said."""
        last, limit = (2**62 if through is None else through), (-1 if newest is None else newest)
        query = f"SELECT {_COLUMNS} FROM events WHERE kind = ? AND sequence <= ? ORDER BY sequence DESC LIMIT ?"
        rows = self._connection.execute(query, (KIND_NUMBERS[kind], last, limit)).fetchall()
        return [StoredEvent(*row) for row in reversed(rows)]

    def check(self) -> Head:
        """Reads everything and proves it whole: gapless from 1, and every byte covered by the chain.

        Raises:
            JournalDamagedError: it is not.
        """
        try:
            return self._check()
        except (struct.error, TypeError, AttributeError, ValueError) as error:
            raise JournalDamagedError(f"a row of the journal is not of its kind: {error}", 0) from error

    def _check(self) -> Head:
        expected, previous = 1, b""
        batch = list[StoredEvent]()
        batches = dict(self._connection.execute("SELECT last_sequence, hash FROM batches"))
        for event in all_events(self):
            if event.sequence != expected:
                raise JournalDamagedError(f"event {expected} is missing", expected)
            expected += 1
            batch.append(event)
            recorded = batches.pop(event.sequence, None)
            if recorded is not None:
                previous = chain(previous, batch)
                if previous != recorded:
                    raise JournalDamagedError(f"events {batch[0].sequence} to {event.sequence} are not what was written", batch[0].sequence)
                batch.clear()
        if batch or batches:
            raise JournalDamagedError(f"the journal breaks off after event {expected - 1}", expected)
        return self.head()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """While this lasts the journal is read as it was when it began, whatever its writer adds."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


class SqliteWriter:
    """Writes a journal from one event loop."""

    def __init__(self, path: Path, run_id: str, generation: int, published: Published) -> None:
        """Takes the journal over for a generation.

        Raises:
            FencedError: a later generation has it.
        """
        self._connection = connect(path, writable=True)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        if self._connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        taken = self._connection.execute("UPDATE meta SET generation = ? WHERE generation < ?", (generation, generation))
        if taken.rowcount == 0:
            self._connection.close()
            raise FencedError(f"generation {generation} is not newer than the one that has {path}")
        self._generation = generation
        self._encoder = Encoder(run_id, generation)
        self._published = published
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._pending = list[StoredEvent]()
        self._pending_bytes = 0
        self._wake = asyncio.Event()
        self._committed = asyncio.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        head: int = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM events").fetchone()[0]
        self.assigned = self.committed = head
        row = self._connection.execute("SELECT hash FROM batches ORDER BY last_sequence DESC LIMIT 1").fetchone()
        self._hash: bytes = row[0] if row else b""
        self._known = {event.parse().event_id for event in self._open_session_events()}
        self._task = asyncio.create_task(self._write_groups(), name="journal writer")

    def _open_session_events(self) -> list[StoredEvent]:
        """Events after the last settlement: those that may be done again."""
        settled = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM events WHERE kind = ?", (KIND_NUMBERS["settled"],))
        query = f"SELECT {_COLUMNS} FROM events WHERE sequence > ?"
        return [StoredEvent(*row) for row in self._connection.execute(query, (settled.fetchone()[0],))]

    def append(self, draft: Draft) -> bool:
        """Takes an event in; False if the journal has it already. Does not wait: see `room` and `flush`.

        Raises:
            FencedError, sqlite3.Error: an earlier group could not be written.
        """
        if self._failure is not None:
            raise self._failure
        event_id = self._encoder.event_id(draft)
        if self._known and event_id in self._known:
            return False
        event = self._encoder.encode(draft, self.assigned + 1, event_id)
        self.assigned += 1
        self._pending.append(event)
        self._pending_bytes += len(event.data)
        if len(self._pending) == 1 or len(self._pending) >= BATCH_EVENTS or self._pending_bytes >= BATCH_BYTES:
            self._wake.set()
        return True

    async def room(self) -> None:
        """Waits while too much is pending: the back pressure of the disk on the pipeline."""
        async with self._committed:
            await self._committed.wait_for(lambda: self._failure is not None or self.assigned - self.committed < MOST_PENDING_EVENTS)
        if self._failure is not None:
            raise self._failure

    async def flush(self) -> None:
        """Waits until everything taken in so far is on disk and published."""
        goal = self.assigned
        async with self._committed:
            await self._committed.wait_for(lambda: self._failure is not None or self.committed >= goal)
        if self._failure is not None:
            raise self._failure

    async def broken(self) -> None:
        """Waits until a group cannot be written, and raises why; returns when the journal is closed."""
        async with self._committed:
            await self._committed.wait_for(lambda: self._failure is not None or self._task.done())
        if self._failure is not None:
            raise self._failure

    async def _write_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._closing and len(self._pending) < BATCH_EVENTS and self._pending_bytes < BATCH_BYTES:
                # The first event of a group waits for others; a full group or the end wakes us at once.
                try:
                    async with asyncio.timeout(BATCH_DELAY_S):
                        await self._wake.wait()
                    self._wake.clear()
                except TimeoutError:
                    pass
            group, self._pending, self._pending_bytes = self._pending, [], 0
            if group:
                try:
                    self._hash = await loop.run_in_executor(self._thread, self._commit, group)
                    self._published(group)
                except BaseException as error:
                    await self._fail(error)
                    return
                async with self._committed:
                    self.committed = group[-1].sequence
                    self._committed.notify_all()
            if self._closing and not self._pending:
                return

    async def _fail(self, error: BaseException) -> None:
        self._failure = error
        async with self._committed:
            self._committed.notify_all()

    def _commit(self, group: Sequence[StoredEvent]) -> bytes:
        """One transaction; returns the new end of the chain."""
        after = chain(self._hash, group)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if self._connection.execute("SELECT generation FROM meta").fetchone()[0] != self._generation:
                raise FencedError(f"generation {self._generation} has been replaced")
            rows = [(event.sequence, event.kind, event.agent_id, event.core_length, event.data) for event in group]
            self._connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
            self._connection.execute("INSERT INTO batches VALUES (?, ?)", (group[-1].sequence, after))
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some faults of the disk.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return after

    async def close(self) -> None:
        """Writes what is pending and leaves WAL mode, so that the finished file can be opened as immutable."""
        self._closing = True
        self._wake.set()
        await self._task
        self._thread.shutdown()
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error:
            # A reader still has the file open, or the disk is full: the WAL stays, and readers go on to need it.
            pass
        finally:
            self._connection.close()
