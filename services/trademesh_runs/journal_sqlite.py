"""A journal in one SQLite file. One writer at a time, fenced by generation; any number of readers. Reading and compaction are here, and
where a writer's groups go; their order is `journal_writer.py`'s.

synchronous=FULL: what was committed survives power loss. Exactly one connection writes, and it alone makes checkpoints.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
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

SCHEMA_VERSION = 2
SQLITE_VERSION = sqlite3.sqlite_version
"""Worth a line in the log: versions before 3.51.3 may damage a file that two connections write."""
BALLAST_BYTES = 1024 * 1024
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
_SCHEMA_2 = """
ALTER TABLE meta ADD COLUMN compacted_through INTEGER NOT NULL DEFAULT 0;
CREATE TABLE snapshots (sequence INTEGER PRIMARY KEY, chain BLOB NOT NULL, desk BLOB NOT NULL, state BLOB NOT NULL, seal BLOB NOT NULL);
"""
_COLUMNS = "sequence, kind, agent_id, core_length, data"
_NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
_PAGE_BYTES = 8192
_LOG_BYTES = 4 * 1024 * 1024
_LARGEST = 2**62
_LOG_VERSIONS_AT = 18
"""Where a file says whether it is written by way of a log (https://www.sqlite.org/fileformat2.html, 1.3.3)."""
_EVENT_INSERTS = [(count, f"INSERT INTO events VALUES {', '.join(['(?, ?, ?, ?, ?)'] * count)}") for count in (1024, 128, 16, 1)]
_LINK_INSERTS = [(count, f"INSERT INTO batches VALUES {', '.join(['(?, ?)'] * count)}") for count in (64, 8, 1)]


def connect(path: Path, *, writable: bool, immutable: bool = False) -> sqlite3.Connection:
    """Opens a journal; raises NewerJournalError, JournalDamagedError, and sqlite3.Error if it is not one."""
    if not immutable:
        _refuse_the_log_of_another(path)
    mode = "rwc" if writable else "ro"
    uri = f"{path.absolute().as_uri()}?mode={mode}" + ("&immutable=1" if immutable else "")
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    # A name with damaged bytes is for the chain to find: it must not look like a fault of the disk.
    connection.text_factory = _text
    try:
        version = _version(connection)
        if version > SCHEMA_VERSION:
            raise NewerJournalError(f"{path} has version {version}; this trademesh knows {SCHEMA_VERSION}: install a newer one")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_the_log_of_another(path: Path) -> None:
    """A file that was put back beside the write-ahead log of the one before it. SQLite would mix the two without a word."""
    log = path.with_name(path.name + "-wal")
    # A file of ours that has a log says so in its header, before the log is there and until it is gone. A writer may come between two looks.
    if _needs_no_log(path) and _has_bytes(log) and _needs_no_log(path):
        raise JournalDamagedError(
            f"{log} is not the log of {path.name}, which needs none: move the log away if the file is the right one", 0
        )


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _needs_no_log(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(_LOG_VERSIONS_AT)
            return file.read(2) == b"\1\1"
    except FileNotFoundError:
        return False


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _head(connection: sqlite3.Connection) -> Head:
    compacted = "compacted_through" if _version(connection) >= 2 else "0"
    query = f"SELECT epoch, coalesce((SELECT max(sequence) FROM events), {compacted}), {compacted} FROM meta"
    return Head(*connection.execute(query).fetchone())


def _snapshot(connection: sqlite3.Connection) -> Snapshot | None:
    if _version(connection) < 2:
        return None
    row = connection.execute("SELECT sequence, chain, desk, state, seal FROM snapshots ORDER BY sequence DESC LIMIT 1").fetchone()
    if row is None:
        return None
    snapshot = Snapshot(*row[:4])
    if seal(snapshot) != row[4]:
        raise JournalDamagedError(f"the snapshot of event {snapshot.sequence} is not what was written", snapshot.sequence)
    return snapshot


class SqliteReader:
    """Reads a journal file (a JournalReader). Not for two threads at once."""

    def __init__(self, path: Path, *, immutable: bool = False) -> None:
        self._connection = connect(path, writable=False, immutable=immutable)

    def head(self) -> Head:
        """Where the journal ends now."""
        return _head(self._connection)

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
        query = "SELECT last_sequence, hash FROM batches WHERE last_sequence > ? ORDER BY last_sequence LIMIT ?"
        return [Link(*row) for row in self._connection.execute(query, (after, limit))]

    def snapshot(self) -> Snapshot | None:
        """What takes the place of compacted events, if any were."""
        try:
            return _snapshot(self._connection)
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
            version = _version(self._connection)
            if version < SCHEMA_VERSION:
                steps = _SCHEMA_2 if version == 1 else _SCHEMA + _SCHEMA_2
                self._connection.executescript(f"BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
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
        return _head(self._connection)

    def last_hash(self) -> bytes:
        """The end of the chain."""
        row = self._connection.execute("SELECT hash FROM batches ORDER BY last_sequence DESC LIMIT 1").fetchone()
        if row is None:
            snapshot = _snapshot(self._connection)
            return b"" if snapshot is None else snapshot.chain
        found: bytes = row[0]
        return found

    def open_session(self) -> list[StoredEvent]:
        """Events after the last settlement: those that may be done again."""
        settled = self._connection.execute("SELECT coalesce(max(sequence), 0) FROM events WHERE kind = ?", (SETTLED,)).fetchone()[0]
        query = f"SELECT {_COLUMNS} FROM events WHERE sequence > ?"
        return [StoredEvent._make(row) for row in self._connection.execute(query, (settled,))]

    def commit(self, group: Sequence[StoredEvent], added: Sequence[Link], epoch: int | None = None) -> None:
        """One transaction."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                if self._connection.execute("SELECT generation FROM meta").fetchone()[0] != self._generation:
                    raise FencedError(f"generation {self._generation} has been replaced")
                if epoch is not None:
                    self._connection.execute("UPDATE meta SET epoch = ?", (epoch,))
                self._insert(_EVENT_INSERTS, group)
                self._insert(_LINK_INSERTS, added)
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

    def _insert(self, statements: Sequence[tuple[int, str]], rows: Sequence[tuple[object, ...]]) -> None:
        """Many rows by one statement: SQLite lets other threads of ours run only while it is at a statement, and waits for them after it."""
        place = 0
        for count, statement in statements:
            while len(rows) - place >= count:
                self._connection.execute(statement, list(chain.from_iterable(rows[place : place + count])))
                place += count

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
            self._connection.execute("DELETE FROM batches WHERE last_sequence <= ?", (snapshot.sequence,))
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
