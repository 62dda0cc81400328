"""A journal in one SQLite file. One writer at a time, fenced by generation; any number of readers. Reading and compaction are here, and
where a writer's groups go; their order is `journal_writer.py`'s.

synchronous=FULL: what was committed survives power loss. Exactly one connection writes, and it alone makes checkpoints.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

from trademesh_runs.chain import check_chain, seal
from trademesh_runs.journal import (
    KIND_NUMBERS,
    SETTLED,
    FencedError,
    Head,
    JournalDamagedError,
    Link,
    NewerJournalError,
    Published,
    Snapshot,
    Stalled,
    StoredEvent,
)
from trademesh_runs.journal_opening import SCHEMA_VERSION, SQLITE_VERSION, connect, head_of, links_of, snapshot_of, upgrade
from trademesh_runs.journal_writer import GroupWriter, NoRoomError

__all__ = [
    "BALLAST_BYTES",
    "SCHEMA_VERSION",
    "SQLITE_VERSION",
    "FencedError",
    "NewerJournalError",
    "SqliteFile",
    "SqliteReader",
    "SqliteStore",
    "SqliteWriter",
]

BALLAST_BYTES = 1024 * 1024
ENCODED_ROWS = 32
"""So many rows are fetched by one call, which for small rows is as much work as each of them."""

_COLUMNS = "sequence, kind, agent_id, core_length, data"
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
_PAGE_BYTES = 8192
_LOG_BYTES = 4 * 1024 * 1024
_LARGEST = 2**62
_MOST_ROWS = 1024


def _with_room_for(rows: int) -> int:
    """Rows of a statement for so many: of few sizes, since to prepare a statement takes longer than to run it."""
    step = 1 << max(0, rows.bit_length() - 3)
    return -(-rows // step) * step


@lru_cache(64)
def _insertion(rows: int) -> str:
    """Inserts so many rows less those that are NULL, or none if a later generation has the journal."""
    values = ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    chosen = "column1 IS NOT NULL AND (SELECT generation FROM meta) = ?"
    return f"INSERT INTO events ({_COLUMNS}, hash) SELECT * FROM (VALUES {values}) WHERE {chosen}"


class SqliteReader:
    """Reads a journal file (a JournalReader). Not for two threads at once."""

    def __init__(self, path: Path, *, immutable: bool = False) -> None:
        self._connection = connect(path, writable=False, immutable=immutable)

    def head(self) -> Head:
        """Where the journal ends now."""
        return head_of(self._connection)

    def read(self, after: int, limit: int, through: int | None = None, kinds: Collection[int] | None = None) -> list[StoredEvent]:
        """Events after a sequence, oldest first, of some kinds if said."""
        last = _LARGEST if through is None else through
        # The plus keeps SQLite from the index of kinds: events are wanted in their order.
        chosen = "" if kinds is None else f"AND +kind IN ({', '.join(str(int(kind)) for kind in kinds)})"
        query = f"SELECT {_COLUMNS} FROM events WHERE sequence > ? AND sequence <= ? {chosen} ORDER BY sequence LIMIT ?"
        return [StoredEvent._make(row) for row in self._connection.execute(query, (after, last, limit))]

    def read_encoded(self, after: int, limit: int, most_bytes: int, through: int | None = None) -> list[tuple[int, bytes]]:
        """Sequences and encoded events after a sequence, oldest first. Ends soon after `most_bytes` are reached."""
        last = _LARGEST if through is None else through
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
        return [StoredEvent._make(row) for row in self._connection.execute(query, (before, limit))]

    def read_kind(self, kind: str, through: int | None = None, newest: int | None = None) -> list[StoredEvent]:
        """Events of one kind, oldest first; only so many of the newest if said."""
        last, limit = (_LARGEST if through is None else through), (-1 if newest is None else newest)
        query = f"SELECT {_COLUMNS} FROM events WHERE kind = ? AND sequence <= ? ORDER BY sequence DESC LIMIT ?"
        rows = self._connection.execute(query, (KIND_NUMBERS[kind], last, limit)).fetchall()
        return [StoredEvent._make(row) for row in reversed(rows)]

    def count(self, kind: str, through: int) -> int:
        """How many events of one kind are kept, up to a sequence."""
        query = "SELECT count(*) FROM events WHERE kind = ? AND sequence <= ?"
        found: int = self._connection.execute(query, (KIND_NUMBERS[kind], through)).fetchone()[0]
        return found

    def links(self, after: int, limit: int) -> list[Link]:
        """The hash chain after a sequence, oldest first."""
        return links_of(self._connection, after, limit)

    def snapshot(self) -> Snapshot | None:
        """What takes the place of compacted events, if any were."""
        try:
            return snapshot_of(self._connection)
        except (struct.error, TypeError) as error:
            raise JournalDamagedError(f"the snapshot is not of its kind: {error}", 0) from error

    def check(self) -> Head:
        """Reads everything and proves it whole; raises JournalDamagedError."""
        if self._connection.in_transaction:
            return check_chain(self)
        with self.standing_still():
            return check_chain(self)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """While this lasts the journal is read as it was when it began, whatever its writer adds."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.execute("COMMIT")

    def backup(self, path: Path) -> None:
        """Copies the journal as it is at one moment, also while it is written. The copy is a file by itself, on disk when this returns."""
        copy = sqlite3.connect(path, isolation_level=None)
        try:
            self._connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()


