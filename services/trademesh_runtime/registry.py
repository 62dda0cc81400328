"""`runs/registry.db`: the runs, and answers that are kept for repeated requests. What is acknowledged survives power loss."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import Message

from trademesh.runtime.v1.runtime_pb2 import Run
from trademesh_kernel.errors import RequestIdReused

SCHEMA_VERSION = 1
KEPT_REQUESTS_S = 24 * 3600

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run_id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE, run BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (
    run_id TEXT NOT NULL, generation INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, cause TEXT,
    PRIMARY KEY (run_id, generation)
);
CREATE TABLE IF NOT EXISTS requests (request_id TEXT PRIMARY KEY, digest BLOB NOT NULL, answer BLOB NOT NULL, kept_until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS revisions (revision INTEGER NOT NULL);
INSERT INTO revisions SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM revisions);
"""


_SAVE = (
    "INSERT INTO runs (run_id, position, run) VALUES (?, (SELECT coalesce(max(position), 0) + 1 FROM runs), ?)"
    " ON CONFLICT (run_id) DO UPDATE SET run = excluded.run"
)
REVISIONS_AT_ONCE = 10_000


class Registry:
    """The rows, behind one lock."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._lock = threading.Lock()
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise SystemExit(f"{path} has version {version}; this trademesh knows {SCHEMA_VERSION}: install a newer one")
        self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")

    def reserve_revisions(self, count: int) -> int:
        """The first of so many numbers that are higher than any given out before."""
        with self._lock:
            row = self._connection.execute("UPDATE revisions SET revision = revision + ? RETURNING revision", (count,)).fetchone()
            return int(row[0]) - count + 1

    def save(self, run: Run) -> None:
        """Adds or replaces a run."""
        with self._lock:
            self._connection.execute(_SAVE, (run.run_id, run.SerializeToString()))

    def accept(self, run: Run, request_id: str, request: Message, answer: Message) -> None:
        """Adds a run, and with it, wholly or not at all, the answer that a repeated request gets."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.execute(_SAVE, (run.run_id, run.SerializeToString()))
                if request_id:
                    row = (request_id, _digest(request), answer.SerializeToString(), time.time() + KEPT_REQUESTS_S)
                    self._connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", row)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def get(self, run_id: str) -> Run | None:
        """A run, or None."""
        with self._lock:
            row = self._connection.execute("SELECT run FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else Run.FromString(row[0])

    def newest_first(self) -> list[tuple[int, Run]]:
        """All runs with their positions, newest first."""
        with self._lock:
            rows = self._connection.execute("SELECT position, run FROM runs ORDER BY position DESC").fetchall()
        return [(position, Run.FromString(run)) for position, run in rows]

    def attempt_begins(self, run_id: str, generation: int) -> None:
        """Says that a generation is about to be started: durable before the process is."""
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO attempts (run_id, generation, started_at) VALUES (?, ?, ?)", (run_id, generation, time.time())
            )

    def is_open(self, run_id: str, generation: int) -> bool:
        """True if a generation was to be started, and has not been seen to end."""
        query = "SELECT ended_at IS NULL FROM attempts WHERE run_id = ? AND generation = ?"
        with self._lock:
            row = self._connection.execute(query, (run_id, generation)).fetchone()
        return row is not None and bool(row[0])

    def began_within(self, run_id: str, generation: int, seconds: float) -> bool:
        """True if a generation was started so short a time ago."""
        query = "SELECT started_at FROM attempts WHERE run_id = ? AND generation = ?"
        with self._lock:
            row = self._connection.execute(query, (run_id, generation)).fetchone()
        return row is not None and abs(time.time() - row[0]) < seconds

    def attempt_ends(self, run_id: str, generation: int, cause: str) -> None:
        """Says how a generation ended."""
        with self._lock:
            self._connection.execute(
                "UPDATE attempts SET ended_at = ?, cause = ? WHERE run_id = ? AND generation = ?", (time.time(), cause, run_id, generation)
            )

    def recall(self, request_id: str, request: Message) -> bytes | None:
        """The answer given before for a request id, or None; raises RequestIdReused."""
        if not request_id:
            return None
        with self._lock:
            self._connection.execute("DELETE FROM requests WHERE kept_until < ?", (time.time(),))
            row = self._connection.execute("SELECT digest, answer FROM requests WHERE request_id = ?", (request_id,)).fetchone()
        if row is None:
            return None
        if row[0] != _digest(request):
            raise RequestIdReused(request_id)
        return bytes(row[1])

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()


class Revisions:
    """Numbers of changes, each higher than any before, also across restarts; the disk is asked once in ten thousand."""

    def __init__(self, registry: Registry) -> None:
        """Reserves the first numbers; raises sqlite3.Error."""
        self._registry = registry
        self._next = registry.reserve_revisions(REVISIONS_AT_ONCE)
        self._reserved_to = self._next + REVISIONS_AT_ONCE

    def next(self) -> int:
        """The next number. A disk that cannot be written does not stop it: it is asked long before numbers run out."""
        if self._next >= self._reserved_to - REVISIONS_AT_ONCE // 2:
            with suppress(sqlite3.Error):
                self._reserved_to = self._registry.reserve_revisions(REVISIONS_AT_ONCE) + REVISIONS_AT_ONCE
        number = self._next
        self._next += 1
        return number


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
