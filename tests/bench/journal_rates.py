"""The journal against bare SQLite: appends as the pipeline makes them, reads, and what an event takes on disk."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.figures import ROUNDS, Figure, against, at_least, at_most
from trademesh_gateway.pipeline.controller import GIVE_WAY_S
from trademesh_runs.journal import KIND_NAMES, Draft, StoredEvent, all_events
from trademesh_runs.journal_sqlite import SqliteReader, SqliteWriter

APPENDED = 30_000
SAMPLE = 2_000
"""So many events are appended again and again, as if of other runs: those that the pipeline appends were made the moment before, and are
in the processor's caches, where 30,000 would not be."""
APPEND_GOAL = 0.5
EVENTS_OF_A_SESSION = 12
READ_BLOCK = 2048


def journal_figures(journal: Path) -> list[Figure]:
    """Figures over the events of a finished journal."""
    reader = SqliteReader(journal)
    try:
        sample = [_draft(event) for event in all_events(reader, 0, SAMPLE)]
        drafts = [replace(draft, item=f"{number}:{draft.item}") for number in range(APPENDED // len(sample)) for draft in sample]
        # What collection of garbage there is, is that of what the journal makes.
        gc.collect()
        gc.freeze()
        appended, raw = list[float](), list[float]()
        for number in range(ROUNDS + 1):
            with tempfile.TemporaryDirectory(prefix="trademesh-bench-", dir=journal.parent) as name:
                ours = Path(name) / "ours.db"
                rate, batches = asyncio.run(_append(ours, drafts))
                with closing(SqliteReader(ours)) as appended_events:
                    bare = _raw_inserts(Path(name) / "bare.db", list(all_events(appended_events)), batches)
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
        gc.unfreeze()
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
    began = gave_way_at = time.perf_counter()
    for number, draft in enumerate(drafts):
        writer.append(draft)
        if number % EVENTS_OF_A_SESSION == 0:
            await writer.room()
            if time.perf_counter() - gave_way_at >= GIVE_WAY_S:
                await asyncio.sleep(0)
                gave_way_at = time.perf_counter()
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