class SqliteFile:
    """The one connection that writes a journal file (a JournalStorage)."""

    def __init__(self, path: Path, ballast: Path | None = None) -> None:
        self._path = path
        self._ballast = ballast
        self._generation = 0
        self._connection = connect(path, writable=True)
        try:
            # Of a new file: events of some hundred bytes leave less of a larger page empty. The log is kept at four megabytes all the same.
            self._connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_BYTES // _PAGE_BYTES}")
            upgrade(self._connection)
        except BaseException:
            self._connection.close()
            raise

    def take_over(self, generation: int) -> None:
        """Fences earlier generations off."""
        taken = self._connection.execute("UPDATE meta SET generation = ? WHERE generation < ?", (generation, generation))
        if taken.rowcount == 0:
            raise FencedError(f"generation {generation} is not newer than the one that has {self._path}")
        self._generation = generation

    def head(self) -> Head:
        """Where the journal ends."""
        return head_of(self._connection)

    def last_hash(self) -> bytes:
        """The end of the chain."""
        row = self._connection.execute("SELECT hash FROM events WHERE hash IS NOT NULL ORDER BY sequence DESC LIMIT 1").fetchone()
        if row is None:
            snapshot = snapshot_of(self._connection)
            return b"" if snapshot is None else snapshot.chain
        found: bytes = row[0]
        return found

    def open_session(self) -> list[StoredEvent]:
        """Events after the last settlement: those that may be done again."""
        settled = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM events WHERE kind = ?", (SETTLED,)).fetchone()[0]
        query = f"SELECT {_COLUMNS} FROM events WHERE sequence > ?"
        return [StoredEvent._make(row) for row in self._connection.execute(query, (settled,))]

    def commit(
        self, group: Sequence[StoredEvent], added: Sequence[Link], epoch: int | None = None, prepared: Callable[[], None] | None = None
    ) -> None:
        """One transaction."""
        hashes = dict(added)
        try:
            if epoch is None and len(group) <= _MOST_ROWS:
                self._insert(group, hashes, prepared)
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if epoch is not None:
                    self._connection.execute("UPDATE meta SET epoch = ?", (epoch,))
                for place in range(0, len(group), _MOST_ROWS):
                    self._insert(group[place : place + _MOST_ROWS], hashes, prepared)
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some faults of the disk.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in _NO_ROOM:
                raise NoRoomError(f"there is no room to write the journal: {error} ({error.sqlite_errorname})") from error
            raise

    def _insert(self, group: Sequence[StoredEvent], hashes: Mapping[int, bytes], prepared: Callable[[], None] | None) -> None:
        """All by one statement: SQLite lets other threads of ours run only while it is at a statement, and waits for them after it."""
        values = list[object]()
        for event in group:
            values += event
            values.append(hashes.get(event.sequence))
        count = _with_room_for(len(group))
        values += [None] * (6 * (count - len(group)))
        values.append(self._generation)
        if prepared is not None:
            prepared()
        if self._connection.execute(_insertion(count), values).rowcount == 0:
            raise FencedError(f"generation {self._generation} has been replaced")

    def give_room(self) -> bool:
        """Deletes the ballast."""
        if self._ballast is None or not self._ballast.exists():
            return False
        self._ballast.unlink()
        return True

    def hold_room(self) -> bool:
        """Makes the ballast, once the disk has twice its size: one that fills the disk would be in its own way."""
        if self._ballast is None or self._ballast.exists():
            return True
        try:
            if shutil.disk_usage(self._ballast.parent).free < 2 * BALLAST_BYTES:
                return False
            with self._ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError:
            self._ballast.unlink(missing_ok=True)
            return False
        return True

    def cut(self, snapshot: Snapshot) -> int:
        """Puts a snapshot in the place of all events up to its own (a JournalCompactor)."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            row = (snapshot.sequence, snapshot.chain, snapshot.desk, snapshot.state, seal(snapshot))
            self._connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", row)
            self._connection.execute("DELETE FROM snapshots WHERE sequence < ?", (snapshot.sequence,))
            gone = self._connection.execute("DELETE FROM events WHERE sequence <= ?", (snapshot.sequence,)).rowcount
            self._connection.execute("UPDATE meta SET compacted_through = ?", (snapshot.sequence,))
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return gone

    def shrink(self) -> None:
        """Gives free pages back to the disk, if it has the room that this takes for a while."""
        try:
            self._connection.execute("VACUUM")
        except sqlite3.OperationalError:
            # Somebody reads, or the disk is full: the pages stay free for later events.
            return

    def close(self) -> None:
        """Leaves WAL mode, so that the finished file can be opened as immutable."""
        try:
            # A reader in the middle of something is not waited for long: whoever ends us may not wait either.
            self._connection.execute("PRAGMA busy_timeout=1000")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error:
            # A reader still has the file open, or the disk is full: the WAL stays, and readers go on to need it.
            pass
        finally:
            self._connection.close()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._connection.close()


class SqliteCompactor:
    """Takes events out of a journal file that nobody writes (a JournalCompactor)."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path)

    def cut(self, snapshot: Snapshot) -> int:
        """Puts a snapshot in the place of all events up to its own, in one transaction; returns how many went."""
        return self._file.cut(snapshot)

    def close(self) -> None:
        """Gives the room of what went back to the disk, and closes the file."""
        self._file.shrink()
        self._file.close()


