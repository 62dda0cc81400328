"""The journal file: order, hashes, fencing, repeats."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_runs.journal import Draft, JournalDamagedError, StoredEvent, all_events, desk_digest
from trademesh_runs.journal_sqlite import FencedError, NewerJournalError, SqliteReader, SqliteWriter


def draft(number: int) -> Draft:
    """An event of the desk."""
    return Draft("session_opened", events.SessionOpened(session_number=number), f"2020-01-{number:02d}", 1)


async def write(path: Path, numbers: Sequence[int], generation: int = 1, flush_every: int = 10_000) -> list[StoredEvent]:
    """Writes events, flushing now and then; returns what was published."""
    published = list[StoredEvent]()
    writer = SqliteWriter(path, "demo", generation, published.extend)
    for place, number in enumerate(numbers):
        writer.append(draft(number))
        if place % flush_every == 0:
            await writer.flush()
    await writer.close()
    return published


async def test_sequences_are_gapless_and_published_in_order(tmp_path: Path) -> None:
    published = await write(tmp_path / "j.db", range(1, 29), flush_every=3)
    assert [event.sequence for event in published] == list(range(1, 29))
    assert [event.parse().sequence for event in published] == list(range(1, 29))
    reader = SqliteReader(tmp_path / "j.db")
    assert [event.data for event in all_events(reader, block=5)] == [event.data for event in published]
    assert reader.check().sequence == 28
    reader.close()


async def test_batches_and_generations_do_not_enter_the_digest_of_the_desk(tmp_path: Path) -> None:
    one = await write(tmp_path / "one.db", range(1, 20))
    other = await write(tmp_path / "other.db", range(1, 8), flush_every=2)
    other += await write(tmp_path / "other.db", range(8, 20), generation=2)
    assert desk_digest(one) == desk_digest(other)


async def test_what_is_done_again_after_a_crash_is_not_written_twice(tmp_path: Path) -> None:
    await write(tmp_path / "j.db", [1, 2, 3])
    assert [event.sequence for event in await write(tmp_path / "j.db", [1, 2, 3, 4], generation=2)] == [4]


@pytest.mark.parametrize("offset", [0, 7, -1])
async def test_one_changed_byte_is_found(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "j.db"
    await write(path, range(1, 20), flush_every=4)
    connection = sqlite3.connect(path)
    (data,) = connection.execute("SELECT data FROM events WHERE sequence = 9").fetchone()
    changed = bytearray(data)
    changed[offset] ^= 1
    connection.execute("UPDATE events SET data = ? WHERE sequence = 9", (bytes(changed),))
    connection.commit()
    connection.close()
    reader = SqliteReader(path)
    with pytest.raises(JournalDamagedError):
        reader.check()
    reader.close()


async def test_a_missing_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    await write(path, range(1, 20), flush_every=4)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM events WHERE sequence > 15")
    connection.commit()
    connection.close()
    reader = SqliteReader(path)
    with pytest.raises(JournalDamagedError):
        reader.check()
    reader.close()


async def test_a_writer_that_was_replaced_can_write_no_more(tmp_path: Path) -> None:
    old = SqliteWriter(tmp_path / "j.db", "demo", 1, lambda _group: None)
    old.append(draft(1))
    await old.flush()
    new = SqliteWriter(tmp_path / "j.db", "demo", 2, lambda _group: None)
    old.append(draft(2))
    with pytest.raises(FencedError):
        await old.flush()
    new.append(draft(3))
    await new.flush()
    assert new.committed == 2
    await new.close()
    with pytest.raises(FencedError):
        SqliteWriter(tmp_path / "j.db", "demo", 2, lambda _group: None)


async def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    await write(tmp_path / "j.db", [1])
    connection = sqlite3.connect(tmp_path / "j.db")
    connection.execute("PRAGMA user_version=99")
    connection.commit()
    connection.close()
    with pytest.raises(NewerJournalError, match="99"):
        SqliteReader(tmp_path / "j.db")
