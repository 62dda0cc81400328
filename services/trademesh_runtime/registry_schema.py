"""The tables of `runs/registry.db`, as the steps by which they came to be: an older file is brought up to date step by step, in one
transaction. What is in the tables is `registry.py`'s."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_STEPS = (
    """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE, run BLOB NOT NULL);
CREATE TABLE attempts (
    run_id TEXT NOT NULL, generation INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL, cause TEXT,
    PRIMARY KEY (run_id, generation)
);
CREATE TABLE requests (request_id TEXT PRIMARY KEY, digest BLOB NOT NULL, answer BLOB NOT NULL, kept_until REAL NOT NULL);
CREATE TABLE revisions (revision INTEGER NOT NULL);
INSERT INTO revisions VALUES (0);
""",
    # How attempts ended, in figures. Requests of other methods than StartRun, and such as have no answer yet. What was asked of a run and
    # may not be done yet. How far runs are, between two changes of their state. Runs that are no more.
    """
ALTER TABLE attempts ADD COLUMN code INTEGER;
ALTER TABLE attempts ADD COLUMN signal INTEGER;
ALTER TABLE requests ADD COLUMN method TEXT NOT NULL DEFAULT 'trademesh.runtime.v1.StartRunRequest';
ALTER TABLE requests ADD COLUMN answered INTEGER NOT NULL DEFAULT 1;
CREATE INDEX requests_by_end ON requests (kept_until);
CREATE TABLE wishes (run_id TEXT PRIMARY KEY, kind TEXT NOT NULL, reason TEXT NOT NULL, generation INTEGER NOT NULL);
CREATE TABLE progress (run_id TEXT PRIMARY KEY, revision INTEGER NOT NULL, progress BLOB NOT NULL);
CREATE TABLE deleted (revision INTEGER PRIMARY KEY, run_id TEXT NOT NULL);
ALTER TABLE revisions ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
""",
)

SCHEMA_VERSION = len(_STEPS)


def bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables, or what is missing of them.

    Raises:
        SystemExit: the file is of a newer version of this program.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise SystemExit(f"{path} has version {version}; this trademesh knows {SCHEMA_VERSION}: install a newer one")
    if version < SCHEMA_VERSION:
        connection.executescript(f"BEGIN IMMEDIATE; {''.join(_STEPS[version:])} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