class SqliteWriter(GroupWriter):
    """Writes a journal file from one event loop."""

    def __init__(
        self,
        path: Path,
        run_id: str,
        generation: int,
        published: Published,
        *,
        watermark: Head | None = None,
        stalled: Stalled | None = None,
        ballast: Path | None = None,
    ) -> None:
        """As GroupWriter. `ballast` is a file that holds room back for the day when the disk is full."""
        super().__init__(SqliteFile(path, ballast), run_id, generation, published, watermark=watermark, stalled=stalled)


class SqliteStore:
    """A journal file (a JournalStore)."""

    def __init__(self, path: Path, *, ballast: Path | None = None, immutable: bool = False) -> None:
        """`immutable`: nobody writes the file while it is open, and it is whole without a write-ahead log."""
        self._path = path
        self._ballast = ballast
        self._immutable = immutable

    def reader(self) -> SqliteReader:
        """Opens it for reading."""
        return SqliteReader(self._path, immutable=self._immutable)

    def writer(
        self, run_id: str, generation: int, published: Published, *, watermark: Head | None = None, stalled: Stalled | None = None
    ) -> SqliteWriter:
        """Takes it over for a generation."""
        return SqliteWriter(self._path, run_id, generation, published, watermark=watermark, stalled=stalled, ballast=self._ballast)

    def compactor(self) -> SqliteCompactor:
        """Opens it for compaction."""
        return SqliteCompactor(self._path)
