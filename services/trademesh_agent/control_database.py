"""`workspaces/agent_service.db`: the tables of approvals and of answers that are kept for repeated requests.

SQLite with synchronous=FULL: a decision that was acknowledged survives power loss. What the rows mean is said in
`approvals.py` and `requests.py`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS approvals (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    approval_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL,
    title TEXT NOT NULL,
    subject_json TEXT NOT NULL,
    state INTEGER NOT NULL,
    decided_by TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    requested_at_us INTEGER NOT NULL,
    expires_at_us INTEGER NOT NULL,
    settled_at_us INTEGER
);
CREATE INDEX IF NOT EXISTS approvals_by_state ON approvals (state, expires_at_us);
CREATE TABLE IF NOT EXISTS requests (
    request_id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    answer BLOB NOT NULL,
    kept_until_us INTEGER NOT NULL
);
"""


class NewerDatabaseError(Exception):
    """The database was written by a later version of trademesh."""


class ControlDatabase:
    """One connection, one transaction at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        self._lock = threading.Lock()
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._connection.close()
            raise NewerDatabaseError(f"{path} has version {version}; this trademesh knows {SCHEMA_VERSION}: install a newer one")
        self._connection.executescript(_SCHEMA)
        self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end, rolled back if the block raises."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Closes the connection; WAL content is moved into the main file."""
        with self._lock:
            self._connection.close()
