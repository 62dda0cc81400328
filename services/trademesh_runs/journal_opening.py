"""How a journal file is opened: its schema and version, what it says of itself in one row, and a log beside it that is not its own.

What is read and written through the connection is `journal_sqlite.py`'s.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from pathlib import Path

from trademesh_runs.chain import seal
from trademesh_runs.journal import Head, JournalDamagedError, Link, NewerJournalError, Snapshot

SCHEMA_VERSION = 3
SQLITE_VERSION = sqlite3.sqlite_version
"""Worth a line in the log: versions before 3.51.3 may damage a file that two connections write."""

_LOG_VERSIONS_AT = 18
"""Where a file says whether it is written by way of a log (https://www.sqlite.org/fileformat2.html, 1.3.3)."""

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
_SCHEMA_3 = """
ALTER TABLE events ADD COLUMN hash BLOB;
UPDATE events SET hash = (SELECT hash FROM batches WHERE last_sequence = sequence) WHERE sequence IN (SELECT last_sequence FROM batches);
DROP TABLE batches;
"""
"""With the hash of a link in its event's own row, a group of events is one statement."""


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
        version = version_of(connection)
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


@lru_cache(256)
def _text(data: bytes) -> str:
    # The texts of a journal are names of agents: the same few, in a hundred thousand rows.
    return data.decode(errors="replace")


def version_of(connection: sqlite3.Connection) -> int:
    """Version of its schema; 0 of a new file."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def head_of(connection: sqlite3.Connection) -> Head:
    """Where the journal ends."""
    compacted = "compacted_through" if version_of(connection) >= 2 else "0"
    query = f"SELECT epoch, coalesce((SELECT max(sequence) FROM events), {compacted}), {compacted} FROM meta"
    return Head(*connection.execute(query).fetchone())


def links_of(connection: sqlite3.Connection, after: int, limit: int) -> list[Link]:
    """The hash chain after a sequence, oldest first."""
    if version_of(connection) >= 3:
        query = "SELECT sequence, hash FROM events WHERE sequence > ? AND hash IS NOT NULL ORDER BY sequence LIMIT ?"
    else:
        query = "SELECT last_sequence, hash FROM batches WHERE last_sequence > ? ORDER BY last_sequence LIMIT ?"
    return [Link(*row) for row in connection.execute(query, (after, limit))]


def snapshot_of(connection: sqlite3.Connection) -> Snapshot | None:
    """What takes the place of compacted events, if any were; raises JournalDamagedError."""
    if version_of(connection) < 2:
        return None
    row = connection.execute("SELECT sequence, chain, desk, state, seal FROM snapshots ORDER BY sequence DESC LIMIT 1").fetchone()
    if row is None:
        return None
    snapshot = Snapshot(*row[:4])
    if seal(snapshot) != row[4]:
        raise JournalDamagedError(f"the snapshot of event {snapshot.sequence} is not what was written", snapshot.sequence)
    return snapshot


def upgrade(connection: sqlite3.Connection) -> None:
    """Brings a file, or a new one, to the present schema."""
    version = version_of(connection)
    if version < SCHEMA_VERSION:
        steps = "".join((_SCHEMA, _SCHEMA_2, _SCHEMA_3)[version:])
        connection.executescript(f"BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
