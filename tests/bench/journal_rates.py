"""The journal against bare SQLite: appends as the pipeline makes them, reads, and what an event takes on disk."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.figures import ROUNDS, Figure, against, at_least, at_most
from trademesh_runs.journal import KIND_NAMES, Draft, StoredEvent, all_events
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter

APPENDED = 30_000
APPEND_GOAL = 0.5
READ_BLOCK = 2048


def journal_figures(journal: Path) -> list[Figure]:
    """Figures over the events of a finished journal."""
    reader = SqliteReader(journal)
    try:
        stored = list(all_events(reader, 0, APPENDED))
        drafts = [_draft(event) for event in stored]
        appended, raw = list[float](), list[float]()
        for number in range(ROUNDS + 1):
            with tempfile.TemporaryDirectory(prefix="trademesh-bench-", dir=journal.parent) as name:
                rate, batches = asyncio.run(_append(Path(name) / "ours.db", drafts))
                bare = _raw_inserts(Path(name) / "bare.db", stored, batches)
            if number:
                appended.append(rate)
                raw.append(bare)
        return [
            against(
                "journal appends, against raw SQLite inserts of the same rows in the same batches", "events/s", appended, raw, APPEND_GOAL
            ),
            at_least("journal appends, against the least that is asked for", "events/s", appended, 5_000),
            at_least("journal read", "events/s", [_read(reader) for _ in range(ROUNDS)], 500_000),
            _disk(journal, reader),
        ]
    finally:
        reader.close()


def _draft(stored: StoredEvent) -> Draft:
    event = stored.parse()
    kind = KIND_NAMES[stored.kind]
    # The name of an event is made from its item, too: without it, those of one phase would be taken for the same.
    return Draft(kind, getattr(event, kind), event.session_date, event.phase, event.agent_id, item=event.event_id)


async def _append(path: Path, drafts: Sequence[Draft]) -> tuple[float, list[int]]:
    """Events per second, encoding included, and how many each transaction held."""
    groups = list[int]()
    writer = SqliteWriter(path, "bench", 1, lambda group: groups.append(len(group)))
    began = time.perf_counter()
    for number, draft in enumerate(drafts):
        writer.append(draft)
        if number % 12 == 0:
            # About so many events are one session, after which the pipeline gives way.
            await writer.room()
            await asyncio.sleep(0)
    await writer.flush()
    rate = len(drafts) / (time.perf_counter() - began)
    await writer.close()
    return rate, groups


def _raw_inserts(path: Path, events: Sequence[StoredEvent], batches: Sequence[int]) -> float:
    """The same rows into the same table and index, ready to be inserted."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(
        "CREATE TABLE events (sequence INTEGER PRIMARY KEY, kind INTEGER NOT NULL, agent_id TEXT NOT NULL, core_length INTEGER NOT NULL,"
        " data BLOB NOT NULL)"
    )
    connection.execute("CREATE INDEX events_by_kind ON events (kind, sequence)")
    rows = [(event.sequence, event.kind, event.agent_id, event.core_length, event.data) for event in events]
    began = time.perf_counter()
    place = 0
    for count in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows[place : place + count])
        connection.execute("COMMIT")
        place += count
    seconds = time.perf_counter() - began
    connection.close()
    return place / seconds


def _read(reader: SqliteReader) -> float:
    began = time.perf_counter()
    count = sum(1 for _ in all_events(reader, block=READ_BLOCK))
    return count / (time.perf_counter() - began)


def _disk(journal: Path, reader: SqliteReader) -> Figure:
    sizes = [len(event.data) for event in all_events(reader)]
    overhead = journal.stat().st_size / sum(sizes)
    name = f"size of the journal file, against the bytes of its {len(sizes):,} events (median {median(sizes):.0f} B)"
    return at_most(name, "times", overhead, 240 / 220 * 1.1)
